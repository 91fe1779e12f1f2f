"""Take over the segments of processes that ended: one after the other, and each by one process."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from analytics_sdk.folders import NAME
from analytics_sdk.place import Place
from analytics_sdk.reading import Mark, Reading, bury, read
from analytics_sdk.segment import Segment, settled_offset


class Orphans:
    """What others have left in the folder, and the segment of it that is being delivered.

    Not thread-safe by itself: `look()` and `adopt()` are called by the worker's thread only,
    `settle()` under the outbox's lock.
    """

    def __init__(self, place: Place, *, ours: str, clock: Callable[[], float]) -> None:
        self._place = place
        self._ours = ours
        self._clock = clock
        self._found: deque[Path] = deque()
        self._adopted: Segment | None = None

    def look(self) -> None:
        """List the segments in the folder that are not ours; some belong to the living.

        Raises OSError if the folder is not safe to read.
        """
        self._found.clear()
        if self._place.exists:
            self._found.extend(
                path
                for path in sorted(self._place.open().iterdir())
                if NAME.fullmatch(path.name) and _process_of(path) != self._ours
            )

    def adopt(self, max_events: int, max_bytes: int) -> Reading | None:
        """Return events that a process which ended has left, None if there are none."""
        while self._adopted is not None or self._found:
            if self._adopted is None:
                self._adopt_next(self._found.popleft())
                continue
            if self._adopted.read_at < self._adopted.end:
                try:
                    return read(self._adopted, max_events, max_bytes, self._clock())
                except OSError:
                    # A bad place on the disk must not keep what lies elsewhere.
                    self._let_go()
                    raise
            if self._adopted.in_hand:
                return None
            bury(self._adopted)
            self._adopted = None
        return None

    def _adopt_next(self, path: Path) -> None:
        self._adopted = Segment.adopt(path)
        if self._adopted is not None:
            try:
                self._adopted.read_at = settled_offset(self._adopted)
            except OSError:
                self._let_go()
                raise
        elif path.exists():
            # Somebody has it: its owner, or who took over, and goes on with what comes after it.
            # Else the events of one process would be sent by two, in any order.
            while self._found and _process_of(self._found[0]) == _process_of(path):
                self._found.popleft()

    def settle(self, mark: Mark, events: int) -> None:
        """Note that *events* of those behind *mark* have their outcome."""
        # Once it was let go of, its descriptor may be the host's, and its bytes another process's.
        if mark.settle(events) and mark.segment is self._adopted:
            mark.keep(int(self._clock()))

    def release(self) -> None:
        """Let go of what was taken over; others may take over the rest of it."""
        self._let_go()
        self._found.clear()

    def _let_go(self) -> None:
        adopted, self._adopted = self._adopted, None
        if adopted is not None:
            with suppress(OSError):
                adopted.close()


def _process_of(path: Path) -> str:
    return path.name.rpartition("-")[0]
