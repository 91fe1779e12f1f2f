"""Web applications on gunicorn that track, their visitors, and what must be stored of a visit."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from signal import SIGKILL
from typing import Any, Self

from harness.database import Database
from harness.processes import Program, mentioning, offspring
from harness.waiting import pause, wait_for

WORKERS = 4
GRACEFUL_TIMEOUT_S = 20
# The events of one visit, in the order in which they are tracked.
EVENTS = ("order_viewed", "GET /orders/{number}")
_TESTS = Path(__file__).parents[1]
_ANSWER_TIMEOUT_S = 60.0
# Without it the visitors would have the machine to themselves.
_BETWEEN_VISITS_S = 0.02
_WORKER_CLASSES = {"fastapi": "uvicorn_worker.UvicornWorker"}


class Gunicorn(Program):
    """A shop of `harness.apps`: loaded once, then served by four processes."""

    def __init__(
        self,
        framework: str,
        url: str,
        key: str,
        folder: Path,
        *options: str,
        is_bare: bool = False,
        **settings: object,
    ) -> None:
        self.url, self.key, self.spool = url, key, folder / "spool"
        environment = {
            "ANALYTICS_API_URL": url,
            "ANALYTICS_API_KEY": key,
            "ANALYTICS_SPOOL_DIR": str(self.spool),
        }
        if is_bare:
            environment["BARE_SHOP"] = "yes"
        environment |= {f"ANALYTICS_{name.upper()}": str(value) for name, value in settings.items()}
        command = [
            *(sys.executable, "-m", "gunicorn", "--preload", "--workers", str(WORKERS)),
            *("--pythonpath", str(_TESTS)),
            *("--bind", "127.0.0.1:0", "--graceful-timeout", str(GRACEFUL_TIMEOUT_S)),
            # Its signs of life are files, and a disk under load may keep a worker waiting.
            *("--worker-tmp-dir", "/dev/shm", "--no-control-socket"),
            *("--worker-class", _WORKER_CLASSES.get(framework, "sync"), *options),
            f"harness.apps.{framework}_shop:application",
        ]
        super().__init__(command, folder, "gunicorn", environment)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(wait_for(self._port_in_log, "gunicorn listens")[1])

    def _port_in_log(self) -> re.Match[str] | None:
        assert self.is_running, self.log
        return re.search(r"Listening at: http://127\.0\.0\.1:(\d+) ", self.log)

    @property
    def workers(self) -> set[int]:
        """The processes that answer."""
        return set(offspring(self.pid))

    def kill_worker(self, pid: int) -> None:
        """End one of them as the kernel would for want of memory."""
        assert pid in self.workers
        os.kill(pid, SIGKILL)

    def left_behind(self) -> dict[int, str]:
        """Return every process that has to do with it, by pid."""
        return mentioning(str(self.spool))

    def end(self) -> None:
        """Leave nothing running: workers may outlive the one that started them."""
        super().end()
        for pid in self.left_behind():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, SIGKILL)


@dataclass(slots=True)
class Visit:
    """One request, and what the view said of it."""

    user: str
    number: int
    pid: int | None = None
    """The process that answered; None without an answer."""
    was_taken: bool = False
    """What `track()` returned in the view."""

    @property
    def request_id(self) -> str:
        """What it is called in its events."""
        return f"{self.user}.{self.number}"


class Visitors:
    """Users who visit one page after the other, each in a thread, while a test does harm."""

    def __init__(self, port: int, name: str, users: int = 4) -> None:
        self.visits: list[Visit] = []
        self.failures: list[str] = []
        """Of visits without an answer, and of answers that are none."""
        self._port = port
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._visit_all, args=(f"{name}-{number}",), name="visitor")
            for number in range(users)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Begin no other visit, and wait for the answers to those that have begun."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    @property
    def answered(self) -> int:
        """How many visits were answered so far."""
        return len(self.visits) - len(self.failures)

    @property
    def answered_by(self) -> Counter[int]:
        """How many visits each process has answered so far."""
        return Counter(visit.pid for visit in list(self.visits) if visit.pid is not None)

    def _visit_all(self, user: str) -> None:
        number = 0
        while not self._stopping.is_set():
            number += 1
            visit = Visit(user, number)
            try:
                self._ask(visit)
            except (OSError, HTTPException, ValueError) as error:
                self.failures.append(f"{visit.request_id}: {error!r}")
            self.visits.append(visit)
            pause(_BETWEEN_VISITS_S)

    def _ask(self, visit: Visit) -> None:
        # A connection each, so that any of the processes may get it.
        connection = HTTPConnection("127.0.0.1", self._port, timeout=_ANSWER_TIMEOUT_S)
        path = f"/orders/{visit.number}?user={visit.user}"
        headers = {"x-user": visit.user, "x-request-id": visit.request_id, "connection": "close"}
        with contextlib.closing(connection):
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            body = response.read()
        if response.status != 200:
            raise ValueError(f"{response.status}: {body[:200]!r}")
        answer = json.loads(body)
        visit.pid, visit.was_taken = answer["pid"], answer["taken"]


def faults_of(visits: Sequence[Visit], database: Database) -> Counter[str]:
    """Return what is wrong with the stored events of *visits*, and how often.

    Of a visit that was answered both events must be there, and those of one user and process in
    order. Without an answer they may be there or not. Nothing may be there twice.
    """
    by_id = {visit.request_id: visit for visit in visits}
    rows = _stored(database)
    counts = Counter((request_id, name) for request_id, name, *_ in rows)
    faults: Counter[str] = Counter()
    for visit in visits:
        for name in EVENTS if visit.was_taken else EVENTS[1:]:
            if visit.pid is not None and not counts[visit.request_id, name]:
                faults[f"{visit.user}: {name} lost"] += 1
    for (request_id, name), count in counts.items():
        if count > 1:
            faults[f"{request_id}: {name} doubled"] += count - 1
    latest: dict[tuple[str, int | None], tuple[int, int]] = {}
    for request_id, name, user_id, facts in rows:
        visit = by_id.get(request_id)
        if visit is None or user_id != visit.user or not _is_right(visit, name, facts):
            faults[f"{request_id}: {name} of {user_id} says {facts}"] += 1
        elif visit.pid is not None:
            place = (visit.number, EVENTS.index(name))
            if place < latest.get((visit.user, visit.pid), place):
                faults[f"{visit.user}: {name} out of order"] += 1
            latest[visit.user, visit.pid] = place
    return faults


def _stored(database: Database) -> list[tuple[str, str, str, dict[str, Any]]]:
    """Return request id, name, user and properties of every event, in stored order."""
    rows = database.fetch(
        "select context ->> 'requestId', name, user_id, properties::text from events order by seq"
    )
    return [(row[0], row[1], row[2], json.loads(row[3])) for row in rows]


def _is_right(visit: Visit, name: str, facts: dict[str, Any]) -> bool:
    """Tell whether an event says what the view, or the middleware, has seen of the visit."""
    if name == EVENTS[0]:
        return facts == {"number": visit.number, "user": visit.user}
    outcome = {"route": "/orders/{number}", "method": "GET", "statusCode": 200, "status": "SUCCESS"}
    return name == EVENTS[1] and facts == {**outcome, "durationMs": facts.get("durationMs")}
