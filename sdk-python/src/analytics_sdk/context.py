"""Who and where: what every event gets that is tracked inside a `with context(...)` block.

Carried by `contextvars`, so each request of a server, asyncio task and thread has its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar, Token
from functools import wraps
from types import TracebackType
from typing import Any, ParamSpec, TypeAlias, TypeVar
from uuid import UUID

from analytics_sdk.blocks import Block

P = ParamSpec("P")
T = TypeVar("T")

Identifier: TypeAlias = str | int | UUID
LazyIdentifier: TypeAlias = Identifier | Callable[[], Identifier | None]


class Scope:
    """What is known inside one block. One object for all who share the block, threads included."""

    __slots__ = ("anonymous_id", "context", "properties", "session_id", "user_id")

    def __init__(self, outer: Scope | None) -> None:
        self.user_id: LazyIdentifier | None = outer and outer.user_id
        self.anonymous_id: Identifier | None = outer and outer.anonymous_id
        self.session_id: Identifier | None = outer and outer.session_id
        self.properties: Mapping[str, Any] = outer.properties if outer else {}
        self.context: Mapping[str, Any] = outer.context if outer else {}


current: ContextVar[Scope | None] = ContextVar("analytics_sdk_scope", default=None)


class context(Block):  # noqa: N801 - read as a verb, `with context(...)`
    """
    Give every event tracked inside the block these ids, properties and context.

        with analytics.context(user_id="u-1", properties={"plan": "pro"}):
            analytics.track("checkout_completed")

    What a call says itself wins. Blocks nest: an inner one adds to what the outer one says and
    overrides it. A block holds for its own task or thread and for the asyncio tasks started in it;
    `in_context()` takes it along into a thread. Also a decorator.

    *user_id* may be a function, called when an event is tracked; what it raises counts as None.
    *properties* are for track, page and screen; *context* has members of the wire's `context`.
    """

    def __init__(
        self,
        *,
        user_id: LazyIdentifier | None = None,
        anonymous_id: Identifier | None = None,
        session_id: Identifier | None = None,
        properties: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        ids = {"user_id": user_id, "anonymous_id": anonymous_id, "session_id": session_id}
        self._ids = {name: value for name, value in ids.items() if value is not None}
        self._properties = properties
        self._context = context
        self._tokens: list[Token[Scope | None]] = []

    def fresh(self) -> context:
        """Return a new block like this one."""
        return context(properties=self._properties, context=self._context, **self._ids)

    def __enter__(self) -> Scope:
        scope = Scope(current.get())
        for name, value in self._ids.items():
            setattr(scope, name, value)
        if self._properties:
            scope.properties = {**scope.properties, **self._properties}
        if self._context:
            scope.context = {**scope.context, **self._context}
        self._tokens.append(current.set(scope))
        return scope

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A generator or a callback may end the block in another task than it began in.
        with suppress(ValueError):
            current.reset(self._tokens.pop())


def in_context(function: Callable[P, T]) -> Callable[P, T]:
    """
    Return *function* for use in a thread: there it sees the block that surrounds this call.

        pool.submit(analytics.in_context(work), order)
    """
    scope = current.get()

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        token = current.set(scope)
        try:
            return function(*args, **kwargs)
        finally:
            current.reset(token)

    return call
