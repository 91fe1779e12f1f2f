"""Event schemas as files: a folder with one JSON file for each event, named after it.

`analytics-sdk codegen` reads the same folder. What no file may be called is written as in a URL:
the event `Order/Placed` is in `Order%2FPlaced.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import orjson

from analytics_collector.errors import ConfigurationError, InvalidQuery
from analytics_collector.schemas.document import read_event_name, read_schema

# As Windows has it, which forbids the most.
_FORBIDDEN: Final = frozenset('%/\\:*?"<>|')
_MAX_FILE_NAME_BYTES: Final = 255


def file_name(event: str) -> str:
    """Return what the file of *event* is called. Raises `ConfigurationError` if it is too long."""
    name = "".join(f"%{ord(char):02X}" if char in _FORBIDDEN else char for char in event)
    if name[0] == ".":
        name = f"%2E{name[1:]}"
    name += ".json"
    if len(name.encode()) > _MAX_FILE_NAME_BYTES:
        raise ConfigurationError(f"{event[:40]}...: the name of this event is too long for a file")
    return name


def read_folder(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the schema of each event in *folder*, by name; each may be registered.

    Raises `ConfigurationError` that names every file at fault, and `OSError`.
    """
    found = {}
    mistakes = []
    for file in sorted(folder.glob("*.json")):
        name = unquote(file.stem)
        try:
            document = orjson.loads(file.read_bytes())
            read_event_name(name)
            read_schema(document)
        except orjson.JSONDecodeError as exc:
            mistakes.append(f"{file}: is not JSON: {exc}")
        except InvalidQuery as exc:
            mistakes.append(f"{file}: {exc}")
        else:
            found[name] = document
    if mistakes:
        raise ConfigurationError("\n".join(mistakes))
    if not found:
        raise ConfigurationError(f"{folder}: there is no file <event>.json in it")
    return found


def write_folder(folder: Path, schemas: Mapping[str, Any]) -> list[Path]:
    """Write each of *schemas* to its file in *folder*, and return those that were changed."""
    texts = {
        folder / file_name(event): orjson.dumps(schema, option=orjson.OPT_INDENT_2) + b"\n"
        for event, schema in schemas.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    changed = []
    for file, text in texts.items():
        if not file.exists() or file.read_bytes() != text:
            file.write_bytes(text)
            changed.append(file)
    return changed
