"""Who and where: what every event gets that is tracked inside a `with context(...)` block.

Carried by `contextvars`, so each request of a server, asyncio task and thread has its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from types import TracebackType
from typing import Any, ParamSpec, TypeAlias, TypeVar
from uuid import UUID

from analytics_sdk.blocks import Block
from analytics_sdk.errors import call_user_code

P = ParamSpec("P")
T = TypeVar("T")

Identifier: TypeAlias = str | int | UUID
LazyIdentifier: TypeAlias = Identifier | Callable[[], Identifier | None]


class Scope:
    """What is known inside one block. One object for all who share the block, threads included."""

    __slots__ = (
        *("anonymous_id", "context", "properties", "session_id", "user_id"),
        *("_block", "_outer"),
    )

    def __init__(self, outer: Scope | None, block: context | None = None) -> None:
        self.user_id: LazyIdentifier | None = outer.user_id if outer else None
        self.anonymous_id: Identifier | None = outer.anonymous_id if outer else None
        self.session_id: Identifier | None = outer.session_id if outer else None
        self.properties: Mapping[str, Any] = outer.properties if outer else {}
        self.context: Mapping[str, Any] = outer.context if outer else {}
        self._outer, self._block = outer, block


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
        self._ids: dict[str, Any] = {
            name: value for name, value in ids.items() if value is not None
        }
        self._properties = properties
        self._context = context

    def fresh(self) -> context:
        """Return a new block like this one."""
        return context(properties=self._properties, context=self._context, **self._ids)

    def __enter__(self) -> Scope:
        scope = Scope(current.get(), self)
        for name, value in self._ids.items():
            setattr(scope, name, value)
        if self._properties is not None:
            scope.properties = _joined(scope.properties, self._properties)
        if self._context is not None:
            scope.context = _joined(scope.context, self._context)
        current.set(scope)
        return scope

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Searched for, because one object may be the block of several threads at a time, and a
        # generator may end its block after one that began later, or in another task.
        scope = current.get()
        while scope is not None and scope._block is not self:
            scope = scope._outer
        if scope is not None:
            current.set(scope._outer)
            # Tasks that start tasks would hold on to the scopes of all that came before.
            scope._outer = scope._block = None


class _Carried(Block):
    """The block of `in_context()`: a scope from elsewhere."""

    def __init__(self, scope: Scope | None) -> None:
        self._scope = scope

    def fresh(self) -> _Carried:
        """Return a new block like this one."""
        return _Carried(self._scope)

    def __enter__(self) -> None:
        self._token = current.set(self._scope)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A coroutine may be closed by another task than it ran in.
        with suppress(ValueError):
            current.reset(self._token)


def in_context(function: Callable[P, T]) -> Callable[P, T]:
    """
    Return *function* for use in a thread: there it sees the block that surrounds this call.

        pool.submit(analytics.in_context(work), order)
    """
    return _Carried(current.get())(function)


def _joined(outer: Mapping[str, Any], inner: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return both, *inner* winning; what is no mapping makes `track()` refuse, not us raise."""
    joined, _ = call_user_code(lambda: {**outer, **inner})
    return inner if joined is None else joined
