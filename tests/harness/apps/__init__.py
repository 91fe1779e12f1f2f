"""Small shops, one for each web framework, as their users write them. All answer alike.

With `BARE_SHOP` in the environment they have no analytics, to be compared with.
"""
