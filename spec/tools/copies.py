"""Copy what the collector reads from spec/ into its package, where pip can install it from.

Run it after a change of the schema or of errors.json; `agree.py --check` tells when that is due.
"""

from __future__ import annotations

import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / "collector/src/analytics_collector/_spec"
COPIES = ("errors.json", "schema/event.json")


def main() -> None:
    """Write the copies."""
    TARGET.mkdir(exist_ok=True)
    for name in COPIES:
        shutil.copyfile(ROOT / "spec" / name, TARGET / Path(name).name)


if __name__ == "__main__":
    main()
