"""A `with` block that also decorates functions, coroutine functions included."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")


class Block:
    """Base of context managers that work as decorators too."""

    def fresh(self) -> Block:
        """Return a new block like this one: each call has its own, since calls may overlap."""
        raise NotImplementedError

    def __enter__(self) -> Any:
        raise NotImplementedError

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        raise NotImplementedError

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        """
        Return *function* with every call of it inside a block of its own.

        Raises TypeError for a generator function: its body runs when the block is long over.
        """
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError("Use `with` inside a generator; as a decorator it would do nothing.")
        if inspect.iscoroutinefunction(function):

            @wraps(function)
            async def call_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                with self.fresh():
                    return await function(*args, **kwargs)

            return cast("Callable[P, T]", call_async)

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            with self.fresh():
                return function(*args, **kwargs)

        return call
