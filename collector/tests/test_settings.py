"""Settings: read once, all mistakes told at once, secrets kept out of sight."""

from __future__ import annotations

from pathlib import Path

import pytest

from analytics_collector.errors import ConfigurationError
from analytics_collector.settings import read_settings

GOOD = {
    "ANALYTICS_DATABASE_URL": "postgresql://u:sesame@db/analytics",
    "ANALYTICS_REDIS_URL": "redis://:sesame@cache/0",
    "ANALYTICS_SECRET": "sesame-open-sesame",
}


def mistakes(environ: dict[str, str]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read_settings(environ)
    return str(caught.value)


def test_three_settings_are_enough():
    """Everything but the two databases and the secret has a default."""
    settings = read_settings(GOOD)

    assert settings.database_url == GOOD["ANALYTICS_DATABASE_URL"]
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)


def test_all_mistakes_are_told_at_once():
    """Nobody has to start a server five times to learn of five mistakes."""
    told = mistakes(
        {
            "ANALYTICS_SECRET": "short",
            "ANALYTICS_PORT": "70000",
            "ANALYTICS_LOG_LEVEL": "LOUD",
            "ANALYTICS_COMMIT_TIMEOUT_S": "0",
            "ANALYTICS_DATABASE_POOL_SIZE": "many",
            "ANALYTICS_ACK": "maybe",
        }
    )

    for name in ("DATABASE_URL", "REDIS_URL", "SECRET", "PORT", "LOG_LEVEL"):
        assert f"ANALYTICS_{name}" in told
    assert "ANALYTICS_COMMIT_TIMEOUT_S must be greater than 0" in told
    assert "ANALYTICS_DATABASE_POOL_SIZE" in told
    assert "ANALYTICS_ACK must be postgres or spool" in told


def test_a_secret_is_never_told():
    """Neither what is shown of the settings nor a mistake in one repeats what is secret."""
    assert "sesame" not in repr(read_settings(GOOD))
    assert "sesame" not in mistakes({**GOOD, "ANALYTICS_SECRET": "sesame", "ANALYTICS_PORT": "x"})


def test_the_urls_are_read_under_their_plain_names_too():
    """Hosting platforms set DATABASE_URL and REDIS_URL; our own name wins."""
    plain = {
        "DATABASE_URL": "postgres://plain",
        "REDIS_URL": "redis://plain",
        "ANALYTICS_SECRET": "x" * 16,
    }

    assert read_settings(plain).database_url == "postgres://plain"
    assert read_settings(plain).redis_url == "redis://plain"
    both = read_settings({**plain, "ANALYTICS_DATABASE_URL": "postgresql://ours"})
    assert both.database_url == "postgresql://ours"


def test_no_other_setting_has_a_plain_name():
    """PORT, HOST or SECRET of the surroundings change nothing."""
    settings = read_settings({**GOOD, "PORT": "1", "HOST": "elsewhere", "SECRET": "y" * 20})

    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert settings.secret == GOOD["ANALYTICS_SECRET"]


def test_what_the_command_line_gives_wins():
    """An option is nearer than the environment; one that was not given does not count."""
    settings = read_settings(
        {**GOOD, "ANALYTICS_PORT": "1", "ANALYTICS_HOST": "h"}, port=2, host=None
    )

    assert (settings.port, settings.host) == (2, "h")


def test_an_empty_variable_is_none():
    """`ANALYTICS_PORT=` in a file of settings means the default, and an empty secret is none."""
    assert read_settings({**GOOD, "ANALYTICS_PORT": ""}).port == 8000
    assert "ANALYTICS_SECRET is not set" in mistakes({**GOOD, "ANALYTICS_SECRET": ""})


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("PORT", "0", 0),
        ("LOG_LEVEL", "debug", "DEBUG"),
        ("DATA_DIR", "/data", Path("/data")),
        ("RATE_LIMIT_REQUESTS_PER_MINUTE", "60", 60),
        ("RATE_LIMIT_PROJECT_REQUESTS_PER_MINUTE", "60", 60),
        ("TRUSTED_PROXIES", "0", 0),
        ("COMMIT_TIMEOUT_S", "0.5", 0.5),
    ],
)
def test_a_setting_has_its_type(variable, text, value):
    """What is text in the environment is a number, a path, a level here."""
    assert (
        getattr(read_settings({**GOOD, f"ANALYTICS_{variable}": text}), variable.lower()) == value
    )


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("PORT", "-1"),
        ("PORT", "http"),
        ("RATE_LIMIT_PER_MINUTE", "0"),
        ("RATE_LIMIT_PER_MINUTE", "1.5"),
        ("RATE_LIMIT_PROJECT_REQUESTS_PER_MINUTE", "0"),
        ("RATE_LIMIT_EVENTS_PER_MINUTE", "0"),
        ("TRUSTED_PROXIES", "-1"),
        ("COMMIT_TIMEOUT_S", "nan"),
        ("COMMIT_TIMEOUT_S", "inf"),
        ("SHUTDOWN_TIMEOUT_S", "-3"),
        ("SECRET", "x" * 15),
    ],
)
def test_a_value_out_of_range_is_refused_at_the_start(variable, text):
    """A mistake shows when the server starts, not when it first matters."""
    assert f"ANALYTICS_{variable}" in mistakes({**GOOD, f"ANALYTICS_{variable}": text})


def test_the_limit_of_requests_is_also_known_by_its_former_name():
    """An installation that is upgraded keeps its limit."""
    former = {**GOOD, "ANALYTICS_RATE_LIMIT_PER_MINUTE": "7"}

    assert read_settings(former).rate_limit_requests_per_minute == 7
    both = {**former, "ANALYTICS_RATE_LIMIT_REQUESTS_PER_MINUTE": "8"}
    assert read_settings(both).rate_limit_requests_per_minute == 8


def test_a_secret_may_stand_in_a_file(tmp_path):
    """As orchestrators hand them out; what the environment itself says wins."""
    for name, value in GOOD.items():
        (tmp_path / name).write_text(f"{value}\n")
    files = {f"{name}_FILE": str(tmp_path / name) for name in GOOD}

    settings = read_settings(files)

    assert (settings.database_url, settings.redis_url, settings.secret) == tuple(GOOD.values())
    assert read_settings(files | {"ANALYTICS_SECRET": "x" * 20}).secret == "x" * 20


def test_a_file_that_is_not_there_is_a_mistake(tmp_path):
    """It is told by the variable and the path, and nothing of the file's content ever."""
    (tmp_path / "short").write_text("sesame")
    missing = {**GOOD, "ANALYTICS_SECRET": "", "ANALYTICS_SECRET_FILE": str(tmp_path / "none")}

    assert f"ANALYTICS_SECRET_FILE: {tmp_path / 'none'} can't be read" in mistakes(missing)
    short = missing | {"ANALYTICS_SECRET_FILE": str(tmp_path / "short")}
    assert "sesame" not in mistakes(short)
