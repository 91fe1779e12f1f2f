"""Take out of an event what must not leave the process, by name. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

# What allow and deny lists speak about; the rest of an event is the wire's own.
PARTS = ("properties", "traits", "context")
FLAT_PARTS = ("properties", "traits")


@dataclass(frozen=True, slots=True)
class Scrubber:
    """
    Allow and deny lists. An allow list of None allows all; names are compared without case.

    The lists of properties hold for the top level of `properties` and `traits`; the lists of keys
    for every level of `properties`, `traits` and `context`.
    """

    allow_properties: Collection[str] | None = None
    deny_properties: Collection[str] = frozenset()
    allow_keys: Collection[str] | None = None
    deny_keys: Collection[str] = frozenset()

    def __bool__(self) -> bool:
        """Tell whether there is anything to take out."""
        allows_all = self.allow_properties is None and self.allow_keys is None
        return not allows_all or bool(self.deny_properties) or bool(self.deny_keys)

    def scrub(self, event: dict[str, Any]) -> dict[str, Any]:
        """Return *event*, plain JSON types, without what the lists forbid."""
        clean = dict(event)
        for part in PARTS:
            content = clean.get(part)
            if not isinstance(content, dict):
                continue
            if part in FLAT_PARTS:
                content = {
                    name: value
                    for name, value in content.items()
                    if _passes(name, self.allow_properties, self.deny_properties)
                }
            clean[part] = self._scrubbed(content)
            # The SDK's own words; they tell the collector whom it is talking to.
            if part == "context" and isinstance(library := content.get("library"), dict):
                own = {name: library[name] for name in ("name", "version") if name in library}
                clean[part]["library"] = self._scrubbed(library) | own
        return clean

    def _scrubbed(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {
                name: self._scrubbed(inner)
                for name, inner in value.items()
                if _passes(name, self.allow_keys, self.deny_keys)
            }
        return [self._scrubbed(inner) for inner in value] if isinstance(value, list) else value


def _passes(name: str, allowed: Collection[str] | None, denied: Collection[str]) -> bool:
    folded = name.casefold()
    return folded not in denied and (allowed is None or folded in allowed)
