from pathlib import Path

import pytest

from analytics_sdk import _limits, config
from analytics_sdk.errors import ConfigError
from analytics_sdk.scrub import Scrubber

GIVEN = {"api_key": "ak_live_1", "api_url": "http://127.0.0.1:8000/"}


def test_defaults_are_those_of_the_spec():
    """The README's table and the wire's numbers are the same."""
    settings = config.load(GIVEN, {})

    assert settings.batch_size == _limits.BATCH_SIZE == 10
    assert settings.flush_interval_s == _limits.FLUSH_INTERVAL_S == 5
    assert settings.max_queue_size == _limits.MAX_QUEUE_EVENTS == 10_000
    assert settings.timeout_s == _limits.REQUEST_TIMEOUT_S
    assert settings.shutdown_timeout_s == _limits.SHUTDOWN_TIMEOUT_S == 2
    assert settings.spool_max_bytes == _limits.MAX_SPOOL_BYTES
    assert (settings.sample_rate, settings.enabled, settings.debug) == (1, True, False)
    assert (settings.durable, settings.spool_dir) == (False, None)
    assert (settings.remember_identity, settings.handle_sigterm) == (False, False)
    assert (settings.super_properties, bool(settings.scrubber)) == ({}, False)
    assert settings.api_url == "http://127.0.0.1:8000"


def test_the_environment_fills_what_is_not_given():
    """Every setting but the hooks has its variable."""
    environ = {
        "ANALYTICS_API_KEY": "ak_live_2",
        "ANALYTICS_API_URL": "https://collector.example/a",
        "ANALYTICS_BATCH_SIZE": "25",
        "ANALYTICS_FLUSH_INTERVAL_S": "0.5",
        "ANALYTICS_MAX_QUEUE_SIZE": "77",
        "ANALYTICS_TIMEOUT_S": "3",
        "ANALYTICS_SHUTDOWN_TIMEOUT_S": "0",
        "ANALYTICS_SAMPLE_RATE": "0.5",
        "ANALYTICS_DURABLE": "fsync",
        "ANALYTICS_SPOOL_DIR": "/var/spool/analytics",
        "ANALYTICS_SPOOL_MAX_BYTES": "1000",
        "ANALYTICS_REMEMBER_IDENTITY": "yes",
        "ANALYTICS_HANDLE_SIGTERM": "on",
        "ANALYTICS_ALLOW_PROPERTIES": "plan, amount",
        "ANALYTICS_DENY_PROPERTIES": "e-mail",
        "ANALYTICS_ALLOW_KEYS": "plan,amount , STRASSE",
        "ANALYTICS_DENY_KEYS": "Password",
        "ANALYTICS_ENABLED": "No",
        "ANALYTICS_DEBUG": "1",
    }

    assert config.load({}, environ) == config.Config(
        api_key="ak_live_2",
        api_url="https://collector.example/a",
        batch_size=25,
        flush_interval_s=0.5,
        max_queue_size=77,
        timeout_s=3,
        shutdown_timeout_s=0,
        sample_rate=0.5,
        durable="fsync",
        spool_dir=Path("/var/spool/analytics"),
        spool_max_bytes=1000,
        remember_identity=True,
        handle_sigterm=True,
        scrubber=Scrubber(
            allow_properties=frozenset({"plan", "amount"}),
            deny_properties=frozenset({"e-mail"}),
            allow_keys=frozenset({"plan", "amount", "strasse"}),
            deny_keys=frozenset({"password"}),
        ),
        enabled=False,
        debug=True,
    )


def test_what_is_given_wins():
    """Even if it is the default, zero or False."""
    environ = {"ANALYTICS_BATCH_SIZE": "25", "ANALYTICS_SAMPLE_RATE": "1", "ANALYTICS_ENABLED": "1"}
    settings = config.load({**GIVEN, "batch_size": 10, "sample_rate": 0, "enabled": False}, environ)

    assert (settings.batch_size, settings.sample_rate, settings.enabled) == (10, 0, False)


def test_the_newer_settings_win_too(tmp_path):
    """Over the environment, one by one."""
    environ = {
        "ANALYTICS_DURABLE": "fsync",
        "ANALYTICS_SPOOL_DIR": "/elsewhere",
        "ANALYTICS_SPOOL_MAX_BYTES": "1",
        "ANALYTICS_REMEMBER_IDENTITY": "1",
        "ANALYTICS_HANDLE_SIGTERM": "1",
        "ANALYTICS_DENY_KEYS": "a",
    }
    given = {
        "durable": False,
        "spool_dir": tmp_path,
        "spool_max_bytes": 0,
        "remember_identity": False,
        "handle_sigterm": False,
        "deny_keys": [],
        "super_properties": {"app": "shop"},
    }
    settings = config.load({**GIVEN, **given}, environ)

    assert (settings.durable, settings.spool_dir) == (False, tmp_path)
    assert settings.spool_max_bytes == 0
    assert (settings.remember_identity, settings.handle_sigterm) == (False, False)
    assert settings.scrubber == Scrubber()
    assert settings.super_properties == {"app": "shop"}


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        (True, True),
        ("fsync", "fsync"),
        ("on", True),
        ("False", False),
        (False, False),
    ],
)
def test_durable_has_three_values(value, meant):
    """From a variable too."""
    assert config.load({**GIVEN, "durable": value}, {}).durable == meant
    assert config.load(GIVEN, {"ANALYTICS_DURABLE": str(value)}).durable == meant


@pytest.mark.parametrize("names", [["A", "b"], ("A", "b"), {"A", "b"}, {"A": 1, "b": 2}, "A, b"])
def test_a_list_of_names_may_be_any_collection(names):
    """Or a text with commas, as variables are."""
    scrubber = config.load({**GIVEN, "deny_keys": names}, {}).scrubber

    assert scrubber.deny_keys == {"a", "b"}


def test_an_allow_list_of_nothing_is_not_none():
    """It allows nothing; in the environment it can't be said."""
    given = {**GIVEN, "allow_properties": []}

    assert config.load(given, {}).scrubber.allow_properties == frozenset()
    assert config.load(GIVEN, {"ANALYTICS_ALLOW_PROPERTIES": ""}).scrubber.allow_properties is None


def test_an_empty_variable_is_not_set():
    """As shells and compose files leave them."""
    assert config.load(GIVEN, {"ANALYTICS_BATCH_SIZE": "", "ANALYTICS_DEBUG": ""}).batch_size == 10


def test_every_mistake_is_told_at_once():
    """One start, one list; not one start for each."""
    wrong = {
        "api_key": "ak live",
        "api_url": "127.0.0.1:8000",
        "batch_size": 0,
        "flush_interval_s": "soon",
        "timeout_s": float("nan"),
        "sample_rate": 2,
        "spool_max_bytes": -1,
        "enabled": "maybe",
        "debug": 7,
        "remember_identity": [],
        "handle_sigterm": "x",
        "durable": "sometimes",
        "spool_dir": 7,
        "super_properties": ["a"],
        "allow_properties": 7,
        "deny_properties": [7],
        "allow_keys": iter("a"),
        "deny_keys": b"a",
        "before_send": "mask",
        "on_error": 7,
    }
    with pytest.raises(ConfigError) as caught:
        config.load(wrong, {})

    assert [mistake.split()[0] for mistake in sorted(caught.value.mistakes)] == sorted(wrong)
    assert str(caught.value) == " ".join(caught.value.mistakes)
    assert "ak live" not in str(caught.value)


def test_every_mistake_in_the_environment_is_told_at_once():
    """Named as the setting is, without what stands there: it may be a key in the wrong place."""
    names = [*config.NUMBERS, *config.SWITCHES, "durable", "api_url", "api_key"]
    with pytest.raises(ConfigError) as caught:
        config.load({}, {f"ANALYTICS_{name.upper()}": "ak_live_1 SECRET" for name in names})

    assert {mistake.split()[0] for mistake in caught.value.mistakes} == set(names)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("value", [7, b"/tmp", "a\0b", []], ids=repr)
def test_a_spool_directory_is_a_path(value):
    """Which no NUL can be in."""
    with pytest.raises(ConfigError, match="spool_dir must be the path of a directory"):
        config.load({**GIVEN, "spool_dir": value}, {})


@pytest.mark.parametrize(
    "value",
    [501, 2.5, True, "ten", [], float("inf"), 10**400, object()],
    ids=lambda value: type(value).__name__,
)
def test_a_batch_size_is_a_whole_number_within_the_wire(value):
    """2.5 is a mistake, not 2."""
    with pytest.raises(ConfigError, match="batch_size must be a whole number from 1 to 500"):
        config.load({**GIVEN, "batch_size": value}, {})


@pytest.mark.parametrize(
    "value",
    [
        "",
        "ftp://host",
        "http://",
        "http://user:secret@host",
        "http://host?key=1",
        "http://ho st",
        "http://host:99999",
        "http://[::1",
        7,
    ],
)
def test_an_url_is_an_address_and_nothing_more(value):
    """A password in it would show in logs; the message does not repeat it."""
    with pytest.raises(ConfigError, match="api_url") as caught:
        config.load({**GIVEN, "api_url": value}, {})

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("value", ["", "a b", "a\nb", "ключ", 7, "ak_live_1\n"])
def test_a_key_is_one_word(value):
    """A pasted line end would split the header."""
    with pytest.raises(ConfigError, match="api_key"):
        config.load({**GIVEN, "api_key": value}, {})


def test_a_client_that_is_switched_off_needs_no_key():
    """Tests and laptops."""
    assert config.load({"enabled": False}, {}).api_key == ""


def test_the_key_does_not_show():
    """Settings get printed."""
    assert "ak_live_1" not in repr(config.load(GIVEN, {}))
