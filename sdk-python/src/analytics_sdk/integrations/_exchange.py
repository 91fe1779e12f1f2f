"""From a request to the end of its answer: its scope, its outcome, its event.

Knows no framework: the integrations say when something has happened.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from contextvars import Token
from functools import lru_cache, partial
from types import TracebackType
from typing import Any, Final

import analytics_sdk

# Now, for a server has the time when it starts, and before it forks; its first requests have not.
import analytics_sdk.delivery
import analytics_sdk.transport
from analytics_sdk._limits import MAX_NAME_CHARS
from analytics_sdk.context import Scope, current
from analytics_sdk.integrations._options import Options
from analytics_sdk.integrations._request import METHODS
from analytics_sdk.operation import Operation


class Exchange:
    """
    One request and its answer: `with exchange:` the host's code runs in its scope.

    What that raises ends the exchange, and goes on to the host; else call `finish()`.
    """

    __slots__ = (
        "__weakref__",
        "_inside",
        "_method",
        "_operation",
        "_options",
        "_request",
        "_token",
        "error_type",
        "is_complete",
        "scope",
        "status_code",
    )

    def __init__(self, options: Options, request: Any, method: str, scope: Scope) -> None:
        self._options = options
        self._request = request
        self._method = method if method in METHODS else "OTHER"
        self.scope = scope
        if options.user_id is not None:
            scope.user_id = partial(options.user_of, request)
        self.status_code: int | None = None
        # Whether the host's code has done its part, though the server still has to send the answer.
        self.is_complete = False
        # Of an error that the framework turned into an answer.
        self.error_type: str | None = None
        # The block that the host's code was in when it was left, as a generator is between steps.
        self._inside: Scope | None = scope
        self._token: Token[Scope | None] | None = None
        self._operation: Operation | None = None
        if options.operations:
            tracker = analytics_sdk if options.client is None else options.client
            self._operation = Operation(tracker.track, "", options.category).__enter__()

    def __enter__(self) -> Exchange:
        self._token = current.set(self._inside)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._inside = current.get()
        if self._token is not None:
            # A coroutine may be closed by another task than it ran in.
            with suppress(ValueError):
                current.reset(self._token)
            self._token = None
        if error is not None:
            self.finish(error)

    def finish(self, error: BaseException | None = None) -> None:
        """Track the event of the request, unless that is done or not wanted."""
        operation, self._operation = self._operation, None
        if operation is None:
            return
        status_code = self.status_code
        if status_code is None and isinstance(error, Exception):
            # Nobody sees it before the server answers it.
            status_code = 500
        if (
            error is not None
            or status_code is None
            or status_code >= self._options.failure_from_status
        ):
            operation.fail(self.error_type if error is None else type(error).__name__)
        route = self._options.route_of(self._request)
        facts = {"route": route, "method": self._method, "statusCode": status_code}
        operation.properties = {name: fact for name, fact in facts.items() if fact is not None}
        operation.name = name_of(self._method, route)
        token = current.set(self.scope)
        try:
            operation.__exit__(None, None, None)
        finally:
            current.reset(token)


@lru_cache(maxsize=4096)
def name_of(method: str, route: str | None) -> str:
    """Return the name of the event of a request: bounded, however many paths strangers try."""
    name = f"{method} {route or '(no route)'}"[:MAX_NAME_CHARS]
    return "".join(char if char.isprintable() else " " for char in name)


END: Final = object()


class Body:
    """The rest of an answer, passed on piece by piece: its end is the end of the exchange."""

    def __init__(self, exchange: Exchange, pieces: Iterable[Any]) -> None:
        self._exchange = exchange
        self._close = getattr(pieces, "close", None)
        with exchange:
            self._pieces = iter(pieces)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        with self._exchange:
            piece = next(self._pieces, END)
        if piece is END:
            self._exchange.finish()
            raise StopIteration
        return piece

    def close(self) -> None:
        """End the answer, complete or not: the server calls it, also when the client is gone."""
        with self._exchange:
            if self._close is not None:
                self._close()
        self._exchange.finish()
