"""Events on the collector's own disk, waiting for Postgres."""
