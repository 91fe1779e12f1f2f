"""Who is next: the requests that wait to be written, project by project. Pure.

Each project has a queue of its own, and the one with the fewest events in it goes first. So what
a project waits for is what others send in the same moment, not what one of them has piled up:
who floods gets the room that the others leave, and not all of it, for a group that is full takes
longer to write than the others are used to. Whoever writes can also have those with a large pile
in groups of their own, beside those of the others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final, Generic, Protocol, TypeVar

# A project that was passed over this often, since there was no room left for its next request,
# goes first. The fewer, the more often somebody else is put off by it.
MAX_PASSED_OVER: Final = 20

# A project of which more events wait than this has a large pile. It takes about as long to write
# as the processor needs for a small group, so the others would notice it.
LARGE_PILE: Final = 100

# What one project may have of a group, unless it has been alone for a while: one part in so many.
_SHARE: Final = 4
_GROUPS_TO_BE_ALONE: Final = 50


class Sized(Protocol):
    """A request that waits."""

    @property
    def rows(self) -> Sequence[object]:
        """Its events."""
        ...

    @property
    def size_bytes(self) -> int:
        """About how much they take."""
        ...


T = TypeVar("T", bound=Sized)


class _Queue(Generic[T]):
    """What waits of one project, in its order."""

    __slots__ = ("events", "in_group", "passed_over", "project_id", "requests")

    def __init__(self, project_id: int) -> None:
        self.project_id = project_id
        self.requests: deque[T] = deque()
        self.events = 0
        self.in_group = 0
        self.passed_over = 0

    def rank(self) -> tuple[bool, int]:
        return self.passed_over < MAX_PASSED_OVER, self.events


class Turns(Generic[T]):
    """Keeps the order within a project, and no flood of one before the others."""

    def __init__(self) -> None:
        self._queues: dict[int, _Queue[T]] = {}
        # Which projects are in the last group of large piles, and in that of small ones.
        self._taken: dict[bool | None, set[int]] = {}
        # For how many groups nobody else has sent anything.
        self._last_project: int | None = None
        self._groups_alone = _GROUPS_TO_BE_ALONE

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self._queues)

    def append(self, project_id: int, request: T) -> bool:
        """Put *request* behind what waits of its project; return whether that is a large pile."""
        queue = self._queues.get(project_id)
        if queue is None:
            queue = self._queues[project_id] = _Queue(project_id)
        queue.requests.append(request)
        queue.events += len(request.rows)
        return queue.events > LARGE_PILE

    def _is_alone(self) -> bool:
        """Whether one project has been the only one for a while; asked once a group."""
        before = self._last_project
        self._last_project = next(iter(self._queues))
        if len(self._queues) > 1 or before not in (None, self._last_project):
            self._groups_alone = 0
        else:
            self._groups_alone += 1
        return self._groups_alone >= _GROUPS_TO_BE_ALONE

    def next_group(self, max_events: int, max_bytes: int, *, large: bool | None = None) -> list[T]:
        """Take out what is written together: of large piles, of small ones, or of both.

        Every project has a request in it before one has a second, as long as there is room. None
        of a project of which the other kind of group has something: who asks for a group has
        written the one of this kind that it got before, and no other.
        """
        taken = self._taken[large] = set[int]()
        queues = self._open_queues(large)
        if not queues:
            return []
        share = max_events if self._is_alone() else max_events // _SHARE
        group: list[T] = []
        events = size_bytes = 0
        queues.sort(key=_Queue.rank)
        for queue in queues:
            queue.passed_over += 1
            queue.in_group = 0
        while queues and events < max_events:
            next_round = []
            for queue in queues:
                request = queue.requests[0]
                more_events = events + len(request.rows)
                more_bytes = size_bytes + request.size_bytes
                if group and (more_events > max_events or more_bytes > max_bytes):
                    continue
                if queue.in_group and queue.in_group + len(request.rows) > share:
                    continue
                events, size_bytes = more_events, more_bytes
                group.append(queue.requests.popleft())
                queue.events -= len(request.rows)
                queue.in_group += len(request.rows)
                queue.passed_over = 0
                taken.add(queue.project_id)
                if queue.requests:
                    next_round.append(queue)
            queues = next_round
        self._queues = {
            project_id: queue for project_id, queue in self._queues.items() if queue.requests
        }
        return group

    def _open_queues(self, large: bool | None) -> list[_Queue[T]]:
        taken = set[int]().union(*self._taken.values())
        return [
            queue
            for queue in self._queues.values()
            if large in (None, queue.events > LARGE_PILE) and queue.project_id not in taken
        ]
