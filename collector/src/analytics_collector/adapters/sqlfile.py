"""Read `.sql` files with named blocks.

A block begins with a line `-- name: store_events`; comment lines right below it say what the
statement does. Everything up to the next name is the statement.
"""

from __future__ import annotations

import re
from importlib.resources import files

_NAME = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)


def parse_blocks(text: str) -> dict[str, str]:
    """Return the statements of *text* by name; ValueError if a name stands twice."""
    parts = _NAME.split(text)
    names, bodies = parts[1::2], parts[2::2]
    if len(set(names)) != len(names):
        raise ValueError(f"a name stands twice in {names}")
    return {name: body.strip() for name, body in zip(names, bodies, strict=True)}


def load_blocks(package: str, filename: str) -> dict[str, str]:
    """Return the statements of *filename* inside *package* by name."""
    return parse_blocks(files(package).joinpath(filename).read_text(encoding="utf-8"))
