"""Write the `_limits` modules of the packages from spec/limits.json.

Knows numbers and their sections, not their meaning: that stands in the chapters.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

SECTIONS_OF = {
    "sdk-python/src/analytics_sdk/_limits.py": ("wire", "delivery"),
    "collector/src/analytics_collector/_limits.py": ("wire", "delivery", "server"),
}

HEADER = '''"""Generated from spec/limits.json by spec/tools/limits.py; do not edit."""

from typing import Final
'''


def number(value: int | float) -> str:
    """Write *value* the way a person reads it: 1_048_576."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"A limit is a number, not {value!r}.")
    return str(value) if abs(value) < 10_000 else f"{value:_}"


def module(limits: dict[str, dict[str, int | float]], sections: tuple[str, ...]) -> str:
    """Return the source of a `_limits` module with the *sections* of *limits*."""
    blocks = (
        "".join(f"{key.upper()}: Final = {number(value)}\n" for key, value in limits[name].items())
        for name in sections
    )
    return HEADER + "".join(
        f"\n# {name}\n{block}" for name, block in zip(sections, blocks, strict=True)
    )


def modules(root: Path) -> Iterator[tuple[str, str]]:
    """Yield the path below *root* and the source of every generated module."""
    limits = json.loads((root / "spec/limits.json").read_text(encoding="utf-8"))
    for path, sections in SECTIONS_OF.items():
        yield path, module(limits, sections)


def problems(root: Path) -> Iterator[str]:
    """Yield a sentence for every generated module below *root* that is old."""
    for path, source in modules(root):
        file = root / path
        if not file.is_file() or file.read_text(encoding="utf-8") != source:
            yield f"{path} is not what spec/limits.json says; run python spec/tools/limits.py."


def main(arguments: list[str] | None = None) -> int:
    """Write the modules, or with --check say which of them are old."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 if a file is old"
    )
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout (default: this one)")
    options = parser.parse_args(arguments)

    if options.check:
        found = list(problems(options.root))
        print("\n".join(found), file=sys.stderr, end="\n" if found else "")
        return 1 if found else 0

    for path, source in modules(options.root):
        file = options.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source, encoding="utf-8")
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
