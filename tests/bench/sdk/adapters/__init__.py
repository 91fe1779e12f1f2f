"""One small module for each SDK, so that the same programs can run with any of them.

`track()` returns whether the event was taken; what an SDK raises instead is caught here.
"""
