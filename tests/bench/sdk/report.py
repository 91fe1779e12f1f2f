"""The rows of the table: what they are called, which figure is better, and who is first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from contenders import Contender
from measure import Figure

# Our own columns, and the floor.
NO_RIVALS = ("ours", "durable", "fsync", "floor")
LABEL_WIDTH = 37
COLUMN_WIDTH = 13
AIM_WIDTH = 12


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    key: str
    title: str
    aim: str = ""
    digits: int = 0
    is_more_better: bool = False
    is_ranked: bool = True
    # The row in which a column must be 0 to be ranked in this one.
    needs: str = ""


GROUPS: dict[str, tuple[Row, ...]] = {
    "A call, µs": (
        Row("idle_p50", "idle, p50", "≤ 3", 2),
        Row("idle_p99", "idle, p99", "", 1),
        Row("sleep_p50", "live, 1 ms of sleep between, p50", "", 2),
        Row("sleep_p99", "live, 1 ms of sleep between, p99", "", 1),
        Row("work_p50", "live, 0.2 ms of work between, p50", "≤ 3", 2),
        Row("work_p99", "live, 0.2 ms of work between, p99", "≤ 20", 1),
        Row("hot_p50", "live, back to back, p50", "≤ 3", 2),
        Row("hot_p99", "live, back to back, p99", "≤ 20", 1),
        Row("hot_mean", "live, back to back, mean", "", 1),
    ),
    "A burst": (
        Row("burst_s", "until all are at the sink, s", "first", 2),
        Row("burst_rate", "events/s", "first", 0, is_more_better=True),
        Row("burst_cpu_s", "CPU of the program, s", "first", 2),
        Row("burst_peak", "peak RSS, MiB", "first", 1),
        Row("burst_requests", "requests", is_ranked=False),
        Row("burst_bytes", "body bytes per event", "first"),
    ),
    "Weight": (
        Row("import_ms", "import, over bare Python, ms", "≤ 60", 1),
        Row("import_modules", "modules that it loads", "first"),
        Row("threads", "threads before the first event", "0"),
        Row("full_rss", "RSS with a full queue, MiB", "≤ 48", 1),
    ),
    "Lost": (
        Row("exit_up_lost", "script ends, collector up", "0"),
        Row("exit_down_lost", "script ends, collector down", "0"),
        Row("exit_hangs_lost", "script ends, collector hangs", "0"),
        Row("fork_lives_lost", "forked child that lives on", "0"),
        Row("fork_flush_lost", "forked child that flushes", "0"),
        Row("kill_lost", "kill -9", "0 durable"),
        Row("poison_lost", "neighbours of a NaN", "0"),
    ),
    "Delay at exit, s": (
        Row("exit_up_whole_s", "calls and exit, collector up", "first", 2, needs="exit_up_lost"),
        Row("exit_up_s", "collector up", "≤ 2.5", 2, needs="exit_up_lost"),
        Row("exit_down_s", "collector down", "≤ 2.5", 2, needs="exit_down_lost"),
        Row("exit_hangs_s", "collector hangs", "≤ 2.5", 2, needs="exit_hangs_lost"),
    ),
}

Results = dict[str, dict[str, list[Figure]]]


def middle(figures: Sequence[Figure]) -> float:
    return median(figure.value for figure in figures)


def print_table(results: Results, contenders: Sequence[Contender]) -> None:
    """Print the medians, below each its smallest and largest run, and who is first."""
    names = [contender.name for contender in contenders]
    for group, rows in GROUPS.items():
        heads = "".join(f"{name:>{COLUMN_WIDTH}}" for name in names)
        print(f"\n{group:<{LABEL_WIDTH}}{'aim':<{AIM_WIDTH}}{heads}")
        for row in rows:
            _print_row(row, results, contenders)


def _print_row(row: Row, results: Results, contenders: Sequence[Contender]) -> None:
    seen = [results[row.key].get(contender.name, []) for contender in contenders]
    cells = "".join(f"{_cell(row, runs):>{COLUMN_WIDTH}}" for runs in seen)
    print(
        f"  {row.title:<{LABEL_WIDTH - 2}}{row.aim:<{AIM_WIDTH}}{cells}   {verdict(row, results)}"
    )
    ranges = "".join(f"{_range(row, runs):>{COLUMN_WIDTH}}" for runs in seen)
    if ranges.strip():
        print(f"{'':<{LABEL_WIDTH + AIM_WIDTH}}{ranges}")


def _cell(row: Row, runs: list[Figure]) -> str:
    if not runs:
        return "-"
    word = next((figure.word for figure in runs if figure.word), "")
    return f"{word} {_number(row, middle(runs))}".strip()


def _range(row: Row, runs: list[Figure]) -> str:
    """Return the smallest and the largest, if there is more than one value."""
    if not runs:
        return ""
    values = [figure.value for figure in runs]
    smallest, largest = _number(row, min(values)), _number(row, max(values))
    return "" if smallest == largest else f"{smallest}..{largest}"


def _number(row: Row, value: float) -> str:
    # What is large is not known to a tenth.
    return f"{value:.{row.digits if value < 100 else 0}f}"


def verdict(row: Row, results: Results, ours: str = "ours") -> str:
    """
    Return "first", "shared" or "behind NAME" for our column, "" for a row without a rank.

    Shared: the medians are the same, or both lie within the range of the other's runs.
    """
    figures = {
        name: runs
        for name, runs in results[row.key].items()
        if not row.needs or middle(results[row.needs][name]) == 0
    }
    if not row.is_ranked or ours not in results[row.key]:
        return ""
    if ours not in figures:
        return "behind, lost some"
    rivals = {name: runs for name, runs in figures.items() if name not in NO_RIVALS}
    if not rivals:
        return "first"
    sign = -1 if row.is_more_better else 1
    best = min(rivals, key=lambda name: sign * middle(rivals[name]))
    mine, theirs = figures[ours], rivals[best]
    ahead = sign * (middle(theirs) - middle(mine))
    if ahead == 0 or (_is_within(mine, theirs) and _is_within(theirs, mine)):
        return "shared"
    return "first" if ahead > 0 else f"behind {best}"


def _is_within(some: list[Figure], others: list[Figure]) -> bool:
    values = [figure.value for figure in others]
    return min(values) <= middle(some) <= max(values)


def closing_line(results: Results, ours: str = "ours") -> str:
    """Say in how many rows we are first, and in which not."""
    rows = [
        (f"{group}: {row.title}", verdict(row, results, ours))
        for group, rows in GROUPS.items()
        for row in rows
    ]
    ranked = [(title, place) for title, place in rows if place]
    behind = [f"{title} ({place})" for title, place in ranked if place.startswith("behind")]
    counts = {place: sum(seen == place for _, seen in ranked) for place in ("first", "shared")}
    return (
        f"{ours} is first in {counts['first']} of {len(ranked)} rows, shares the first place in "
        f"{counts['shared']}, and is behind in {len(behind)}"
        + (f": {'; '.join(behind)}" if behind else "")
    )
