"""Whose body is decoded in which turn of the event loop."""

from __future__ import annotations

import asyncio

from analytics_collector.ingest.turnstile import Turnstile


def run(coroutine):
    return asyncio.run(coroutine)


def test_a_flood_waits_for_later_turns_and_the_others_do_not():
    """However many bodies of one project are ready, others are decoded in between (RES-16)."""
    decoded: list[str] = []

    async def send(turnstile: Turnstile, project_id: int, name: str) -> None:
        await turnstile.enter(project_id, bytes(50), gzipped=False)
        decoded.append(name)

    async def main() -> None:
        turnstile = Turnstile(bytes_per_turn=100)
        async with asyncio.TaskGroup() as senders:
            for number in range(20):
                senders.create_task(send(turnstile, 1, f"flood {number}"))
            senders.create_task(send(turnstile, 2, "other"))

    run(main())

    assert decoded.index("other") <= 2
    assert [name for name in decoded if name != "other"] == [f"flood {n}" for n in range(20)]


def test_who_comes_later_does_not_overtake_its_own_project():
    """The order within a project stays, whatever the sizes are."""
    decoded: list[int] = []

    async def send(turnstile: Turnstile, number: int, size_bytes: int) -> None:
        await turnstile.enter(1, bytes(size_bytes), gzipped=False)
        decoded.append(number)

    async def main() -> None:
        turnstile = Turnstile(bytes_per_turn=100)
        async with asyncio.TaskGroup() as senders:
            for number, size_bytes in enumerate([500, 1, 90, 500, 1, 1]):
                senders.create_task(send(turnstile, number, size_bytes))
            await asyncio.sleep(0)
            senders.create_task(send(turnstile, 6, 1))

    run(main())

    assert decoded == list(range(7))


def test_a_client_that_left_holds_nobody_up():
    """What waited for it goes to the next."""

    async def main() -> None:
        turnstile = Turnstile(bytes_per_turn=1)
        first, gone, stays = (
            asyncio.create_task(turnstile.enter(1, b"x", gzipped=False)) for _ in range(3)
        )
        await asyncio.sleep(0)
        gone.cancel()
        async with asyncio.timeout(5):
            await first
            await stays
        assert gone.cancelled()

    run(main())


def test_a_small_gzip_body_counts_for_what_is_in_it():
    """To compress a flood does not give it a larger share."""
    turns: list[int] = []

    async def main(gzipped: bool) -> None:
        turnstile = Turnstile(bytes_per_turn=800)
        tasks = [
            asyncio.create_task(turnstile.enter(1, bytes(100), gzipped=gzipped)) for _ in range(8)
        ]
        turns.append(0)
        while not all(task.done() for task in tasks):
            turns[-1] += 1
            await asyncio.sleep(0)

    run(main(gzipped=False))
    run(main(gzipped=True))

    assert turns[1] > turns[0] + 4
