"""What a client adds to the events of its program: remembered ids, super properties, consent."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any
from uuid import uuid4

from analytics_sdk.context import Scope
from analytics_sdk.errors import call_user_code

# The kinds of events that have properties; the others have traits.
WITH_PROPERTIES = ("track", "page", "screen")


class Ambient:
    """The memory of one client. Its dicts are replaced, not changed: other threads read them."""

    def __init__(self, super_properties: Mapping[str, Any], *, remembers: bool) -> None:
        self._remembers = remembers
        self._begin(dict(super_properties))

    def _begin(self, super_properties: dict[str, Any]) -> None:
        self._user_id: Any = None
        self._anonymous_id: Any = str(uuid4()) if self._remembers else None
        self._set(super_properties)

    def _set(self, super_properties: dict[str, Any]) -> None:
        self._super_properties = super_properties
        # Whether there is anything to add to an event; a plain attribute, for every call reads it.
        self.is_used = self._remembers or bool(super_properties)

    def register(self, properties: Mapping[str, Any]) -> None:
        """Add *properties* to the super properties."""
        self._set({**self._super_properties, **properties})

    def unregister(self, names: Collection[str]) -> None:
        """Take *names* out of the super properties."""
        kept = self._super_properties.items()
        self._set({name: value for name, value in kept if name not in names})

    def reset(self) -> None:
        """Forget the user and the super properties, and begin with a new anonymous id."""
        self._begin({})

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
        """Return the arguments of a call with what it does not say itself."""
        added: Mapping[str, Any] = self._super_properties
        if kind == "identify" and self._remembers and user_id is not None:
            # Inside a block, as for the requests of a server, it holds for that block only.
            if scope is None:
                self._user_id = user_id
            else:
                scope.user_id = user_id
        if scope is not None:
            if user_id is None:
                user_id = scope.user_id
                if callable(user_id):
                    user_id, _ = call_user_code(user_id)
            anonymous_id = scope.anonymous_id if anonymous_id is None else anonymous_id
            session_id = scope.session_id if session_id is None else session_id
            if scope.properties:
                added = {**added, **scope.properties}
            if scope.context:
                context = _joined(scope.context, context)
        elif self._remembers:
            user_id = self._user_id if user_id is None else user_id
            # Both, so that the visitor of before and the user become one person; but not for an
            # event about somebody else.
            if anonymous_id is None and user_id == self._user_id:
                anonymous_id = self._anonymous_id
        if added and kind in WITH_PROPERTIES:
            properties = _joined(added, properties)
        return properties, user_id, anonymous_id, session_id, context


def _joined(ours: Mapping[str, Any], theirs: Any) -> Any:
    """Return both, *theirs* winning; something that is no mapping is left for others to refuse."""
    if theirs is None:
        return ours
    return {**ours, **theirs} if isinstance(theirs, Mapping) else theirs
