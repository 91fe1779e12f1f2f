"""Measure our SDK beside Segment's, PostHog's and Mixpanel's, in one run on one machine.

    python tests/bench/sdk [--quick] [--json FILE]

Each measurement is a process of its own, of the environment of its SDK, pinned to one core; what
it sends goes to a counting server on another core. All settings are defaults, but that queues are
roomier where calls or a burst are measured, so that nothing is cheap for being refused, and that
our spool lies in a folder of the run. Nothing is asserted: it is a report. Linux only.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from contenders import FLOOR, Contender, contenders, versions
from measure import FULL, QUICK, Bench, Effort, Figure, Figures
from processes import Sink, cores
from report import Results, closing_line, middle, print_table

LEGEND = """\
idle: the worker waits for an answer that never comes (mixpanel has no worker: without requests)
live: the worker sends meanwhile, to a server that answers at once
burst: from a cold start to the last event at the sink; what an SDK imports late is in it
lost: neither arrived nor recovered by a second start of the program; of {exit:,} at an exit
  without flush(), of 100 in a child, of 2 beside a NaN, and of those taken in {stream_s:g} s at
  2,000/s before kill -9
delay: only who lost nothing there is ranked, for to throw events away takes no time
told: the call itself said so (an exception)   !: some calls said so
hangs, killed, blocks: ended by us after that time
mixpanel sends in the call by default (its burst is run once); mp-buffered: its BufferedConsumer"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one short run of everything")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    arguments = parser.parse_args()
    effort = QUICK if arguments.quick else FULL
    columns = contenders()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        sink = Sink()
        try:
            results = measure_all(Bench(effort, sink, Path(folder)), columns, effort)
        finally:
            sink.stop()
    stored = measure_stored(effort)
    seconds = time.monotonic() - started
    print_report(results, stored, columns, effort, seconds)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(document(results, stored, seconds), indent=1))


def measure_all(bench: Bench, columns: list[Contender], effort: Effort) -> Results:
    """Run everything, round by round, so that a slow minute of the machine hits all alike."""
    results: Results = defaultdict(lambda: defaultdict(list))
    settings = [contender for contender in columns if contender.name != "fsync"]
    # Its burst takes half a minute, and all runs are alike.
    slow = [contender for contender in columns if contender.name == "mixpanel"]
    fast = [contender for contender in settings if contender not in slow]
    kinds = [contender for contender in columns if not contender.is_variant]
    # In which order, with which columns, how many times, and how many at a time.
    plan: list[tuple[Callable[[Contender], Figures], list[Contender], int, int]] = [
        (bench.imports, kinds, effort.imports, 1),
        (bench.memory, kinds, effort.runs, 1),
        (bench.idle, [FLOOR, *columns], effort.runs, 1),
        (bench.live, [FLOOR, *columns], effort.runs, 1),
        (bench.burst, fast, effort.runs, 1),
        (bench.burst, slow, 1, 1),
        (bench.exit_up, settings, effort.runs, 2),
        (bench.exit_down, settings, effort.runs, 6),
        (bench.exit_hangs, settings, effort.runs, 6),
        (bench.fork_lives, settings, effort.runs, 6),
        (bench.fork_flushes, settings, effort.runs, 6),
        (bench.kill, settings, effort.runs, 3),
        (bench.poison, settings, effort.runs, 6),
    ]
    for measure, contenders_of_it, runs, at_a_time in plan:
        started = time.monotonic()
        work = [contender for _ in range(runs) for contender in contenders_of_it]
        with ThreadPoolExecutor(at_a_time) as pool:
            for contender, figures in zip(work, pool.map(measure, work), strict=True):
                for key, figure in figures.items():
                    results[key][contender.name].append(figure)
        seconds = time.monotonic() - started
        print(f"{measure.__name__:<14} {seconds:5.1f} s", file=sys.stderr, flush=True)
    return results


def measure_stored(effort: Effort) -> list[dict[str, float]]:
    """Measure the burst against a real collector; empty if none is installed here."""
    script = Path(__file__).parents[1] / "stored.py"
    ended = subprocess.run(
        [sys.executable, script, "--events", str(effort.burst), "--runs", str(effort.runs)],
        stdout=subprocess.PIPE,
        check=False,
    )
    runs: list[dict[str, float]] = json.loads(ended.stdout or b"[]")
    return runs


def print_report(
    results: Results,
    stored: list[dict[str, float]],
    columns: list[Contender],
    effort: Effort,
    seconds: float,
) -> None:
    program_core, sink_core = cores()
    pinned = (
        "not pinned"
        if program_core is None
        else f"programs on core {program_core}, sink on core {sink_core}"
    )
    print(f"{versions()}\nPython {platform.python_version()}, {platform.system()}, {pinned}")
    print(
        f"median of {effort.runs} (import: {effort.imports}), below it the range; burst of "
        f"{effort.burst:,} events; {seconds:.0f} s in all"
    )
    print_table(results, columns)
    print(f"\nFloor (orjson.dumps of the event and deque.append), µs: {_floor(results)}")
    print(_stored_line(stored, effort.burst))
    print(LEGEND.format(exit=1_005, stream_s=effort.stream_s))
    print(f"\n{closing_line(results)}\n{closing_line(results, 'durable')}")


def _floor(results: Results) -> str:
    parts = []
    for kind in ("idle", "sleep", "work", "hot"):
        p50, p99 = (middle(results[f"{kind}_{which}"][FLOOR.name]) for which in ("p50", "p99"))
        parts.append(f"{kind} p50 {p50:.2f} p99 {p99:.1f}")
    return "   ".join(parts)


def _stored_line(runs: list[dict[str, float]], events: int) -> str:
    if not runs:
        return "Burst until STORED: no collector with embedded servers is installed here"
    figures = [Figure(run["seconds"]) for run in runs]
    seconds, cpu_s = middle(figures), middle([Figure(run["cpu_s"]) for run in runs])
    worst, best = max(figure.value for figure in figures), min(figure.value for figure in figures)
    return (
        f"Burst until STORED by the real collector (ours only): {seconds:.2f} s "
        f"({best:.2f}..{worst:.2f}), {events / seconds:,.0f} events/s, "
        f"{min(run['stored'] for run in runs):,.0f} of {events:,} stored, "
        f"SDK CPU {cpu_s / events * 1e6:.1f} µs/event"
    )


def document(results: Results, stored: list[dict[str, float]], seconds: float) -> dict[str, Any]:
    """Return all figures of all runs, as JSON knows them."""
    return {
        "versions": versions(),
        "seconds": seconds,
        "rows": {
            key: {name: [vars(figure) for figure in runs] for name, runs in row.items()}
            for key, row in results.items()
        },
        "stored": stored,
        "closing": [closing_line(results), closing_line(results, "durable")],
    }


if __name__ == "__main__":
    main()
