"""A client of the collector as small as one can be, and as honest in its book-keeping.

It sends what it is given, byte for byte, and like an SDK again and again until it gets 202.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit
from uuid import UUID

INGEST_PATH = "/api/v1/events"
NO_ANSWER = (OSError, HTTPException)
_RETRY_S = 0.05
_LAST_BATCH_S = 60.0

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the collector said."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The decoded body."""
        return json.loads(self.body)


_IDLE_S = 5.0


class Sender:
    """One connection that is kept alive, and made anew when it broke."""

    def __init__(self, url: str, key: str, timeout_s: float = 20.0) -> None:
        address = urlsplit(url)
        assert address.hostname is not None
        self._connection = HTTPConnection(address.hostname, address.port, timeout=timeout_s)
        self._key = key
        self._used_at = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next request makes another."""
        self._connection.close()

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Do one request, once. Raises `NO_ANSWER`."""
        if time.monotonic() - self._used_at > _IDLE_S:
            self.close()  # the server may have done so, as it may with a connection that rests
        try:
            self._connection.request(
                method, path, body, {"x-api-key": self._key, **(headers or {})}
            )
            response = self._connection.getresponse()
            answer = response.read()
        except NO_ANSWER:
            self.close()
            raise
        self._used_at = time.monotonic()
        names = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, names, answer)

    def get(self, path: str) -> Answer:
        """Ask a question."""
        return self.request("GET", path)

    def post(self, path: str, content: object) -> Answer:
        """Send JSON."""
        body = json.dumps(content).encode()
        return self.request("POST", path, body, {"Content-Type": "application/json"})

    def send(self, events: Iterable[Event]) -> Answer:
        """Send one batch, once. Raises `NO_ANSWER`."""
        return self.post(INGEST_PATH, {"batch": list(events)})


class Mint:
    """Makes events that are the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def message_id(self) -> str:
        """Return a fresh message id."""
        return str(UUID(int=self._random.getrandbits(128), version=4))

    def event(self, user_id: str = "u-1", **members: Any) -> Event:
        """Return a valid event with an id of its own."""
        event = {"type": "track", "name": "checked", "messageId": self.message_id()}
        return event | {"userId": user_id} | members

    def events(self, count: int, user_id: str = "u-1") -> list[Event]:
        """Return several, numbered."""
        return [self.event(user_id, properties={"n": number}) for number in range(count)]


@dataclass(slots=True)
class Ledger:
    """What one client did: ids in the order of sending, and what became of its requests."""

    user_id: str
    sent: list[str] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)
    answers: Counter[int] = field(default_factory=Counter)
    unanswered: int = 0


class Load:
    """Clients that send batch after batch, each for a user of its own, while a test does harm.

    At the end each brings its last batch home, unless *persistent* is false: then it gives up.
    Without *keep_alive* each request has a connection of its own.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        clients: int = 4,
        batch_size: int = 5,
        seed: int = 1,
        timeout_s: float = 20.0,
        persistent: bool = True,
        keep_alive: bool = True,
        users: str = "user",
    ) -> None:
        self.ledgers = [Ledger(f"{users}-{number}") for number in range(clients)]
        self._stopping = threading.Event()
        self._persistent = persistent
        self._keep_alive = keep_alive
        self._threads = [
            threading.Thread(
                target=self._run,
                args=(Sender(url, key, timeout_s), ledger, Mint(seed * 1000 + number), batch_size),
                name=f"client {number}",
            )
            for number, ledger in enumerate(self.ledgers)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is not None:
            self._persistent = False
        self.stop()

    def stop(self) -> None:
        """Begin no other batch, and wait until the last ones are home."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    @property
    def acknowledged(self) -> int:
        """How many events were acknowledged so far."""
        return sum(len(ledger.acknowledged) for ledger in self.ledgers)

    @property
    def answers(self) -> Counter[int]:
        """How often each status was answered."""
        return sum((ledger.answers for ledger in self.ledgers), Counter())

    @property
    def unanswered(self) -> int:
        """How many requests got no answer."""
        return sum(ledger.unanswered for ledger in self.ledgers)

    def _run(self, sender: Sender, ledger: Ledger, mint: Mint, batch_size: int) -> None:
        with sender:
            while not self._stopping.is_set():
                events = mint.events(batch_size, ledger.user_id)
                ledger.sent += [event["messageId"] for event in events]
                if self._deliver(sender, ledger, events):
                    ledger.acknowledged += [event["messageId"] for event in events]

    def _deliver(self, sender: Sender, ledger: Ledger, events: list[Event]) -> bool:
        """Send one batch until it is acknowledged; return whether it was."""
        give_up_at = None
        while True:
            try:
                status = sender.send(events).status
                if not self._keep_alive:
                    sender.close()
            except NO_ANSWER:
                ledger.unanswered += 1
            else:
                ledger.answers[status] += 1
                if status == 202:
                    return True
            if self._stopping.is_set():
                give_up_at = give_up_at or time.monotonic() + _LAST_BATCH_S
                if not self._persistent or time.monotonic() > give_up_at:
                    return False
            threading.Event().wait(_RETRY_S)
