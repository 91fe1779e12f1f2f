"""A collector for product analytics: see `ingest/pipeline.py` first."""
