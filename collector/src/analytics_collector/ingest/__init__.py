"""The way of a batch; `pipeline` first."""
