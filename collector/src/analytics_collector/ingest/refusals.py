"""How fast a project that is over its limits is told so. Pure: time is passed in.

A client that sends on without a pause has its bodies read and decoded only to be refused, and as
many of them as the processor can do, which the others would wait for. So the refusals of one
project leave one after the other; meanwhile its connections wait, and can't send more. Who keeps to
`Retry-After` is among few, and notices nothing.
"""

from __future__ import annotations

from typing import Final

# Who has heard a refusal sends until the next one, so a project gets all that its limits allow.
PER_SECOND: Final = 20
# A client must not take us for gone.
MAX_HOLD_S: Final = 2.0
MAX_PROJECTS: Final = 10_000


class Refusals:
    """When the next refusal of each project may leave."""

    def __init__(self, max_projects: int = MAX_PROJECTS) -> None:
        """More than *max_projects* are remembered only if so many are refused at once."""
        self._max_projects = max_projects
        self._next_at: dict[int, float] = {}

    def hold_s(self, project_id: int, now: float) -> float:
        """Return for how long to keep a refusal of this project, and count it."""
        leaves_at = max(now, self._next_at.get(project_id, now))
        if leaves_at - now > MAX_HOLD_S:
            return MAX_HOLD_S
        if len(self._next_at) >= self._max_projects:
            self._next_at = {id_: at for id_, at in self._next_at.items() if at > now}
        self._next_at[project_id] = leaves_at + 1 / PER_SECOND
        return leaves_at - now
