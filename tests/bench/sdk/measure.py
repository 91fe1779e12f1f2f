"""What is measured, and how: each function runs one contender once and returns its figures."""

from __future__ import annotations

import itertools
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contenders import Contender
from processes import ENVIRONMENT, Place, Program, Sink, cores

# Above what any measurement tracks at once, so that no call is cheap for being refused.
ROOMY_QUEUE = 200_000


@dataclass(frozen=True)
class Effort:
    """How much of everything; the quick run shows the way, the long one has the figures."""

    runs: int
    calls: int
    calls_s: float
    paced_s: float
    burst: int
    imports: int
    exit_within_s: float
    recovers_within_s: float
    child_lives_s: float
    stream_s: float


FULL = Effort(3, 40_000, 0.8, 1.0, 20_000, 7, 20.0, 3.0, 6.0, 3.0)
QUICK = Effort(1, 20_000, 0.4, 0.4, 3_000, 3, 4.0, 1.5, 4.0, 1.5)

EVENTS_AT_EXIT = 1_005
EVENTS_OF_CHILD = 100
STREAM_PER_S = 2_000
TRACKED_WITHIN_S = 6.0


@dataclass(frozen=True)
class Figure:
    """A number for the table, with a word beside it if it needs one."""

    value: float
    word: str = ""


Figures = dict[str, Figure]


class Bench:
    """The sink and the folder that all measurements share."""

    def __init__(self, effort: Effort, sink: Sink, folder: Path) -> None:
        self.effort = effort
        self._sink = sink
        self._folder = folder
        self._numbers = itertools.count(1)

    @contextmanager
    def _place(self, collector: str = "up") -> Iterator[tuple[Place, Path]]:
        run = f"r{next(self._numbers)}"
        place = Place(self._sink, run, collector)
        try:
            yield place, self._folder / run
        finally:
            place.close()

    # One at a time, for they measure time

    def idle(self, contender: Contender) -> Figures:
        options = {"is_idle": True} if contender.adapter == "mixpanel" else {}
        with self._place("hangs") as (place, folder):
            program = Program(
                "idle", contender, place.url, folder, queue_size=ROOMY_QUEUE, options=options,
                calls=self.effort.calls, for_s=self.effort.calls_s, settle_s=0.7,
            )  # fmt: skip
            return _calls(_last_words(program), "idle")

    def live(self, contender: Contender) -> Figures:
        with self._place() as (place, folder):
            program = Program(
                "live", contender, place.url, folder, queue_size=ROOMY_QUEUE,
                calls=self.effort.calls, for_s=self.effort.calls_s, paced_s=self.effort.paced_s,
            )  # fmt: skip
            facts = _last_words(program)
        return _calls(facts, "sleep") | _calls(facts, "work") | _calls(facts, "hot")

    def burst(self, contender: Contender) -> Figures:
        events = self.effort.burst
        with self._place() as (place, folder):
            program = Program(
                "burst", contender, place.url, folder, queue_size=ROOMY_QUEUE, events=events
            )
            facts, state = _last_words(program), place.state()
        missing = events - state["numbers"]
        seconds = state["last_new_at"] - facts["started"]
        word = f"-{missing:,}" if missing else ""
        return {
            "burst_s": Figure(seconds, word),
            "burst_rate": Figure(state["numbers"] / seconds, word),
            "burst_cpu_s": Figure(facts["cpu_s"]),
            "burst_peak": Figure(facts["peak_mib"]),
            "burst_requests": Figure(state["requests"]),
            "burst_bytes": Figure(state["body_bytes"] / max(state["numbers"], 1)),
        }

    def memory(self, contender: Contender) -> Figures:
        has_queue = contender.adapter != "mixpanel"
        with self._place("hangs") as (place, folder):
            program = Program(
                "memory", contender, place.url, folder, events=10_050 if has_queue else 0
            )
            facts = _last_words(program)
        figures = {"threads": Figure(facts["threads"])}
        if has_queue:
            figures["full_rss"] = Figure(facts["rss_mib"])
        return figures

    def imports(self, contender: Contender) -> Figures:
        bare_ms, bare_modules = self._import(contender.python, "sys")
        ms, modules = self._import(contender.python, contender.imports)
        return {
            "import_ms": Figure(ms - bare_ms),
            "import_modules": Figure(modules - bare_modules),
        }

    def _import(self, python: str, name: str) -> tuple[float, int]:
        code = f"import {name}, sys; print(len(sys.modules))"
        core = cores()[0]
        started = time.perf_counter()
        ended = subprocess.run(
            [python, "-c", code], env=ENVIRONMENT, cwd=self._folder, stdout=subprocess.PIPE,
            check=True, preexec_fn=core is not None and (lambda: os.sched_setaffinity(0, {core})),
        )  # fmt: skip
        return (time.perf_counter() - started) * 1000, int(ended.stdout)

    # Several at a time, for they mostly wait

    def exit_up(self, contender: Contender) -> Figures:
        return self._exit(contender, "up")

    def exit_down(self, contender: Contender) -> Figures:
        return self._exit(contender, "down")

    def exit_hangs(self, contender: Contender) -> Figures:
        return self._exit(contender, "hangs")

    def _exit(self, contender: Contender, collector: str) -> Figures:
        with self._place(collector) as (place, folder):
            program = Program("end", contender, place.url, folder, events=EVENTS_AT_EXIT)
            facts = program.facts(TRACKED_WITHIN_S)
            if facts is None:
                delay = whole = Figure(TRACKED_WITHIN_S, "blocks")
            elif program.is_over(self.effort.exit_within_s):
                delay = Figure(program.ended_at - facts["ended_at"])
                whole = Figure(program.ended_at - facts["started"])
            else:
                delay = whole = Figure(self.effort.exit_within_s, "killed")
            program.kill()
            lost = self._lost(contender, place, folder, set(range(EVENTS_AT_EXIT)))
        is_told = facts is not None and facts["taken"] < EVENTS_AT_EXIT
        return {
            f"exit_{collector}_lost": Figure(lost, "told" if is_told else ""),
            f"exit_{collector}_s": delay,
            f"exit_{collector}_whole_s": whole,
        }

    def fork_lives(self, contender: Contender) -> Figures:
        with self._place() as (place, folder):
            program = self._fork(contender, place, folder, is_flushing=False)
            program.facts(self.effort.child_lives_s)
            missing = _wait_for(place, set(range(EVENTS_OF_CHILD)), self.effort.child_lives_s)
            program.say_end()
            has_ended = program.facts(3) is not None
            program.kill()
        return {"fork_lives_lost": Figure(len(missing), "" if has_ended else "hangs")}

    def fork_flushes(self, contender: Contender) -> Figures:
        with self._place() as (place, folder):
            program = self._fork(contender, place, folder, is_flushing=True)
            facts = program.facts(self.effort.child_lives_s + 10)
            program.kill()
            missing = _wait_for(place, set(range(EVENTS_OF_CHILD)), 0.5)
        hangs = facts is None or facts["hangs"]
        return {"fork_flush_lost": Figure(len(missing), "hangs" if hangs else "")}

    def _fork(
        self, contender: Contender, place: Place, folder: Path, *, is_flushing: bool
    ) -> Program:
        return Program(
            "fork", contender, place.url, folder, events=EVENTS_OF_CHILD,
            is_flushing=is_flushing, hangs_after_s=self.effort.child_lives_s,
        )  # fmt: skip

    def kill(self, contender: Contender) -> Figures:
        with self._place() as (place, folder):
            folder.mkdir()
            notes = folder / "taken"
            notes.write_bytes(bytes(10 * STREAM_PER_S))
            program = Program(
                "stream", contender, place.url, folder, per_s=STREAM_PER_S, notes=str(notes)
            )
            program.facts(TRACKED_WITHIN_S)
            time.sleep(self.effort.stream_s)
            program.kill()
            taken = {number for number, note in enumerate(notes.read_bytes()) if note}
            lost = self._lost(contender, place, folder, taken)
        return {"kill_lost": Figure(lost)}

    def poison(self, contender: Contender) -> Figures:
        with self._place() as (place, folder):
            program = Program("poison", contender, place.url, folder)
            facts = program.facts(10)
            program.kill()
            missing = _wait_for(place, {0, 2}, 0.2)
        return {"poison_lost": Figure(len(missing), "hangs" if facts is None else "")}

    def _lost(self, contender: Contender, place: Place, folder: Path, expected: set[int]) -> int:
        """Return how many never arrive, with the program started once more if need be."""
        if not expected - place.numbers():
            return 0
        place.open()
        program = Program("restart", contender, place.url, folder)
        missing = _wait_for(place, expected, self.effort.recovers_within_s)
        program.say_end()
        program.is_over(3)
        program.kill()
        return len(missing and expected - place.numbers())


def _last_words(program: Program) -> dict[str, Any]:
    facts = program.facts(120)
    program.kill()
    if facts is None:
        raise SystemExit("a program said nothing for two minutes")
    return facts


def _calls(facts: dict[str, Any], name: str) -> Figures:
    seen = facts[name]
    word = "!" if seen["not_taken"] else ""
    return {f"{name}_{what}": Figure(seen[what], word) for what in ("p50", "p99", "mean", "max")}


def _wait_for(place: Place, expected: set[int], within_s: float) -> set[int]:
    """Return what of *expected* is not at the sink *within_s*."""
    until = time.monotonic() + within_s
    while (missing := expected - place.numbers()) and time.monotonic() < until:
        time.sleep(0.1)
    return missing
