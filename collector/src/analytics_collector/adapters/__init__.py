"""Those who serve the protocols of `interfaces`: Postgres and Redis."""
