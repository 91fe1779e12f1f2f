import logging

import pytest

from analytics_sdk.logs import QuietLogger

SECRETS = ("SECRET", "geheim@example.org", "tracked-name", "user-4711")


@pytest.fixture
def listener(sdk_log):
    return sdk_log


def test_a_reason_is_logged_once_a_minute(listener):
    """With how many were left out, and each reason on its own."""
    now = [100.0]
    quiet = QuietLogger("analytics_sdk.test", clock=lambda: now[0])
    for _ in range(30_000):
        quiet.warning("full", "The queue is full")
    quiet.warning("other", "Something else")
    now[0] += 60
    quiet.warning("full", "The queue is full")

    lines = [(record.reason, record.suppressed) for record in listener.records]
    assert lines == [("full", 0), ("other", 0), ("full", 29_999)]


def test_a_handler_that_tracks_does_not_go_round(make_client, listener):
    """An error handler that sends analytics is not absurd."""
    client = make_client()

    class Tracking(logging.Handler):
        def emit(self, record):
            client.track("")

    handler = Tracking()
    logging.getLogger("analytics_sdk").addHandler(handler)
    try:
        client.track("")
    finally:
        logging.getLogger("analytics_sdk").removeHandler(handler)

    assert client.stats().refused == {"missing_name": 2}


@pytest.mark.parametrize("fault", ["500", "400", "401", "413", "reset", "rejected"])
def test_no_log_has_a_key_or_a_value(make_client, collector, reply, caplog, fault):
    """At any level, of any library that we use, whatever goes wrong."""
    caplog.set_level(logging.DEBUG)
    faults = {"reset": reply.reset, "rejected": reply.accept(0)}
    collector.script(faults.get(fault) or reply.status(int(fault)))
    client = make_client(on_error=lambda error: 1 / 0)
    properties = {"email": "geheim@example.org", "odd": object(), "large": "x" * 40_000}
    client.track("tracked-name", properties, user_id="user-4711")
    client.track("tracked-name", {"email": "geheim@example.org", "large": "x" * 200_000})
    client.identify(None, {"email": "geheim@example.org"})
    deep = {"email": "geheim@example.org"}
    for _ in range(10_000):
        deep = {"in": deep}
    client.track("tracked-name", deep)
    client.flush(1)
    client.shutdown(1)

    assert caplog.records
    for record in caplog.records:
        shown = record.getMessage() + repr(vars(record)) + (record.exc_text or "")
        assert not [secret for secret in SECRETS if secret in shown]


def test_a_large_event_is_warned_of(make_client, listener):
    """It goes, but somebody should know."""
    client = make_client()
    for _ in range(3):
        assert client.track("large", {"text": "x" * 33_000})

    assert listener.reasons() == ["large_event"]


def test_a_storm_of_refusals_is_few_lines(make_client, listener):
    """30,000 events that find no room."""
    client = make_client(max_queue_size=1, flush_interval_s=3600, spool_max_bytes=0)
    for _ in range(30_000):
        client.track("a")

    assert client.stats().refused["queue_full"] > 20_000
    assert len(listener.records) <= 3


def test_the_program_keeps_its_logging(run_program):
    """No handler, no level, no line on stderr that it did not ask for."""
    program = run_program("""
        import logging
        analytics.init()
        analytics.track("a")
        analytics.flush()
        root, ours = logging.getLogger(), logging.getLogger("analytics_sdk")
        print(root.handlers, ours.handlers, root.level == logging.WARNING, ours.level)
    """)

    assert program.stdout.strip() == "[] [] True 0"
    assert program.stderr == ""


def test_a_filter_that_raises_does_not_reach_who_tracks(make_client, swallowed_errors):
    """Whatever the program has hung into its logging."""

    class Raising(logging.Filter):
        def filter(self, record):
            raise RuntimeError

    logger = logging.getLogger("analytics_sdk.capture")
    raising = Raising()
    logger.addFilter(raising)
    try:
        assert make_client().track("") is False
    finally:
        logger.removeFilter(raising)
