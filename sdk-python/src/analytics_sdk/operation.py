"""One event about one piece of work: how it is called, how long it took, whether it failed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter
from types import TracebackType
from typing import Any, Literal, TypeAlias, cast

from analytics_sdk.blocks import Block
from analytics_sdk.errors import call_user_code

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
        copied, _ = call_user_code(dict, {} if properties is None else properties)
        # What is no dict stays what it is, for `track()` to refuse.
        self.properties = cast("dict[str, Any]", properties if copied is None else copied)
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
        self.status, self.error_type = "SUCCESS", None
        self._started = perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            # The block may have said more than the class of what it raised.
            self.fail(self.error_type or kind.__name__)
        call = (self.name, self._outcome())
        context = {"category": self.category}
        if kind is None:
            self._track(*call, context=context)
        else:
            # With `debug` this may raise, but what the block raised goes on.
            call_user_code(self._track, *call, context=context)

    def _outcome(self) -> Any:
        """Return the properties of the event, or what is in their place."""
        outcome: dict[str, Any] = {
            "status": self.status,
            "durationMs": round((perf_counter() - self._started) * 1000, 3),
        }
        if self.error_type is not None:
            outcome["errorType"] = self.error_type
        joined, _ = call_user_code(lambda: {**self.properties, **outcome})
        return self.properties if joined is None else joined
