"""Copy what the packages read from spec/ into them, where pip can install it from.

Run it after a change of the schema, of errors.json or of openapi.yaml; `agree.py --check` tells
when that is due. Needs PyYAML.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
COLLECTOR = "collector/src/analytics_collector/_spec"
COPIES = {
    COLLECTOR: ("errors.json", "schema/event.json", "schema/project-settings.json"),
    "sdk-python/src/analytics_sdk/_spec": ("schema/event.json",),
}
# The one in C takes a tenth of the time; not every build of PyYAML has it.
_SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def copies(spec: Path) -> dict[str, bytes]:
    """Return what belongs into the packages: path from the root, content."""
    files = {
        f"{folder}/{Path(name).name}": (spec / name).read_bytes()
        for folder, names in COPIES.items()
        for name in names
    }
    interface = json.dumps(one_document(spec), indent=1, ensure_ascii=False) + "\n"
    files[f"{COLLECTOR}/openapi.json"] = interface.encode()
    return files


def one_document(spec: Path) -> dict[str, Any]:
    """Return openapi.yaml as one document: the schema files that it names become components."""
    text = (spec / "openapi.yaml").read_text(encoding="utf-8")
    document: dict[str, Any] = yaml.load(text, Loader=_SAFE_LOADER)  # noqa: S506
    for path in sorted((spec / "schema").glob("*.json")):
        schema = json.loads(path.read_text(encoding="utf-8"))
        name = path.stem
        # It is no document of its own any more.
        del schema["$schema"], schema["$id"]
        document["components"]["schemas"][name] = _refer(schema, f"#/components/schemas/{name}")
    result: dict[str, Any] = _refer(document, "#")
    return result


def _refer(node: Any, home: str) -> Any:
    """Return *node* with references to files, and to its own document, as the whole has them."""
    if isinstance(node, list):
        return [_refer(item, home) for item in node]
    if not isinstance(node, dict):
        return node
    changed = {key: _refer(value, home) for key, value in node.items()}
    reference = node.get("$ref")
    if isinstance(reference, str) and reference.endswith(".json"):
        changed["$ref"] = f"#/components/schemas/{Path(reference).stem}"
    elif isinstance(reference, str) and reference.startswith("#/$defs"):
        changed["$ref"] = home + reference.removeprefix("#")
    return changed


def main() -> None:
    """Write the copies."""
    for name, content in copies(ROOT / "spec").items():
        target = ROOT / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(content)


if __name__ == "__main__":
    main()
