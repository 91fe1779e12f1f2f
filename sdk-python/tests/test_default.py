"""The functions of the module and their one client."""

import pytest

from analytics_sdk import ConfigError

KEY = "ak_live_test0SECRET"


def test_after_init_the_functions_track(analytics, collector):
    """Three lines, as in the README."""
    analytics.init(KEY, collector.url)
    assert analytics.track("a", user_id=1)
    assert analytics.identify(1)
    assert analytics.page()
    assert analytics.screen()
    assert analytics.group("g")
    assert analytics.alias("old", "new")

    assert analytics.flush()
    assert [event["type"] for event in collector.stored] == [
        *("track", "identify", "page", "screen", "group", "alias"),
    ]
    assert analytics.stats().delivered == 6
    assert analytics.shutdown()
    assert analytics.track("b") is False


def test_before_init_nothing_is_tracked_and_one_line_says_what_to_do(analytics, sdk_log):
    """Every False is counted all the same."""
    for _ in range(3):
        assert analytics.track("a") is False

    assert analytics.flush()
    assert analytics.shutdown()
    assert analytics.stats().refused == {"not_initialised": 3}
    [record] = sdk_log.records
    assert "analytics_sdk.init(" in record.getMessage()


def test_the_environment_is_enough(analytics, collector, monkeypatch):
    """A program need not call init()."""
    monkeypatch.setenv("ANALYTICS_API_KEY", KEY)
    monkeypatch.setenv("ANALYTICS_API_URL", collector.url)

    assert analytics.track("a")
    assert analytics.flush()
    assert collector.names == ["a"]


def test_a_wrong_environment_is_told_and_does_not_raise(analytics, monkeypatch, sdk_log):
    """track() never raises, so the log has to say it."""
    monkeypatch.setenv("ANALYTICS_API_KEY", KEY)
    monkeypatch.setenv("ANALYTICS_API_URL", "nowhere")

    assert analytics.track("a") is False
    assert sdk_log.reasons() == ["bad_environment", "not_initialised"]
    assert "api_url" in sdk_log.records[0].getMessage()


def test_a_wrong_init_raises(analytics):
    """At the start of a program a mistake should be seen."""
    with pytest.raises(ConfigError, match=r"batch_size.*api_key"):
        analytics.init(None, "http://127.0.0.1", batch_size=0)


def test_a_second_init_delivers_what_the_first_has(analytics, collector):
    """Nothing is left behind."""
    first = analytics.init(KEY, collector.url)
    analytics.track("first")
    analytics.init(KEY, collector.url)
    assert collector.names == ["first"]
    assert first.track("late") is False

    assert analytics.track("second")
    assert analytics.flush()
    assert collector.names == ["first", "second"]


def test_a_second_init_does_not_wait_long(analytics, collector, reply):
    """A collector that hangs does not keep it."""
    collector.always(reply.hang)
    first = analytics.init(KEY, collector.url, shutdown_timeout_s=0.2)
    analytics.track("first")
    analytics.init(KEY, collector.url)

    assert first.stats().spooled == 1
