"""The door: from connections to the pipeline, and from refusals to answers."""
