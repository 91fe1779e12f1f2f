"""What a client adds to the events of its program: super properties and a remembered identity."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any
from uuid import uuid4

from analytics_sdk.context import Scope, current
from analytics_sdk.errors import call_user_code
from analytics_sdk.event import identifier

# The kinds of events that have properties; the others have traits.
WITH_PROPERTIES = ("track", "page", "screen")


class Ambient:
    """The memory of one client, for all threads: each change of it is one step that none sees half.

    With *remembers*, the user of `identify()` is that of all later events outside of blocks: right
    for a program with one user at a time, wrong for a server.
    """

    def __init__(self, super_properties: Mapping[str, Any], *, remembers: bool) -> None:
        self._remembers = remembers
        self._given = dict(super_properties)
        # Whether there may be something to add; a plain attribute, for every call reads it.
        self.is_used = remembers or bool(self._given)
        self.reset()

    def register(self, properties: Mapping[str, Any]) -> None:
        """Add *properties* to the super properties."""
        copied, _ = call_user_code(dict, properties)
        if copied:
            self._super_properties.update(copied)
            self.is_used = True

    def unregister(self, names: Collection[str]) -> None:
        """Take *names* out of the super properties."""
        for name in [name for name in self._super_properties.copy() if name in names]:
            self._super_properties.pop(name, None)

    def reset(self) -> None:
        """Forget the user and what was registered, and begin with a new anonymous id."""
        # The ids of the user and of the visitor, together because they belong together.
        self._user: tuple[str | None, str | None] = (None, _new_id() if self._remembers else None)
        self._super_properties = dict(self._given)

    def complete(
        self,
        scope: Scope | None,
        kind: str,
        properties: Any,
        user_id: Any,
        anonymous_id: Any,
        session_id: Any,
        context: Any,
    ) -> tuple[Any, Any, Any, Any, Any]:
        """
        Return the arguments of a call with what it does not say itself.

        Raises MisuseError for an id that is none, before it could be remembered.
        """
        added: Mapping[str, Any] = self._super_properties
        if kind == "identify" and self._remembers and user_id is not None:
            self._remember(scope, identifier(user_id))
        if scope is not None:
            user_id = _user_of(scope) if user_id is None else user_id
            anonymous_id = scope.anonymous_id if anonymous_id is None else anonymous_id
            session_id = scope.session_id if session_id is None else session_id
            if scope.properties:
                added = _joined(added, scope.properties)
            context = _joined(scope.context, context)
        elif self._remembers:
            remembered, visitor = self._user
            user_id = remembered if user_id is None else user_id
            # Both, so that the visitor of before and the user become one person; but not for an
            # event about somebody else.
            if anonymous_id is None and (user_id is None or identifier(user_id) == remembered):
                anonymous_id = visitor
        if kind in WITH_PROPERTIES:
            properties = _joined(added, properties)
        return properties, user_id, anonymous_id, session_id, context

    def _remember(self, scope: Scope | None, user_id: str) -> None:
        if not user_id:
            return
        # Inside a block, as for the requests of a server, it holds for that block only.
        if scope is not None:
            scope.user_id = user_id
        else:
            before, visitor = self._user
            # One visitor who became two users would make them one person.
            self._user = (user_id, visitor if before in (None, user_id) else _new_id())


def _new_id() -> str:
    return str(uuid4())


def _user_of(scope: Scope) -> Any:
    user_id = scope.user_id
    if not callable(user_id):
        return user_id
    # What the function itself tracks, by a log handler say, must not ask it again.
    token = current.set(None)
    try:
        return call_user_code(user_id)[0]
    finally:
        current.reset(token)


def _joined(ours: Mapping[str, Any], theirs: Any) -> Any:
    """Return both, *theirs* winning; something that is no mapping is left for others to refuse."""
    if not ours:
        return theirs
    if theirs is None or not _is_mapping(ours):
        return ours
    return {**ours, **theirs} if _is_mapping(theirs) else theirs


def _is_mapping(value: Any) -> bool:
    # Nearly always the first, which is the faster to ask.
    return type(value) is dict or isinstance(value, Mapping)
