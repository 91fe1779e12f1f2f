"""`python -m analytics_collector` is the command `analytics-collector`."""

from analytics_collector.cli import main

if __name__ == "__main__":
    main()
