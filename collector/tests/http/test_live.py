"""The live tail: what is committed, to whom it belongs, in order and without a gap."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from analytics_collector import live
from analytics_collector.adapters.postgres.live import PostgresLiveLog
from analytics_collector.adapters.postgres.log import open_log
from analytics_collector.adapters.redis.client import connect
from analytics_collector.adapters.redis.live import RedisLiveStream
from analytics_collector.adapters.redis.stream import EventStream
from analytics_collector.errors import StoreUnavailable
from analytics_collector.http import live as live_http
from analytics_collector.live import LiveTail
from analytics_collector.model import Cursor, Entry
from analytics_collector.worker.publisher import Publisher

_PATIENCE_S = 15.0


class Ear:
    """One client of the live tail, which reads when it is told to."""

    def __init__(self, port: int, key: str, query: str = "", since: str | None = None) -> None:
        self.connection = socket.socket()
        # Small, so that who does not read is noticed soon.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
        self.connection.settimeout(_PATIENCE_S)
        self.connection.connect(("127.0.0.1", port))
        headers = f"Host: x\r\nx-api-key: {key}\r\n"
        if since is not None:
            headers += f"Last-Event-ID: {since}\r\n"
        request = f"GET /api/v1/live{query} HTTP/1.1\r\n{headers}\r\n"
        self.connection.sendall(request.encode())
        self._file = self.connection.makefile("rb")
        self.status = int(self._file.readline().split()[1])
        self.headers = {}
        while line := self._file.readline().strip().decode():
            name, _, value = line.partition(": ")
            self.headers[name.lower()] = value
        self.last_id = ""
        self.ids: list[str] = []
        self._unread = b""

    def messages(self) -> Iterator[tuple[str, Any]]:
        """Yield kind and content of each message until the server ends the stream."""
        kind, data = "message", ""
        while (line := self._line()) is not None:
            name, _, value = line.partition(": ")
            if name == "id":
                self.last_id = value
            elif name == "event":
                kind = value
            elif name == "data":
                data = value
            elif not line and data:
                self.ids.append(self.last_id)
                yield kind, json.loads(data)
                kind, data = "message", ""

    def names(self, count: int) -> list[str]:
        """Return the names of the next *count* events."""
        found: list[str] = []
        if count:
            for kind, event in self.messages():
                assert kind == "message", event
                found.append(event["name"])
                if len(found) == count:
                    break
        return found

    def wait_open(self) -> None:
        """Wait for the next id: from there on nothing is missed."""
        while (line := self._line()) is not None:
            if line.startswith("id: "):
                self.last_id = line[4:]
                return

    def rest(self) -> list[tuple[str, Any]]:
        """Return all messages until the end."""
        return list(self.messages())

    def _line(self) -> str | None:
        """Return the next line of the stream, out of the chunks in which HTTP/1.1 frames it."""
        while b"\n" not in self._unread:
            size = int(self._file.readline() or b"0", 16)
            if not size:
                return None
            self._unread += self._file.read(size)
            self._file.readline()
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self.connection.close()


@pytest.fixture
def listen(site) -> Iterator[Callable[..., Ear]]:
    """Open the live tail of the site's project; it is open when this returns."""
    ears: list[Ear] = []

    def open_ear(query: str = "", key: str = "read", port: int | None = None, **more: Any) -> Ear:
        ears.append(Ear(port or site.port, site.keys.get(key, key), query, **more))
        if ears[-1].status == 200:
            ears[-1].wait_open()
        return ears[-1]

    yield open_ear
    for ear in ears:
        ear.close()


def track(name: str, **members: Any) -> dict[str, Any]:
    return {"type": "track", "name": name, "userId": "u-1", **members}


def variant(site, **limits: Any) -> int:
    """Return the port of a collector whose live tail reads Postgres only."""

    class Away:
        async def after(self, cursor: Cursor) -> None:
            return None

    services = site.services
    tail = LiveTail(Away(), PostgresLiveLog(services.pools[2]), limits.get("max_listeners", 100))
    return site.variant(live=tail)


def test_an_event_is_told_as_it_is_committed(site, listen):
    """Each event comes as a question for it would tell it, and its id is a place to go on from."""
    ear = listen()
    sent = track(
        "bought", properties={"amount": 42}, messageId="01935a2e-7c1b-7d10-a3a4-5b0c6f1c9d11"
    )
    site.post(sent)

    kind, event = next(ear.messages())

    (stored,) = site.ask(
        "GET", "/api/v1/users/u-1/events?limit=1", headers={"x-api-key": site.keys["read"]}
    ).json()["events"]
    assert (kind, event) == ("message", stored)
    assert ear.headers["content-type"].startswith("text/event-stream")
    assert (ear.headers["cache-control"], ear.headers["x-accel-buffering"]) == (
        "no-store, no-transform",
        "no",
    )
    assert live.Position.parse(ear.last_id).seq is not None


def test_events_come_in_the_order_in_which_they_are_stored(site, listen):
    """Many commits, all of them, each event once."""
    ear = listen()
    for number in range(30):
        site.post(*[track(f"e{number}.{n}") for n in range(5)])

    assert ear.names(150) == [f"e{number}.{n}" for number in range(30) for n in range(5)]


def test_nobody_hears_another_project(site, listen):
    """A key tells of its own project only, whatever the filter says."""
    others = site.new_key(["ingest", "read"], "others")
    ear, their_ear = listen(), listen(key=others)
    site.post(track("theirs"), key=others)
    site.post(track("mine"))
    site.post(track("theirs too"), key=others)

    assert ear.names(1) == ["mine"]
    assert their_ear.names(2) == ["theirs", "theirs too"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("?name=b", ["b", "b"]),
        ("?name=b&name=c", ["b", "c", "b"]),
        ("?type=identify", ["$identify"]),
        ("?userId=u-2", ["b", "$identify"]),
        ("?userId=u-2&name=b", ["b"]),
    ],
)
def test_a_filter_selects(site, listen, query, expected):
    """Name, type and user, each given any number of times; all of them must fit."""
    ear = listen(query)
    site.post(
        track("a"),
        track("b"),
        track("c"),
        track("b", userId="u-2"),
        {"type": "identify", "userId": "u-2", "traits": {"a": 1}},
    )

    heard = [event["name"] for _, event in _take(ear, len(expected))]

    assert heard == expected


def _take(ear: Ear, count: int) -> list[tuple[str, Any]]:
    messages = ear.messages()
    return [next(messages) for _ in range(count)]


@pytest.mark.parametrize("how", ["with the stream", "with Postgres only"])
def test_who_comes_back_has_missed_nothing(site, listen, how):
    """Cut off after any event, the next one comes first: also in the middle of a commit."""
    port = site.port if how == "with the stream" else variant(site)
    ear = listen(port=port)
    batches = [[track(f"{number}.{n}") for n in range(4)] for number in range(6)]
    for batch in batches:
        site.post(*batch)
    names = [event["name"] for batch in batches for event in batch]
    assert ear.names(24) == names

    for had in (1, 4, 6, 23):
        again = listen(port=port, since=ear.ids[had - 1])
        assert again.names(24 - had) == names[had:]
        site.post(track("later"))
        assert again.names(1) == ["later"]
        site.sql("delete from events where name = 'later'")


def test_the_first_id_is_a_place_to_go_on_from(site, listen):
    """Who is cut off before any event came has missed nothing either."""
    first = listen().last_id
    site.post(track("meanwhile"))

    assert listen(since=first).names(1) == ["meanwhile"]


def test_many_who_come_back_while_events_come_in_miss_nothing(site, listen):
    """Catching up meets what is handed out, without a gap and without an event twice."""
    since = listen().last_id
    names = [f"n{number}" for number in range(60)]

    def send() -> None:
        for name in names:
            site.post(track(name))

    sender = threading.Thread(target=send)
    sender.start()
    ears = [listen(since=since) for _ in range(6)]
    sender.join()

    assert [ear.names(60) for ear in ears] == [names] * 6


def test_an_id_that_nobody_knows_is_told(site, listen):
    """Something was missed, and the listener hears so before anything else."""
    ear = Ear(site.port, site.keys["read"], since="7-999999999-1")
    with closing(ear):
        messages = ear.messages()
        kind, told = next(messages)
        ear.wait_open()
        site.post(track("next"))

        assert (kind, "no event" in told["message"]) == ("gap", True)
        assert ear.names(1) == ["next"]


def test_the_id_of_a_database_that_was_restored_is_still_a_place(site, listen):
    """A restored log has other transactions; its commits keep their ids."""
    ear = listen()
    site.post(track("before"))
    site.post(track("after"))
    ear.names(2)
    site.sql("update commits set xid = '0'")

    assert listen(since=ear.ids[0]).names(1) == ["after"]


def test_until_a_restored_log_is_taken_up_nobody_goes_on_in_it(site, listen):
    """Its places would lie before everything that is committed from now on."""
    ear = listen()
    site.post(track("before"))
    ear.names(1)
    site.sql("update commits set xid = (xid::text::bigint + 1000000)::text::xid8")
    xid, _, rest = ear.ids[0].partition("-")
    far = f"{int(xid) + 1_000_000}-{rest}"
    answer = site.ask(
        "GET", "/api/v1/live", headers={"x-api-key": site.keys["read"], "last-event-id": far}
    )
    site.sql("update commits set xid = '0'")

    assert (answer.status_code, answer.json()["code"]) == (503, "STORE_UNAVAILABLE")


def test_nobody_goes_on_where_a_part_of_a_restored_log_is_still_to_come(site, listen):
    """Its cluster had counted about as far as this one: all of it will be numbered anew."""
    ear = listen()
    site.post(track("before"))
    site.post(track("after"))
    ear.names(2)
    _, commit, rest = ear.ids[0].split("-")
    site.sql(
        "update commits set xid = (pg_current_xact_id()::text::bigint + 2 * (commit_id - $1) - 1)"
        "::text::xid8",
        int(commit),
    )
    for _ in range(3):
        site.sql("select pg_current_xact_id()")
    ((xid,),) = site.sql("select xid::text from commits where commit_id = $1", int(commit))
    answer = site.ask(
        "GET",
        "/api/v1/live",
        headers={"x-api-key": site.keys["read"], "last-event-id": f"{xid}-{commit}-{rest}"},
    )
    site.sql("update commits set xid = '0'")

    assert (answer.status_code, answer.json()["code"]) == (503, "STORE_UNAVAILABLE")


@pytest.mark.parametrize(
    "text", ["x", "1", "1-2-3-4", "1--2", "-1-2", "1-2-x", f"{2**63}-1", "1-²"]
)
def test_an_id_that_is_none_is_refused(site, text):
    """It can only be a mistake of the client's."""
    answer = site.ask(
        "GET",
        "/api/v1/live",
        headers={"x-api-key": site.keys["read"], "last-event-id": text.encode()},
    )

    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_QUERY")
    assert answer.json()["field"] == "Last-Event-ID"


@pytest.mark.parametrize("query", ["?type=click", "?user=u-1", "?name=x&colour=red"])
def test_a_filter_that_selects_nothing_is_refused(site, query):
    """A misspelt filter would otherwise show everything, or nothing."""
    answer = site.ask("GET", f"/api/v1/live{query}", headers={"x-api-key": site.keys["read"]})

    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_QUERY")


@pytest.mark.parametrize(
    ("key", "status"), [("ingest", 403), ("admin", 403), ("ak_live_nonsense", 401)]
)
def test_only_a_key_that_may_read_listens(site, key, status):
    """As with every other question."""
    headers = {"x-api-key": site.keys.get(key, key)}

    assert site.ask("GET", "/api/v1/live", headers=headers).status_code == status


def test_a_key_that_is_revoked_stops_hearing(site, listen):
    """Within five seconds, as everywhere; the listener is told."""
    key = site.new_key(["read"])
    ear = listen(key=key)
    site.sql(
        "update api_keys set revoked_at = now() where key_id = (select max(key_id) from api_keys)"
    )
    began = time.monotonic()

    ((kind, told),) = ear.rest()

    assert (kind, told["reason"]) == ("end", "key")
    assert time.monotonic() - began < 6.5


def test_listening_is_one_use_of_a_key(site, listen, monkeypatch, eventually):
    """However long it takes: that the key is looked at again and again counts nothing."""
    monkeypatch.setattr(live_http, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(live_http, "_KEY_CHECK_S", 0.02)
    ear = listen(key=site.new_key(["read"]))
    for _ in range(5):
        ear.wait_open()
    used = "select usage_count from api_keys order by key_id desc limit 1"
    eventually(lambda: site.sql(used)[0][0])

    assert site.sql(used)[0][0] == 1


def test_there_are_so_many_places(site, listen, eventually):
    """Further listeners are sent away for a while, and one project leaves places to the others."""
    port = variant(site, max_listeners=4)
    ears = [listen(port=port), listen(port=port)]
    refused = site.ask("GET", "/api/v1/live", port, headers={"x-api-key": site.keys["read"]})
    theirs = listen(key=site.new_key(["read"], "others"), port=port)

    assert (refused.status_code, refused.json()["code"]) == (503, "TOO_MANY_LISTENERS")
    assert refused.headers["retry-after"] == "5"
    assert theirs.status == 200
    ears[0].close()
    eventually(lambda: _listens(port, site))


def _listens(port: int, site: Any) -> bool:
    with closing(Ear(port, site.keys["read"])) as ear:
        return ear.status == 200


def test_who_does_not_read_is_ended_and_slows_nobody(site, listen):
    """Its buffer is bounded; it hears why, and comes back for what it missed."""
    port = variant(site)
    slow, quick = listen(port=port), listen(port=port)
    filling = "x" * 90_000
    names = [f"n{number}" for number in range(100)]
    heard: list[str] = []
    for name in names:
        site.post(track(name, properties={"filling": filling}))
        # Now and not later, for how quick another thread is depends on the machine.
        heard += quick.names(1)

    assert heard == names
    *told, (kind, end) = slow.rest()
    had = [event["name"] for _, event in told]
    assert (kind, end["reason"]) == ("end", "slow")
    assert had == names[: len(had)]
    assert len(had) < 100
    again = listen(port=port, since=slow.ids[-2])
    assert again.names(100 - len(had)) == names[len(had) :]


def test_silence_is_broken_by_heartbeats_that_move_the_place(site, listen, monkeypatch, eventually):
    """Who hears nothing of what goes by need not go through it again."""
    monkeypatch.setattr(live_http, "HEARTBEAT_S", 0.1)
    ear = listen("?name=never")
    first = ear.last_id
    site.post(track("something else"))

    def moved() -> bool:
        ear.wait_open()
        return ear.last_id != first

    eventually(moved)


def test_who_hangs_up_gives_the_place_back(site, listen, eventually):
    """And when the last one has gone, nothing is read any more."""
    port = variant(site, max_listeners=2)
    for _ in range(5):
        listen(port=port).close()
        eventually(lambda: _listens(port, site))


class Silent:
    """A log in which nothing happens, and a stream that holds what is given; both are counted."""

    def __init__(self, *streamed: Entry) -> None:
        self.streamed = list(streamed)
        self.reads = 0

    async def latest(self) -> Cursor:
        return Cursor(1, 1)

    async def find(self, cursor: Cursor) -> Cursor | None:
        raise StoreUnavailable("away")

    async def after(self, cursor: Cursor, limit: int | None = None, *more: Any) -> list[Entry]:
        self.reads += 1
        await asyncio.sleep(0.001)
        return self.streamed if limit is None else []


def test_who_could_not_be_told_the_place_leaves_nobody_reading(site, eventually):
    """The reading that began for a listener ends if it is refused."""
    log = Silent()
    tail = LiveTail(log, log, 10)
    port = site.variant(live=tail)

    answer = site.ask(
        "GET",
        "/api/v1/live",
        port,
        headers={"x-api-key": site.keys["read"], "last-event-id": "1-2"},
    )

    assert (answer.status_code, answer.json()["code"]) == (503, "STORE_UNAVAILABLE")
    eventually(lambda: tail._reader is None)


def test_a_stream_of_another_database_is_not_read_without_a_pause():
    """What it has at once is of no use: then it is as if it were away."""
    source = Silent(Entry(Cursor(9, 9), Cursor(8, 8), "[]"))

    async def follow() -> None:
        tail = LiveTail(source, source, 10)
        listener = tail.admit(live.Selection(1))
        await tail.start()
        await asyncio.sleep(0.15)
        tail.leave(listener)

    asyncio.run(follow())

    assert source.reads == 2


def test_a_question_for_the_headers_alone_is_answered_at_once(site):
    """HEAD must not listen."""
    answer = site.ask("HEAD", "/api/v1/live", headers={"x-api-key": site.keys["read"]})

    assert answer.status_code == 200


def test_both_sources_tell_the_same(site, servers):
    """The stream and the log have the same events, in the same order, with the same ids."""
    redis = connect(servers[1])
    log = PostgresLiveLog(site.services.pools[2])
    site.post(track('ä " \\ \u2028', properties={"projectId": 7, "deep": {"a": [1.5, None]}}))
    site.post({"type": "identify", "userId": "u-9", "traits": {"plan": "pro"}})

    async def publish() -> None:
        async with open_log(site._dsn, 5.0) as commits:
            publisher = Publisher(commits, EventStream(redis))
            while await publisher.publish_some() or await publisher.publish_some():
                pass

    async def read() -> tuple[list[Any], list[Any]]:
        await EventStream(redis).clear()
        await publish()
        streamed = []
        cursor = Cursor(0, 0)
        while entries := await RedisLiveStream(redis).after(cursor):
            streamed += entries
            cursor = entries[-1].cursor
        logged = []
        cursor = Cursor(0, 0)
        while entries := await log.after(cursor, 3):
            logged += entries
            cursor = entries[-1].cursor
        await redis.aclose()
        return streamed, logged

    streamed, logged = site.run(read())

    assert len(streamed) > 1
    assert [(e.cursor, e.previous, json.loads(e.events)) for e in streamed] == [
        (e.cursor, e.previous, json.loads(e.events)) for e in logged
    ]
    # The mark by which commits of others are passed over; those without it are empty by now.
    for entry in [*streamed, *logged]:
        marks = [f'"projectId" : {e["projectId"]},' for e in json.loads(entry.events)]
        assert all(mark in entry.events for mark in marks)
