"""The fixture `analytics_events`, in a pytest of its own, found as an installed plugin is."""

import os
import sys
from pathlib import Path

import pytest

import analytics_sdk

pytest_plugins = ["pytester"]

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def run_tests(pytester, monkeypatch):
    """Run a test file with warnings as errors, in a process of its own."""
    for name in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS", "PYTEST_DISABLE_PLUGIN_AUTOLOAD"):
        monkeypatch.delenv(name, raising=False)
    # Plugins that our own tests happen to bring, one of which wants a client that we don't use.
    names = ("valkey", "randomly", "respx", "anyio", "schemathesis")
    others = " ".join(f"-p no:{name}" for name in names)
    ini = f"[pytest]\nfilterwarnings = error\naddopts = --strict-config {others}\n"

    def run(source, *arguments, **files):
        pytester.makeini(ini)
        pytester.makepyfile(source, **files)
        return pytester.runpytest_subprocess(*arguments)

    return run


def test_a_test_gets_its_events(run_tests):
    """Without an import or a setting, with nothing sent; each test its own, coroutines too."""
    result = run_tests(
        """
        import asyncio
        import analytics_sdk as analytics

        def test_one(analytics_events):
            analytics.track("bought", {"total": 42}, user_id="u-1")

            analytics_events.assert_tracked("bought", {"total": 42}, user_id="u-1", times=1)

        def test_two(analytics_events):
            analytics_events.assert_nothing_tracked()
            analytics.track("a")

        async def buy(number):
            await asyncio.sleep(0)
            analytics.track("bought", {"number": number})

        async def buy_all():
            await asyncio.gather(*map(buy, range(3)))

        def test_async(analytics_events):
            asyncio.run(buy_all())
            analytics_events.assert_tracked("bought", times=3)

        def test_without():
            assert analytics.track("a") is False
        """
    )

    result.assert_outcomes(passed=4)


def test_a_claim_that_fails_is_readable(run_tests):
    """The report shows the test's own line and the message, none of our code."""
    result = run_tests(
        """
        import analytics_sdk as analytics

        def test_checkout(analytics_events):
            analytics.track("bought", {"orderId": "o-1", "total": 41}, user_id="u-1")
            analytics_events.assert_tracked("bought", {"orderId": "o-1", "total": 42})
        """
    )

    result.assert_outcomes(failed=1)
    report = result.stdout.str().split("test_checkout _")[1].split("short test summary")[0]
    expected = [
        ">       analytics_events.assert_tracked('bought', {'orderId': 'o-1', 'total': 42})",
        "E       AssertionError: 'bought' was not tracked as wanted.",
        "E         wanted: {'properties': {'orderId': 'o-1', 'total': 42}}",
        "E         #1 track 'bought' of 'u-1' differs:",
        "E           properties.total: wanted 42, was 41",
        "E         recorded: 1 event: track 'bought'",
    ]
    told = [line for line in report.replace('"', "'").splitlines() if line.startswith(("E", ">"))]
    assert told == expected
    assert "recorder.py" not in report


def test_a_claim_of_nothing_is_as_readable(run_tests):
    """For those who test that something is not tracked."""
    result = run_tests(
        """
        import analytics_sdk as analytics

        def test_one(analytics_events):
            analytics.track("a", {"b": 1})
            analytics_events.assert_not_tracked("a")

        def test_all(analytics_events):
            analytics.track("a", {"c": 2})
            analytics_events.assert_nothing_tracked()
        """
    )

    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines([">*assert_not_tracked(*", "E*#1 track 'a': {'b': 1}"])
    result.stdout.fnmatch_lines([">*assert_nothing_tracked(*", "E*#1 track 'a': {'c': 2}"])
    result.stdout.no_fnmatch_line("*recorder.py*")


def test_an_event_that_the_collector_would_refuse_is_an_error_of_its_test(run_tests):
    """Even when the test itself is content."""
    result = run_tests(
        """
        import analytics_sdk as analytics

        def test_wrong(analytics_events):
            assert analytics.track("a", context={"ip": 5})

        def test_misuse(analytics_events):
            analytics.track("")

        def test_right(analytics_events):
            analytics.track("a")
        """
    )

    result.assert_outcomes(passed=3, errors=2)
    result.stdout.fnmatch_lines(
        [
            "*ERROR at teardown of test_wrong*",
            "E*AssertionError: The collector would refuse:",
            "E*#1 track 'a': INVALID_CONTEXT at context.ip: 5 is not of types*",
            "*ERROR at teardown of test_misuse*",
            "E*AssertionError: 1 call returned False: missing_name. The log says why*",
            "*missing_name: the name must be a string of 1 to 255 characters*",
        ]
    )


def test_settings_come_from_a_fixture(run_tests):
    """A module, or a conftest for all, overrides it."""
    result = run_tests(
        """
        import analytics_sdk as analytics
        import pytest

        @pytest.fixture
        def analytics_settings():
            return {"super_properties": {"plan": "pro"}, "debug": True}

        def test_settings(analytics_events):
            analytics.track("a")
            analytics_events.assert_tracked("a", {"plan": "pro"})

        def test_misuse_raises_where_it_happens(analytics_events):
            with pytest.raises(analytics.MisuseError):
                analytics.track("")
        """
    )

    result.assert_outcomes(passed=2)


def test_an_unused_plugin_costs_nothing(run_tests):
    """No test framework of ours and no HTTP client is imported, and nothing warns."""
    result = run_tests(
        """
        import sys

        def test_modules():
            heavy = {"jsonschema_rs", "httpx", "tenacity", "analytics_sdk.testing", "numpy"}
            assert not heavy & set(sys.modules)
            assert "analytics_sdk.pytest_plugin" in sys.modules
        """
    )

    result.assert_outcomes(passed=1)
    assert "warning" not in result.stdout.str() + result.stderr.str()


def test_pytest_does_not_mind_a_package_that_is_imported_already():
    """A plugin's package would be warned of: too late to make its assertions tell more."""
    assert "PYTEST_DONT_REWRITE" in analytics_sdk.__doc__


def test_the_plugin_can_be_switched_off(run_tests):
    """By the name of the package."""
    result = run_tests("def test_it(analytics_events): pass", "-p", "no:analytics_sdk")

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*fixture 'analytics_events' not found*"])


def test_without_jsonschema_rs_the_fixture_says_what_to_install(run_tests):
    """And only tests that use it fail."""
    result = run_tests(
        """
        import sys
        sys.modules["jsonschema_rs"] = None

        def test_with(analytics_events): pass
        def test_without(): pass
        """
    )

    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["E*ImportError: *pip install jsonschema-rs*"])


def test_fixtures_are_described(run_tests):
    """`pytest --fixtures` is where people look."""
    result = run_tests("", "--fixtures")

    result.stdout.fnmatch_lines(
        [
            "analytics_settings*",
            "*Settings for the client of `analytics_events`*",
            "analytics_events*",
            "*Record the events of the test instead of sending them*",
        ]
    )


def test_the_example_passes(pytester, monkeypatch):
    """As a reader would run it, in its folder."""
    monkeypatch.chdir(EXAMPLES)
    ours = ("-p", "no:valkey", "-p", "no:cacheprovider", "--confcutdir=.", "-c", os.devnull)
    result = pytester.run(
        sys.executable, "-m", "pytest", "-W", "error", *ours, "test_checkout_example.py"
    )

    assert result.ret == 0
    assert result.parseoutcomes() == {"passed": 5}
