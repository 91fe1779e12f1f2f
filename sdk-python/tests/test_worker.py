"""Delivery, on a real connection: what is sent when, and what becomes of it."""

import gc
import itertools
import threading
import time

import httpx
import pytest

import analytics_sdk
from analytics_sdk import segment
from analytics_sdk.delivery import CIRCUIT_FAILURES, CIRCUIT_PAUSE_S

FAULTS = {
    "500": lambda reply: reply.status(500),
    "502": lambda reply: reply.status(502, "<html>"),
    "503": lambda reply: reply.status(503),
    "408": lambda reply: reply.status(408),
    "429": lambda reply: reply.status(429),
    "404": lambda reply: reply.status(404),
    "a captive portal": lambda reply: reply.status(200, "<html>Log in</html>"),
    "an empty 200": lambda reply: reply.status(200),
    "an empty 202": lambda reply: reply.status(202),
    "broken JSON": lambda reply: reply.status(202, '{"eventCount": 1'),
    "a cut answer": lambda reply: reply.cut_short,
    "a reset": lambda reply: reply.reset,
    "a close": lambda reply: reply.close,
    "an inflated answer": lambda reply: reply.bomb,
    "an endless answer": lambda reply: reply.endless,
    "a redirect": lambda reply: reply.status(307, Location="/elsewhere"),
    "Retry-After that makes no sense": lambda reply: reply.status(429, Retry_After="soon"),
    "Retry-After in the past": lambda reply: reply.status(503, Retry_After="-5"),
}


def test_durable_events_are_written_through_without_a_pause_too(
    make_client, collector, eventually, monkeypatch
):
    """A power cut costs the last second, however busy the thread is."""
    synced = []
    sync = segment._sync
    monkeypatch.setattr(segment, "_sync", lambda fd: (synced.append(fd), sync(fd)))
    client = make_client(durable=True, batch_size=1)
    # There is always a batch.
    is_over = threading.Event()

    def track():
        while not is_over.is_set() and client.stats().taken < 20_000:
            if client.stats().spooled < 50:
                client.track("next")

    client.track("first")
    tracking = threading.Thread(target=track)
    tracking.start()
    eventually(lambda: client.stats().requests > 3)
    synced.clear()
    eventually(lambda: synced)
    is_over.set()
    tracking.join()


def test_clients_that_were_let_go_keep_no_threads(make_client, closed_port, eventually):
    """A program may make one for each job, and the collector be away for the day."""
    before = threading.active_count()
    for _ in range(5):
        client = analytics_sdk.Client(
            "ak_live_x", f"http://127.0.0.1:{closed_port}", shutdown_timeout_s=0.2
        )
        client.track("left")
        del client
    gc.collect()
    eventually(lambda: threading.active_count() == before)

    # And what they had waits on disk.
    assert make_client().recover(10)


def test_threads_that_notice_a_fork_together_lose_nothing(make_client):
    """Where Python is not told of it, as in uWSGI, the first call of a child starts afresh."""
    for _ in range(60):
        client = make_client(batch_size=500)
        client._worker.pid = -1
        barrier, answers = threading.Barrier(4), []

        def track(client=client, barrier=barrier, answers=answers):
            barrier.wait()
            answers.append(client.track("first"))

        threads = [threading.Thread(target=track) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (answers.count(True), client.stats().taken) == (4, 4)
        client.shutdown(5)


def test_a_full_batch_goes_at_once(make_client, collector, eventually):
    """Ten events do not wait for the interval."""
    client = make_client(flush_interval_s=3600)
    for number in range(10):
        client.track(f"event-{number}")

    eventually(lambda: client.stats().delivered == 10)
    assert collector.names == [f"event-{number}" for number in range(10)]


def test_a_single_event_goes_after_the_interval(make_client, collector, eventually):
    """And not before."""
    client = make_client(flush_interval_s=0.3)
    tracked_at = time.monotonic()
    client.track("alone")
    eventually(lambda: collector.requests)

    assert collector.requests[0].at - tracked_at >= 0.3


def test_the_interval_counts_from_the_oldest_event(make_client, collector, eventually):
    """A trickle of events does not put off the first."""
    client = make_client(flush_interval_s=0.3, batch_size=500)
    never = threading.Event()
    end = time.monotonic() + 10
    while not collector.requests:
        client.track("drop")
        never.wait(0.02)
        assert time.monotonic() < end, "the trickle kept the first event waiting"


@pytest.mark.parametrize("fault", FAULTS)
def test_after_a_fault_the_same_events_go_again(make_client, collector, reply, fault):
    """Delivered once, with the ids of the first try, and counted as a retry."""
    collector.script(FAULTS[fault](reply))
    client = make_client()
    client.track("one")
    client.track("two")

    assert client.flush()
    first, *_, last = collector.requests
    assert first.events == last.events
    assert collector.names == ["one", "two"]
    stats = client.stats()
    assert (stats.delivered, stats.requests, stats.retries) == (2, 2, 1)


def test_the_time_of_sending_is_new_with_every_attempt(make_client, collector, reply, eventually):
    """Else a collector would take an outage for a wrong clock, and move the events' time."""
    collector.script(*[reply.status(503)] * 3)
    client = make_client()
    client.track("one")
    client.flush()

    sent = [request.sent_at for request in collector.requests]
    assert sent == sorted(sent)
    assert len(set(sent)) > 1


def test_nobody_there_keeps_the_events(make_client, closed_port, eventually):
    """Until there is."""
    client = make_client(api_url=f"http://127.0.0.1:{closed_port}")
    client.track("one")

    assert not client.flush(0.2)
    eventually(lambda: client.stats().requests >= 2)
    eventually(lambda: client.stats().spooled == 1)


def test_events_stay_in_order_through_faults(make_client, collector, reply):
    """One request at a time: what comes later does not overtake."""
    collector.script(
        reply.status(503), reply.reset, reply.status(413), reply.status(400), reply.status(429)
    )
    client = make_client(batch_size=3)
    for number in range(50):
        client.track(f"{number}")

    assert client.flush()
    assert collector.names == [f"{number}" for number in range(50)]


def test_one_request_at_a_time(make_client, collector, reply, eventually):
    """While one hangs, no other starts; then what gathered goes in one large batch."""
    collector.script(reply.hold)
    client = make_client(batch_size=10, flush_interval_s=0.05)
    client.track("first")
    eventually(lambda: collector.requests)
    for number in range(700):
        client.track(f"{number}")
    assert not client.flush(0.2)
    assert len(collector.requests) == 1

    collector.released.set()
    assert client.flush()
    assert collector.sizes == [1, 500, 200]


def test_bodies_stay_within_the_limit(make_client, collector, reply, eventually):
    """Large events make small batches."""
    collector.script(reply.hold)
    client = make_client()
    client.track("first")
    client.flush(0.1)
    eventually(lambda: collector.requests)
    for _ in range(25):
        assert client.track("large", {"text": "x" * 100_000})

    collector.released.set()
    assert client.flush()
    assert collector.sizes == [1, 10, 10, 5]


def test_413_halves_the_batch(make_client, collector, reply):
    """A proxy may allow less than the wire."""
    collector.script(reply.status(413))
    client = make_client(batch_size=4)
    for number in range(4):
        client.track(f"{number}")

    assert client.flush()
    assert collector.sizes == [4, 2, 2]
    assert collector.names == ["0", "1", "2", "3"]


def test_413_for_ever_rejects_each_event(make_client, collector, reply):
    """It ends, and says so."""
    collector.always(reply.status(413, {"error": "Too large.", "code": "BODY_TOO_LARGE"}))
    errors = []
    client = make_client(batch_size=2, on_error=errors.append)
    client.track("one")
    client.track("two")

    assert client.flush()
    assert len(collector.requests) == 3
    assert client.stats().rejected == 2
    assert [error.event["name"] for error in errors] == ["one", "two"]
    assert {error.code for error in errors} == {"BODY_TOO_LARGE"}


def test_400_finds_the_bad_event_and_saves_its_neighbours(make_client, collector, reply):
    """99 of 100 arrive."""

    def picky(handler, request):
        is_bad = any(event["name"] == "bad" for event in request.events)
        (reply.status(400) if is_bad else reply.accept())(handler, request)

    collector.always(picky)
    client = make_client(batch_size=100)
    for number in range(100):
        client.track("bad" if number == 37 else f"{number}")

    assert client.flush()
    assert collector.names == [f"{number}" for number in range(100) if number != 37]
    assert (client.stats().delivered, client.stats().rejected) == (99, 1)


def test_400_with_verdicts_rejects_those(make_client, collector, reply):
    """The collector said which, so there is nothing to search."""
    verdicts = [{"index": 0, "code": "INVALID_NAME", "message": "name is wrong"}]
    collector.script(reply.status(400, {"code": "ALL_EVENTS_REJECTED", "rejected": verdicts}))
    errors = []
    client = make_client(on_error=errors.append)
    client.track("one", message_id="0197b0c8-0000-7000-8000-000000000001")

    assert client.flush()
    assert len(collector.requests) == 1
    [error] = errors
    assert (error.code, error.advice) == ("INVALID_NAME", "name is wrong")
    assert error.message_id == "0197b0c8-0000-7000-8000-000000000001"


def test_a_partial_answer_rejects_some(make_client, collector, reply):
    """One bad event does not cost its neighbours."""
    collector.script(reply.accept(1))
    errors = []
    client = make_client(batch_size=3, on_error=errors.append)
    for name in ("one", "two", "three"):
        client.track(name)

    assert client.flush()
    assert collector.names == ["one", "three"]
    assert [error.event["name"] for error in errors] == ["two"]
    assert (client.stats().delivered, client.stats().rejected) == (2, 1)


def test_duplicates_are_delivered_and_counted(make_client, collector, reply):
    """An answer that got lost was not lost work."""
    collector.script(reply.accept(duplicates=2))
    client = make_client(batch_size=2)
    client.track("one")
    client.track("two")

    assert client.flush()
    assert (client.stats().delivered, client.stats().duplicates) == (2, 2)


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_key_holds_the_events(make_client, collector, reply, status, eventually):
    """Few requests, nothing lost: somebody may correct the key's scope."""
    collector.always(reply.status(status))
    client = make_client(flush_interval_s=0.05)
    for number in range(50):
        client.track(f"{number}")
    eventually(lambda: collector.requests)
    assert not client.flush(0.3)
    assert len(collector.requests) <= 2
    eventually(lambda: client.stats().spooled == 50)

    collector.always(reply.accept())
    assert client.flush()
    assert client.stats().delivered == 50


def test_retry_after_is_obeyed(make_client, collector, reply):
    """Not even a flush comes earlier."""
    collector.script(reply.status(429, Retry_After="1"))
    client = make_client()
    client.track("one")
    assert not client.flush(0.3)
    assert not client.flush(0.1)

    assert client.flush(10)
    first, second = collector.requests
    assert second.at - first.at >= 1


def test_a_flush_ends_the_pause_after_a_failure(make_client, collector, reply, monkeypatch):
    """Who flushes wants to know now."""
    monkeypatch.setattr("analytics_sdk.delivery.jitter", lambda: 100.0)
    collector.script(reply.status(503), reply.status(503))
    client = make_client()
    client.track("one")
    assert not client.flush(0.3)
    assert not client.flush(0.3)

    assert client.flush(10)
    assert len(collector.requests) == 3


def test_events_do_not_end_the_pause_after_a_failure(make_client, collector, reply, monkeypatch):
    """A collector in trouble is not hit by everyone who tracks."""
    monkeypatch.setattr("analytics_sdk.delivery.jitter", lambda: 100.0)
    collector.always(reply.status(503))
    client = make_client()
    client.track("one")
    client.flush(0.2)
    for number in range(100):
        client.track(f"{number}")
    threading.Event().wait(0.1)

    assert len(collector.requests) == 1


def test_a_flush_tells_only_of_what_came_before(make_client, collector, reply, eventually):
    """Another thread that tracks on and on does not keep it."""
    client = make_client(batch_size=500)
    stop = threading.Event()

    def chatter():
        while not stop.wait(0.001):
            client.track("chatter")

    thread = threading.Thread(target=chatter)
    thread.start()
    client.track("mine")
    started_at = time.monotonic()
    flushed = client.flush(60)
    took_s = time.monotonic() - started_at
    stop.set()
    thread.join()

    assert flushed
    assert took_s < 30
    assert "mine" in collector.names


def test_a_hook_that_raises_is_counted(make_client, collector, reply, sdk_log):
    """The others are reported all the same."""
    collector.script(reply.accept(0, 1))
    seen = []

    def hook(error):
        seen.append(error.event["name"])
        raise RuntimeError("no")

    client = make_client(batch_size=2, on_error=hook)
    client.track("one")
    client.track("two")
    client.flush()
    client.track("three")

    assert client.flush()
    assert seen == ["one", "two"]
    assert client.stats().repaired == {"on_error": 2}


def test_a_hook_may_use_the_client(make_client, collector, reply):
    """Tracking works there; waiting for what only that thread can do says no."""
    collector.script(reply.accept(0))
    answers = []

    def hook(error):
        answers.extend([client.track("from the hook"), client.flush(5)])

    client = make_client(on_error=hook)
    client.track("bad")
    client.flush()

    assert client.flush()
    assert answers == [True, False]
    assert collector.names == ["from the hook"]


def test_an_error_of_the_transport_keeps_the_events(make_client, swallowed_errors, eventually):
    """A transport that a user brought may raise anything."""
    calls = []

    def answer(request):
        calls.append(request)
        if len(calls) == 1:
            raise RuntimeError("surprise")
        return httpx.Response(202, json={"eventCount": 1})

    client = make_client(http_transport=httpx.MockTransport(answer))
    client.track("one")

    assert client.flush(10)
    assert client.stats().delivered == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_ended_starts_again(make_client, collector, reply, eventually):
    """`sys.exit()` in a hook ends a thread, not the analytics."""
    collector.script(reply.accept(0))

    def hook(error):
        raise SystemExit

    client = make_client(on_error=hook)
    client.track("bad")
    client.flush()
    eventually(lambda: client._worker._thread is None)
    client.track("good")

    assert client.flush()
    assert collector.names == ["good"]


def test_the_account_adds_up_in_chaos(make_client, collector, reply, adds_up, eventually):
    """At every instant, whatever the collector does; and every event has one outcome."""
    kinds = [
        reply.accept(),
        reply.accept(0, 2),
        reply.status(400),
        reply.status(413),
        reply.status(503),
        reply.reset,
        reply.status(202, "{}"),
        reply.status(500, Retry_After="0"),
        reply.accept(duplicates=1),
    ]
    collector.script(*(kinds * 4))
    errors = []
    client = make_client(batch_size=5, max_queue_size=300, on_error=errors.append)
    taken = []

    def produce(who):
        names = [f"{who}-{number}" for number in range(150)]
        taken.extend(name for name in names if client.track(name))

    threads = [threading.Thread(target=produce, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        adds_up(client.stats())
    flushed = False
    for _ in range(200):
        flushed = flushed or client.flush(0.1)
        adds_up(client.stats())

    assert flushed
    stats = client.stats()
    assert stats.queued == 0
    assert stats.taken + stats.refused.get("queue_full", 0) == 600
    outcomes = collector.names + [error.event["name"] for error in errors]
    assert sorted(outcomes) == sorted(taken)
    assert (stats.delivered, stats.rejected) == (len(collector.names), len(errors))
    for who in range(4):
        mine = [name for name in collector.names if name.startswith(f"{who}-")]
        assert mine == sorted(mine, key=lambda name: int(name.split("-")[1]))


def test_a_shutdown_delivers_what_waits(make_client, collector):
    """And takes no more."""
    client = make_client()
    client.track("one")

    assert client.shutdown()
    assert collector.names == ["one"]
    assert not client.track("two")
    assert client.stats().refused == {"closed": 1}
    assert client.shutdown()
    assert client.flush()


def test_a_shutdown_tries_once_more_at_once(make_client, collector, reply, monkeypatch, eventually):
    """Even in the pause after a failure."""
    monkeypatch.setattr("analytics_sdk.delivery.jitter", lambda: 100.0)
    collector.script(reply.status(503))
    client = make_client()
    client.track("one")
    client.flush(0.2)
    eventually(lambda: client.stats().spooled == 1)  # as before a long pause

    assert client.shutdown(5)
    assert collector.names == ["one"]


def test_a_collector_that_goes_on_failing_is_asked_once_a_second(
    make_client, collector, reply, monkeypatch
):
    """From the fifth failure on, however short the random pause, and however often one flushes."""
    monkeypatch.setattr("analytics_sdk.delivery.jitter", lambda: 0.0)
    collector.always(reply.status(503))
    client = make_client()
    client.track("one")
    deadline = time.monotonic() + 20
    while len(collector.requests) < CIRCUIT_FAILURES + 2 and time.monotonic() < deadline:
        client.flush(0.05)

    arrived = [request.at for request in collector.requests]
    pauses = [later - sooner for sooner, later in itertools.pairwise(arrived)]
    assert sum(pauses[: CIRCUIT_FAILURES - 1]) < CIRCUIT_PAUSE_S * (CIRCUIT_FAILURES - 1)
    assert min(pauses[CIRCUIT_FAILURES - 1 :]) >= CIRCUIT_PAUSE_S * 0.95


def test_a_shutdown_obeys_retry_after(make_client, collector, reply):
    """If that is too long it ends at once, for waiting would help nobody."""
    collector.script(reply.status(429, Retry_After="60"))
    client = make_client()
    client.track("one")
    client.flush(0.2)
    started_at = time.monotonic()

    assert not client.shutdown(30)
    assert time.monotonic() - started_at < 10
    assert len(collector.requests) == 1
    assert client.stats().spooled == 1


@pytest.mark.parametrize("fault", ["hang", "drip_header", "drip_body"])
@pytest.mark.parametrize("spool", [True, False])
def test_a_shutdown_ends_in_time_and_leaves_the_rest_on_disk(
    make_client, collector, reply, fault, spool
):
    """However the collector behaves; without a spool what is left is counted as dropped."""
    collector.always(getattr(reply, fault))
    client = make_client(**({} if spool else {"spool_max_bytes": 0}))
    for number in range(30):
        client.track(f"{number}")
    started_at = time.monotonic()

    assert not client.shutdown(0.3)
    # The rest is for a busy machine: a request alone has 10 s.
    assert time.monotonic() - started_at < 8
    stats = client.stats()
    assert (stats.spooled, stats.dropped) == ((30, {}) if spool else (0, {"shutdown": 30}))
    assert not client.flush()


def test_a_flush_that_waits_hears_of_the_shutdown(make_client, collector, reply, eventually):
    """It does not wait for events that are gone."""
    collector.always(reply.hang)
    client = make_client()
    client.track("one")
    answers = []
    thread = threading.Thread(target=lambda: answers.append(client.flush(60)))
    thread.start()
    eventually(lambda: collector.requests)
    client.shutdown(0.1)
    thread.join(10)

    assert answers == [False]


@pytest.mark.parametrize(
    "half", [("tenacity", "wait"), ("httpx", "_client"), ("analytics_sdk", "batch")]
)
def test_an_import_that_fails_is_made_up_for(run_program, collector, half):
    """A process that was out of descriptors, for a moment, delivers; and has no traceback."""
    program = run_program(
        """
        from importlib.machinery import SourceFileLoader

        failed = []

        def get_data(self, path, read=SourceFileLoader.get_data):
            # Twice, for Python tries the source when it can't read what it compiled.
            if len(failed) < 2 and all(part in path for part in sys.argv[1:]):
                failed.append(path)
                raise OSError(24, "Too many open files", path)
            return read(self, path)

        SourceFileLoader.get_data = get_data
        client = analytics.Client(flush_interval_s=0.01)
        for number in range(100):
            client.track(f"{number}")
        any(client.flush(1) for _ in range(30))
        print(len(failed), client.stats().delivered)
        """,
        *half,
    )

    assert program.stdout.split() == ["2", "100"], program.stderr
    assert collector.names == [f"{number}" for number in range(100)]
    assert "Traceback" not in program.stderr


def test_an_import_that_always_fails_keeps_no_end(run_program):
    """The events go to disk, with a line or two and no thread for each."""
    program = run_program("""
        sys.modules["tenacity"] = None
        client = analytics.Client(flush_interval_s=0.01, batch_size=1)
        threads = set()
        for number in range(300):
            client.track(f"{number}")
            threads.add(client._worker._thread)
        print(len(threads), client.flush(0.1), client.shutdown(), client.stats().spooled)
    """)

    assert program.stdout.split() == ["1", "False", "False", "300"], program.stderr
    assert "Traceback" not in program.stderr
    assert len(program.stderr.splitlines()) < 5


def test_a_client_that_nobody_holds_delivers_and_ends(make_client, collector, eventually):
    """No thread is left behind for every client that was ever made."""
    import analytics_sdk

    client = analytics_sdk.Client("ak_live_1", collector.url)
    client.track("one")
    thread = client._worker._thread
    del client

    eventually(lambda: not thread.is_alive())
    assert collector.names == ["one"]


def test_an_event_after_the_end_is_told(make_client, sdk_log):
    """A False alone is easily overlooked."""
    client = make_client()
    client.shutdown()

    assert not client.track("late")
    assert sdk_log.reasons() == ["closed"]
