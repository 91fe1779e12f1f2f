"""One event about one piece of work: how it is called, how long it took, whether it failed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter
from types import TracebackType
from typing import Any, Literal, TypeAlias

from analytics_sdk.blocks import Block

Category: TypeAlias = Literal["USER_ACTION", "SYSTEM_EVENT", "AUTHENTICATION", "QUERY"]
Status: TypeAlias = Literal["SUCCESS", "FAILURE"]


class Operation(Block):
    """
    Track one event when the block ends; made by `operation()`.

    Everything public may be set inside the block: `name`, `category`, `properties`, and `status`
    with `error_type` for work that fails without raising.
    """

    def __init__(
        self,
        track: Callable[..., bool],
        name: str,
        category: Category = "SYSTEM_EVENT",
        properties: Mapping[str, Any] | None = None,
    ) -> None:
        self._track = track
        self.name = name
        self.category: Category = category
        self.properties: dict[str, Any] = dict(properties or {})
        self.status: Status = "SUCCESS"
        self.error_type: str | None = None
        self._started = 0.0

    def fresh(self) -> Operation:
        """Return a new operation like this one."""
        return Operation(self._track, self.name, self.category, self.properties)

    def fail(self, error_type: str | None = None) -> None:
        """Say that the work failed, and how the error is called."""
        self.status = "FAILURE"
        self.error_type = error_type

    def __enter__(self) -> Operation:
        self._started = perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.fail(kind.__name__)
        outcome = {
            "status": self.status,
            "durationMs": round((perf_counter() - self._started) * 1000, 3),
        }
        if self.error_type is not None:
            outcome["errorType"] = self.error_type
        self._track(
            self.name,
            {**self.properties, **outcome},
            context={"category": self.category},
        )
