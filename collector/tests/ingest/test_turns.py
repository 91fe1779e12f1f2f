"""The order in which requests of many projects are written."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from analytics_collector.ingest.turns import MAX_PASSED_OVER, Turns
from analytics_collector.ingest.write import GroupWriter


@dataclass
class Request:
    """A request of a project, with a number to know it by."""

    project: int
    number: int
    rows: Sequence[object] = field(default_factory=lambda: [None] * 10)
    size_bytes: int = 1000


def turns_of(*requests: Request) -> Turns[Request]:
    turns: Turns[Request] = Turns()
    for request in requests:
        turns.append(request.project, request)
    return turns


def names(group: list[Request]) -> list[str]:
    """Return what the requests are called, such as 1a for the first of project 1."""
    return [f"{request.project}{'abcdefgh'[request.number]}" for request in group]


def groups(turns: Turns[Request], events: int = 30, size_bytes: int = 10**6) -> list[list[str]]:
    """Return the names in all groups, in their order."""
    found = []
    while turns:
        found.append(names(turns.next_group(events, size_bytes)))
    return found


def test_who_has_least_waiting_goes_first():
    """Who sends little is in the next group, whatever others have piled up."""
    flood = [Request(1, number) for number in range(4)]

    turns = turns_of(*flood, Request(2, 0), Request(3, 0))

    assert groups(turns, events=80) == [["2a", "3a", "1a", "1b"], ["1c", "1d"]]


def test_who_is_alone_has_the_whole_group():
    """A collector for one project gives up nothing."""
    turns = turns_of(*(Request(1, number) for number in range(6)))

    assert groups(turns) == [["1a", "1b", "1c"], ["1d", "1e", "1f"]]


def test_who_floods_beside_others_has_a_quarter_of_a_group():
    """So that a commit does not become slower than the others know it."""
    turns = turns_of(*(Request(1, number) for number in range(8)), Request(2, 0))

    assert [len(group) for group in groups(turns, events=80)] == [3, 2, 2, 2]


def test_a_project_keeps_its_order():
    """Events of one user are stored as they came, large batches and small ones."""
    sizes = [25, 1, 30, 2, 10]
    turns = turns_of(
        *(Request(1, number, [None] * size) for number, size in enumerate(sizes)),
        Request(2, 0),
        Request(2, 1),
    )

    order = [name for group in groups(turns) for name in group]

    assert [name for name in order if name[0] == "1"] == ["1a", "1b", "1c", "1d", "1e"]
    assert [name for name in order if name[0] == "2"] == ["2a", "2b"]


def test_what_does_not_fit_is_not_put_off_for_ever():
    """Smaller ones may go before a large request, but only so often."""
    turns = turns_of(Request(1, 0, [None] * 25))
    passed_over = 0
    for _ in range(2 * MAX_PASSED_OVER):
        turns.append(2, Request(2, 0))
        if turns.next_group(30, 10**6)[0].project == 1:
            break
        passed_over += 1

    assert passed_over == MAX_PASSED_OVER


def test_a_request_larger_than_a_group_goes_alone():
    """Nothing waits for ever because it does not fit."""
    turns = turns_of(Request(1, 0, [None] * 50), Request(2, 0, size_bytes=10**7), Request(3, 0))

    assert groups(turns) == [["2a"], ["3a"], ["1a"]]


def test_projects_of_which_a_lot_waits_have_groups_of_their_own():
    """So that nobody else waits for as long as it takes to write theirs (RES-16)."""
    turns = turns_of(*[Request(1, n, [None] * 60) for n in range(3)], Request(2, 0), Request(3, 0))

    assert names(turns.next_group(1000, 10**6, large=False)) == ["2a", "3a"]
    assert names(turns.next_group(1000, 10**6, large=True)) == ["1a", "1b", "1c"]
    assert not turns


def test_a_project_is_never_in_two_groups_at_once():
    """Its order would be gone: what is left of it waits until the group before it is written."""
    turns = turns_of(*[Request(1, n, [None] * 60) for n in range(3)])

    assert names(turns.next_group(120, 10**6, large=True)) == ["1a", "1b"]
    assert turns.next_group(120, 10**6, large=False) == []  # 1a and 1b are being written
    assert turns.next_group(120, 10**6, large=True) == []  # they are, and 1c is a small pile
    assert names(turns.next_group(120, 10**6, large=False)) == ["1c"]


@dataclass
class Event:
    """What the writer looks at in an event."""

    project_id: int
    message_id: str


class SlowStore:
    """Takes a time for each commit and each event that passes only here: the same in every run.

    Two commits at once take as long as the longer of them.
    """

    def __init__(self) -> None:
        self.now_ms = 0.0
        self._ends_ms: list[float] = []

    async def append(self, rows: Sequence[object]) -> list[int]:
        ends_ms = self.now_ms + 2.0 + 0.02 * len(rows)
        heapq.heappush(self._ends_ms, ends_ms)
        await asyncio.sleep(0)
        while self._ends_ms[0] < ends_ms:
            await asyncio.sleep(0)
        self.now_ms = max(self.now_ms, heapq.heappop(self._ends_ms))
        return []


# With the one that floods, five hundred projects.
OTHERS = 499
ROUNDS = 4


def p99_of_others(floods: int, flood_batch: int = 0) -> float:
    """Return the 99th percentile of what 499 projects wait for a commit, in ms of the store."""

    async def run() -> float:
        store = SlowStore()
        writer = GroupWriter(store)
        writer.start()
        waited: list[float] = []
        over = asyncio.Event()

        async def send(project_id: int, events: int) -> None:
            began = store.now_ms
            rows = [Event(project_id, f"{project_id} {began} {n}") for n in range(events)]
            await writer.write(rows, 1000)
            if project_id:
                waited.append(store.now_ms - began)

        async def other(project_id: int) -> None:
            for _ in range(ROUNDS):
                await send(project_id, 20)

        async def flood() -> None:
            while not over.is_set():
                await send(0, flood_batch)

        flooding = [asyncio.create_task(flood()) for _ in range(floods)]
        async with asyncio.TaskGroup() as others:
            for project_id in range(1, OTHERS + 1):
                others.create_task(other(project_id))
        over.set()
        await asyncio.gather(*flooding)
        await writer.stop()
        return sorted(waited)[len(waited) * 99 // 100]

    return asyncio.run(run())


@pytest.mark.parametrize("flood_batch", [10, 100, 500])
def test_a_flood_of_one_project_does_not_keep_the_others_waiting(flood_batch):
    """With 100,000 events of one in the queue, others wait less than twice as long (RES-16)."""
    idle_ms = p99_of_others(floods=0)
    flooded_ms = p99_of_others(floods=100_000 // flood_batch, flood_batch=flood_batch)

    print(f"{idle_ms:.1f} ms, flooded {flooded_ms:.1f} ms")
    assert flooded_ms < 2 * idle_ms
