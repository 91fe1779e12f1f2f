"""Copy what the packages read from spec/ into them, where pip can install it from.

Run it after a change of the schema or of errors.json; `agree.py --check` tells when that is due.
"""

from __future__ import annotations

import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COPIES = {
    "collector/src/analytics_collector/_spec": (
        "errors.json",
        "schema/event.json",
        "schema/project-settings.json",
    ),
    "sdk-python/src/analytics_sdk/_spec": ("schema/event.json",),
}


def main() -> None:
    """Write the copies."""
    for folder, names in COPIES.items():
        target = ROOT / folder
        target.mkdir(exist_ok=True)
        for name in names:
            shutil.copyfile(ROOT / "spec" / name, target / Path(name).name)


if __name__ == "__main__":
    main()
