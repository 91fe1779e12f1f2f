"""The options of the web integrations, right and wrong."""

from dataclasses import fields

import pytest

from analytics_sdk import ConfigError
from analytics_sdk.integrations._options import (
    GivenOptions,
    Options,
    checked_options,
    split_settings,
)


@pytest.mark.parametrize(
    ("path", "is_ignored"),
    [
        ("/health", True),
        ("/health/live", True),
        ("/healthy", False),
        ("/static/a.css", True),
        ("/static", True),
        ("/", False),
    ],
)
def test_prefixes_are_ignored_by_whole_segments(path, is_ignored):
    """/health is not /healthy."""
    options = checked_options({"ignore": ["/health", "/static/"]})

    assert options.ignores(path, None) is is_ignored


def test_by_default_nothing_is_ignored():
    """What is noise, the project knows."""
    assert checked_options({}).ignores("/health", None) is False


def test_every_wrong_option_is_named_at_once():
    """At the start, in words that say what would be right."""

    async def hook(request):
        return None

    wrong = {
        "client": "ak_live_x",
        "operations": 1,
        "category": "CLICK",
        "user_id": hook,
        "route": "/a",
        "ignore": "/health",
        "failure_from_status": 200,
        "capture_ip": None,
        "capture_query": "yes",
        "trust_forwarded": -1,
        "user": None,
    }
    with pytest.raises(ConfigError) as caught:
        checked_options(wrong)

    assert len(caught.value.mistakes) == len(wrong)
    assert all(name in " ".join(caught.value.mistakes) for name in wrong)


@pytest.mark.parametrize("ignore", [["health"], [1], 5, None])
def test_what_can_not_be_ignored_is_refused(ignore):
    """A prefix begins with a slash."""
    with pytest.raises(ConfigError, match="ignore must be"):
        checked_options({"ignore": ignore})


def test_the_options_that_are_told_are_those_that_are_taken():
    """What an editor completes is what works."""
    taken = {field.name for field in fields(Options) if field.init}

    assert taken == set(GivenOptions.__annotations__)


def test_settings_of_a_framework_are_told_apart():
    """One dict for the client and for the integration."""
    settings = {"api_key": "k", "batch_size": 5, "capture_ip": False, "oops": 1}

    assert split_settings(settings) == (
        {"api_key": "k", "batch_size": 5},
        {"capture_ip": False, "oops": 1},
    )


@pytest.mark.parametrize("settings", [None, [], "k", {"client": object(), "api_key": "k"}])
def test_settings_that_can_not_be_meant_are_refused(settings):
    """A client is made, or given."""
    with pytest.raises(ConfigError):
        split_settings(settings)
