"""`python -m analytics_sdk` is `analytics-sdk`."""

from __future__ import annotations

import sys

from analytics_sdk.cli import main

if __name__ == "__main__":
    sys.exit(main())
