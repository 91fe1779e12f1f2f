"""The pytest plugin: the fixture `analytics_events` has what a test tracks.

Found by pytest itself once the package is installed; imports nothing until a test asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from analytics_sdk.testing import Recorder


@pytest.fixture
def analytics_settings() -> dict[str, Any]:
    """Settings for the client of `analytics_events`, as `Client` takes them; yours override it."""
    return {}


@pytest.fixture
def analytics_events(analytics_settings: dict[str, Any]) -> Iterator[Recorder]:
    """
    Record the events of the test instead of sending them; none may be one that is refused.

    See `analytics_sdk.testing.capture_events()`.
    """
    # Here, for every run of pytest loads this module, whether its tests track or not.
    from analytics_sdk.testing import capture_events  # noqa: PLC0415

    __tracebackhide__ = True
    with capture_events(**analytics_settings) as recorder:
        yield recorder
