"""The handler of `logging`."""

import logging
import logging.config
import logging.handlers
import os
import queue
import subprocess
import sys
import threading
from datetime import datetime, timezone
from pathlib import Path
from time import monotonic

import pytest

import analytics_sdk
from analytics_sdk.integrations.logging import MAX_MESSAGE_CHARS, MAX_TEMPLATES, AnalyticsHandler
from analytics_sdk.integrations.logging import _Limit as Limit

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def logger():
    """A logger of a program, which hands on to the root as usual."""
    logger = logging.getLogger("shop.orders")
    yield logger
    for handler in (*logger.handlers, *logging.getLogger().handlers):
        if isinstance(handler, (AnalyticsHandler, logging.handlers.QueueHandler)):
            logger.removeHandler(handler)
            logging.getLogger().removeHandler(handler)


@pytest.fixture
def listen(logger, make_client):
    """Add a handler, and return what gets the events that it made."""

    def listen(**settings):
        client = settings.setdefault("client", make_client())
        handler = AnalyticsHandler(**settings)
        logger.addHandler(handler)
        return client

    return listen


@pytest.fixture
def events(collector):
    def events(client):
        assert client.flush(5)
        return collector.stored

    return events


def record_of(message, *arguments, **attributes):
    """A record for a handler alone; the handler of pytest raises when it can't format one."""
    attributes = {"msg": message, "args": arguments, "levelno": logging.ERROR, **attributes}
    return logging.makeLogRecord(attributes)


def messages(events):
    return [event["properties"]["message"] for event in events]


def test_a_record_is_an_event(logger, listen, events):
    """With the message as it stands in the program, and without its arguments."""
    client = listen()
    logger.error("order %s of %s failed", 17, "zoe@example.com")

    (event,) = events(client)
    assert event["name"] == "log_recorded"
    assert event["context"]["category"] == "SYSTEM_EVENT"
    assert event["properties"].pop("line") > 0
    assert event["properties"] == {
        "logger": "shop.orders",
        "level": "ERROR",
        "message": "order %s of %s failed",
        "module": "test_logging",
        "function": "test_a_record_is_an_event",
    }
    assert "zoe" not in str(event)


def test_records_below_the_level_make_none(logger, listen, events):
    """ERROR and above, unless another level is asked for."""
    client = listen()
    logger.warning("quiet")
    logger.critical("loud")

    assert messages(events(client)) == ["loud"]


def test_a_level_may_be_a_name(logger, listen, events):
    """As everywhere in logging."""
    client = listen(level="WARNING", event_name="warned")
    logger.warning("quiet")

    (event,) = events(client)
    assert (event["name"], event["properties"]["level"]) == ("warned", "WARNING")


def test_an_exception_gives_its_type_and_no_message(logger, listen, events):
    """Neither of `exception()`, nor of an exception in place of the text."""
    client = listen()
    try:
        raise KeyError("zoe@example.com")
    except KeyError as error:
        logger.exception("lookup failed")
        logger.error(error)

    stored = events(client)
    assert messages(stored) == ["lookup failed", "KeyError"]
    assert [event["properties"]["errorType"] for event in stored] == ["KeyError", "KeyError"]
    assert "zoe" not in str(stored)


def test_arguments_are_filled_in_on_request(make_client, events):
    """For programs that log nothing private; arguments that don't fit cost only themselves."""
    client = make_client()
    handler = AnalyticsHandler(client=client, formatted=True)
    handler.handle(record_of("order %s failed", 17))
    handler.handle(record_of("order %d failed", "x"))

    assert messages(events(client)) == ["order 17 failed", "order %d failed"]


def test_extra_adds_properties(logger, listen, events):
    """They are the user's, so they win; what is no mapping adds nothing."""
    client = listen()
    logger.error("failed", extra={"analytics": {"order": 17, "level": "mine"}})
    logger.error("failed", extra={"analytics": ["order"]})

    first, second = [event["properties"] for event in events(client)]
    assert (first["order"], first["level"]) == (17, "mine")
    assert second["level"] == "ERROR"


def test_the_context_of_the_caller_holds(logger, listen, events):
    """A record inside a request belongs to its user."""
    client = listen()
    with analytics_sdk.context(user_id="u-1", session_id="s-1"):
        logger.error("failed")

    (event,) = events(client)
    assert (event["userId"], event["sessionId"]) == ("u-1", "s-1")


def test_the_time_is_that_of_the_record(logger, listen, events):
    """A record may wait for long in a handler that collects, before ours sees it."""
    client = listen()
    created = datetime(2026, 11, 20, tzinfo=timezone.utc).timestamp()
    logger.handle(record_of("failed", created=created))

    assert events(client)[0]["timestamp"].startswith("2026-11-20T00:00:00")


def test_a_record_from_another_thread_makes_an_event(logger, make_client, events):
    """By way of the queue that the documentation of logging recommends."""
    client = make_client()
    records = queue.SimpleQueue()
    logger.addHandler(logging.handlers.QueueHandler(records))
    listener = logging.handlers.QueueListener(records, AnalyticsHandler(client=client))
    listener.start()
    logger.error("failed")
    listener.stop()

    assert messages(events(client)) == ["failed"]


def test_a_configuration_can_name_the_handler(analytics, logger, collector):
    """As in Django's LOGGING; it uses the client that init() makes later."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {
                "analytics": {
                    "class": "analytics_sdk.integrations.logging.AnalyticsHandler",
                    "level": "ERROR",
                    "event_name": "logged",
                }
            },
            "loggers": {"shop.orders": {"handlers": ["analytics"]}},
        }
    )
    analytics.init("ak_live_test0SECRET", collector.url)
    logger.error("failed")

    assert analytics.flush(5)
    assert collector.names == ["logged"]


# Loops


def test_what_the_sdk_logs_makes_no_events(logger, make_client, collector, reply, eventually):
    """Neither its own records nor those of its HTTP client, at any level."""
    root, level = logging.getLogger(), logging.getLogger().level
    client = make_client(batch_size=1)
    root.addHandler(AnalyticsHandler(logging.DEBUG, client=client))
    root.setLevel(logging.DEBUG)
    collector.script(reply.status(500), reply.accept(0), reply.accept())
    logger.error("first")
    logger.error("second")
    assert not client.track("")
    eventually(lambda: client.stats().queued == 0)
    client.flush(5)
    root.setLevel(level)

    assert client.stats().taken == 2
    assert client.stats().rejected == 1


def test_what_a_hook_logs_while_an_event_is_tracked_makes_no_event(logger, make_client, events):
    """It would be called again for that one, and so on."""

    def before_send(event):
        logger.error("in before_send")
        return event

    def user_id():
        logger.error("in user_id")
        return "u-1"

    client = make_client(before_send=before_send)
    logger.addHandler(AnalyticsHandler(client=client))
    with analytics_sdk.context(user_id=user_id):
        logger.error("failed")
        logger.error("failed again")

    assert messages(events(client)) == ["failed", "failed again"]


def test_what_on_error_logs_makes_no_event(logger, make_client, collector, reply, eventually):
    """It runs where events are sent, and its own would be rejected as well."""
    calls = []

    def on_error(error):
        calls.append(error)
        logger.error("rejected")

    collector.always(reply.accept(0))
    client = make_client(batch_size=1, on_error=on_error)
    logger.addHandler(AnalyticsHandler(client=client))
    logger.error("failed")
    eventually(lambda: client.stats().queued == 0)
    client.flush(5)

    assert len(calls) == 1
    assert client.stats().taken == 1


def test_loggers_that_are_merely_called_alike_are_heard(listen, events):
    """`analytics_sdk_tools` is somebody else's, and so is `httpx` in a thread of the program."""
    client = listen()
    handler = logging.getLogger("shop.orders").handlers[-1]
    for name in ("analytics_sdk_tools", "httpx"):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.error("failed")
        logger.removeHandler(handler)

    loggers = [event["properties"]["logger"] for event in events(client)]
    assert loggers == ["analytics_sdk_tools", "httpx"]


def test_no_lock_is_held_while_an_event_is_tracked(logger, make_client, events):
    """A hook may wait for a thread that logs: with the lock of a handler both would for ever."""
    asked, has_logged = threading.Event(), threading.Event()

    def user_id():
        asked.set()
        return "u-1" if has_logged.wait(5) else "u-waited-in-vain"

    def work():
        asked.wait(5)
        logger.error("in the other thread")
        has_logged.set()

    client = make_client()
    logger.addHandler(AnalyticsHandler(client=client))
    thread = threading.Thread(target=work)
    thread.start()
    with analytics_sdk.context(user_id=user_id):
        logger.error("failed")
    thread.join()

    users = {event["properties"]["message"]: event.get("userId") for event in events(client)}
    assert users == {"in the other thread": None, "failed": "u-1"}


# Mishaps


class Hostile(dict):
    def __str__(self):
        raise RuntimeError("str")

    def __iter__(self):
        raise RuntimeError("iter")

    keys = items = __iter__


@pytest.mark.parametrize("formatted", [True, False])
def test_hostile_records_raise_nothing(make_client, events, formatted):
    """The program only wanted to log."""
    client = make_client()
    handler = AnalyticsHandler(client=client, formatted=formatted)
    handler.handle(record_of(Hostile()))
    handler.handle(record_of("text %s", Hostile()))
    handler.handle(record_of("text", analytics=Hostile(a=1)))
    handler.handle(record_of("text", created="never", name=None, threadName=None))

    assert messages(events(client)) == ["Hostile", "text %s", "text", "text"]


def test_misuse_of_a_client_in_debug_goes_the_way_of_all_handlers(
    logger, listen, make_client, capsys
):
    """To `handleError()`, which tells of it on stderr; the program goes on."""
    client = listen(client=make_client(debug=True), event_name="x" * 256)
    logger.error("failed")

    assert "invalid_name" in capsys.readouterr().err
    assert client.stats().taken == 0


@pytest.mark.parametrize("formatted", [True, False])
def test_a_long_message_is_cut(logger, listen, events, formatted):
    """An event has room for 100 KiB, and a log for anything."""
    client = listen(formatted=formatted)
    logger.error("x" * 200_000)
    logger.error("%s", "y" * 200_000)

    lengths = [len(message) for message in messages(events(client))]
    assert lengths == [MAX_MESSAGE_CHARS, MAX_MESSAGE_CHARS if formatted else 2]


# The limit


def test_one_message_does_not_flood(logger, listen, events):
    """The others of the interval are counted, and the next event tells how many there were."""
    client = listen(max_per_interval=3, interval_s=3600)
    for number in range(10):
        logger.error("order %s failed", number)
    logger.error("another")
    # However long that took, it is an hour later now.
    logger.handlers[-1]._limit._clock = lambda: monotonic() + 3600
    logger.error("order %s failed", 11)
    logger.error("order %s failed", 12)

    facts = [event["properties"] for event in events(client)]
    assert [fact["message"] for fact in facts].count("order %s failed") == 5
    assert [fact.get("suppressed") for fact in facts] == [None, None, None, None, 7, None]


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def test_the_interval_begins_with_its_first_record():
    """Nothing passes before it is over, and all of the next one after."""
    clock = Clock()
    limit = Limit(2, 60, clock)

    assert [limit.admit("a") for _ in range(4)] == [0, 0, None, None]
    clock.now += 59.9
    assert limit.admit("a") is None
    clock.now += 0.2
    assert [limit.admit("a") for _ in range(3)] == [3, 0, None]


def test_messages_that_all_differ_are_limited_together():
    """What is logged with f-strings costs bounded memory and a bounded number of events."""
    clock = Clock()
    limit = Limit(5, 60, clock)
    admitted = [limit.admit(f"order {number} failed") for number in range(10 * MAX_TEMPLATES)]

    assert len([count for count in admitted if count is not None]) == MAX_TEMPLATES + 5
    clock.now += 61
    told = sum(limit.admit(f"user {number} failed") or 0 for number in range(MAX_TEMPLATES + 1))
    assert told == 9 * MAX_TEMPLATES - 5


def test_a_limit_never_keeps_more_than_so_many_messages():
    """Not even of many intervals in which each was suppressed."""
    clock = Clock()
    limit = Limit(0, 60, clock)
    for number in range(5 * MAX_TEMPLATES):
        clock.now += 61
        limit.admit(f"order {number} failed")

    assert len(limit._suppressed) <= MAX_TEMPLATES + 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork()")
def test_a_child_that_is_forked_in_the_middle_of_a_record_can_log(run_program, collector):
    """The thread that held the lock is not in the child."""
    result = run_program("""
        import logging
        from analytics_sdk.integrations.logging import AnalyticsHandler

        handler = AnalyticsHandler()
        logging.getLogger().addHandler(handler)
        holding, done = threading.Event(), threading.Event()

        def hold():
            with handler._limit._lock:
                holding.set()
                done.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        holding.wait()
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            logging.getLogger().error("in the child")
            os._exit(0 if analytics.flush(30) else 1)
        done.set()
        thread.join()
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """)

    assert result.returncode == 0, result.stderr
    assert messages(collector.stored) == ["in the child"]


def test_the_example_runs(collector, tmp_path):
    """As a user would run it."""
    result = subprocess.run(
        [sys.executable, EXAMPLES / "logging_events.py"],
        env={
            **os.environ,
            "ANALYTICS_API_URL": collector.url,
            "ANALYTICS_API_KEY": "ak_live_test0SECRET",
            "ANALYTICS_SPOOL_DIR": str(tmp_path),
        },
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert result.returncode == 0, result.stderr
    assert messages(collector.stored) == ["Card of order %s was declined", "Receipt not printed"]
    assert [event["properties"].get("errorType") for event in collector.stored] == [
        None,
        "ZeroDivisionError",
    ]
    assert {event["userId"] for event in collector.stored} == {"u-1"}
