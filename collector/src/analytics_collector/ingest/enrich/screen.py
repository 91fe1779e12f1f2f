"""Size class and orientation of a screen. Pure."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from analytics_collector.ingest.enrich.seen import Seen, fact

# By the shorter side in CSS pixels, so that turning a device does not change its class. 600 is
# where Android begins to speak of tablets.
_CLASSES: Final = ((600, "small"), (900, "medium"), (1200, "large"))
_LARGEST: Final = "extraLarge"
_NUMBERS: Final = (int, float)  # not bool, which is an int to Python


def screen(seen: Seen) -> str | None:
    """Return the facts as JSON; None where the screen has no size."""
    if not seen.screen:
        return None
    width, height = seen.screen.get("width"), seen.screen.get("height")
    if not _is_size(width) or not _is_size(height):
        return None
    return _facts(width, height)


def _is_size(value: Any) -> bool:
    return type(value) in _NUMBERS and value > 0


@lru_cache(maxsize=2048)
def _facts(width: float, height: float) -> str:
    shorter = min(width, height)
    size = next((name for below, name in _CLASSES if shorter < below), _LARGEST)
    if width == height:
        orientation = "square"
    else:
        orientation = "portrait" if height > width else "landscape"
    return fact({"size": size, "orientation": orientation})
