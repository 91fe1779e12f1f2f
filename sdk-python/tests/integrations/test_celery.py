"""The Celery integration, with real workers."""

import os
import signal
import subprocess
import sys
import textwrap
from datetime import datetime, timezone
from pathlib import Path
from time import monotonic

import pytest
from celery import Celery, chain, chord, group, signals
from celery.contrib.testing.worker import start_worker
from celery.exceptions import Ignore, Reject, Retry, WorkerLostError

from analytics_sdk import ConfigError
from analytics_sdk.context import Scope, context, current
from analytics_sdk.integrations.celery import HEADER, MAX_HEADER_BYTES, install, uninstall

EXAMPLES = Path(__file__).parents[2] / "examples"

app = Celery("shop", broker="memory://")
app.conf.update(
    broker_transport_options={"polling_interval": 0.01},
    result_chord_retry_interval=0.02,
    task_store_eager_result=False,
)


@app.task(name="shop.look")
def look():
    """Track one event from inside of the task, through whatever client the test uses."""
    TRACKERS[-1].track("looked")


@app.task(name="shop.fail")
def fail():
    raise KeyError("no such order")


@app.task(name="shop.retry", bind=True, max_retries=2, default_retry_delay=0)
def retry(self):
    raise self.retry(exc=ConnectionError("bank away"))


@app.task(name="shop.retry_once", bind=True, default_retry_delay=0)
def retry_once(self):
    if self.request.retries == 0:
        with context(session_id="s-2"):
            raise self.retry()


@app.task(name="shop.ignore")
def ignore():
    raise Ignore


@app.task(name="shop.reject")
def reject():
    raise Reject(ValueError("not an order"), requeue=False)


@app.task(name="shop.requeue", bind=True, acks_late=True)
def requeue(self, rejected=set()):  # noqa: B006 - kept on purpose
    if self.request.id not in rejected:
        rejected.add(self.request.id)
        raise Reject("later", requeue=True)


@app.task(name="shop.publish")
def publish():
    with context(properties={"step": 2}):
        look.delay()


@app.task(name="shop.run_in_place")
def run_in_place():
    with context(user_id="u-inner"):
        look.apply()
    TRACKERS[-1].track("after")


@app.task(name="shop.lose")
def lose():
    raise WorkerLostError("of a task that this one waited for")


TRACKERS = []


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The folder of the result backend, which makes Celery poll for the end of a chord."""
    folder = tmp_path_factory.mktemp("results")
    app.conf.result_backend = folder.as_uri()
    return folder


@pytest.fixture(scope="module")
def worker(results):
    """A worker in a thread of this process, for all tests: it takes seconds to stop."""
    with start_worker(app, pool="solo", perform_ping_check=False, loglevel="WARNING"):
        yield


@pytest.fixture
def client(make_client):
    """A client, installed; every event goes out at once."""
    client = make_client(batch_size=1)
    TRACKERS.append(client)
    install(client=client)
    yield client
    uninstall()
    TRACKERS.remove(client)


@pytest.fixture
def stored(collector, eventually):
    """Wait for so many events of that name, and return them."""

    def stored(name, count=1):
        found = lambda: [event for event in collector.stored if event["name"] == name]  # noqa: E731
        eventually(lambda: len(found()) >= count)
        assert len(found()) == count
        return found()

    return stored


@pytest.fixture
def published():
    """The headers of the messages that are published."""
    published = []

    def remember(headers, **_):
        published.append(headers)

    signals.after_task_publish.connect(remember)
    yield published
    signals.after_task_publish.disconnect(remember)


def identity(event):
    return event.get("userId"), event.get("anonymousId"), event.get("sessionId")


# Context


@pytest.mark.usefixtures("worker")
def test_what_may_not_be_tracked_does_not_go_to_the_broker(make_client, published):
    """Denied properties stay here, and all of it does for who has opted out."""
    client = make_client(batch_size=1, deny_keys=["email"])
    TRACKERS.append(client)
    install(client=client)
    with context(user_id="u-1", properties={"email": "ada@example.com", "plan": "pro"}):
        look.delay()
        client.opt_out()
        look.delay()
    uninstall()
    TRACKERS.remove(client)

    first, second = published
    assert "pro" in first[HEADER]
    assert "ada@example.com" not in first[HEADER]
    assert HEADER not in second


@pytest.mark.usefixtures("worker", "client")
def test_a_task_runs_in_the_context_in_which_it_was_published(stored, published):
    """Ids, properties, request id and trace id arrive; what else a context holds stays behind."""
    with context(
        user_id="u-1",
        anonymous_id="a-1",
        session_id="s-1",
        properties={"plan": "pro"},
        context={"requestId": "r-1", "traceId": "t-1", "ip": "203.0.113.7", "userAgent": "Moz"},
    ):
        look.delay()

    for event in (*stored("looked"), *stored("shop.look")):
        assert identity(event) == ("u-1", "a-1", "s-1")
        assert event["properties"]["plan"] == "pro"
        assert (event["context"]["requestId"], event["context"]["traceId"]) == ("r-1", "t-1")
        assert not {"ip", "userAgent"} & set(event["context"])
    assert "203.0.113.7" not in published[0][HEADER]


@pytest.mark.usefixtures("worker", "client")
def test_a_task_without_context_has_none_after_one_that_had(stored):
    """Nothing stays behind in the worker's thread."""
    with context(user_id="u-1"):
        look.delay()
    stored("looked")
    look.delay()

    assert [identity(event)[0] for event in stored("looked", 2)] == ["u-1", None]
    assert [identity(event)[0] for event in stored("shop.look", 2)] == ["u-1", None]


@pytest.mark.usefixtures("worker", "client")
def test_a_context_of_the_workers_thread_is_not_its_tasks(stored):
    """Whoever started the worker, or ran in its thread before, may have left one there."""
    scope = Scope(None)
    scope.user_id = "u-of-nobody-here"
    scopes = [scope, None]

    def leave(**_):
        current.set(scopes.pop(0))

    signals.task_received.connect(leave)
    look.delay()
    look.delay()
    events = stored("looked", 2)
    signals.task_received.disconnect(leave)

    assert [identity(event)[0] for event in events] == [None, None]


@pytest.mark.usefixtures("worker", "client")
def test_a_lazy_user_id_is_asked_for_when_the_task_is_published(stored):
    """The worker could not ask; and one that raises costs the id, not the task."""
    with context(user_id=lambda: 17):
        look.delay()
    with context(user_id=lambda: 1 / 0, session_id="s-1"):
        look.delay()

    assert [identity(event) for event in stored("looked", 2)] == [
        ("17", None, None),
        (None, None, "s-1"),
    ]


@pytest.mark.usefixtures("worker", "client")
def test_a_chain_a_group_and_a_chord_hand_the_context_on(stored):
    """All of their tasks run inside it, those included that a worker publishes."""
    with context(user_id="u-1"):
        chain(look.si(), look.si())()
        group(look.si(), look.si())()
        chord([look.si(), look.si()])(look.si())
        look.apply_async(link=look.si())

    assert {identity(event)[0] for event in stored("looked", 9)} == {"u-1"}


@pytest.mark.usefixtures("worker", "client")
def test_a_task_that_publishes_adds_to_the_context(stored):
    """The context at the place of the call counts, as everywhere."""
    with context(user_id="u-1", properties={"step": 1, "plan": "pro"}):
        publish.delay()

    (event,) = stored("looked")
    assert identity(event)[0] == "u-1"
    assert event["properties"] == {"step": 2, "plan": "pro"}


@pytest.mark.usefixtures("worker", "client")
def test_properties_arrive_as_json(stored):
    """Whatever a context may hold, a header is text."""

    class Opaque:
        def __str__(self):
            raise RuntimeError

    with context(
        properties={
            "at": datetime(2026, 11, 20, tzinfo=timezone.utc),
            "set": {1},
            "opaque": Opaque(),
            "name": "Zoë \ud800",
        }
    ):
        look.delay()

    assert stored("looked")[0]["properties"] == {
        "at": "2026-11-20T00:00:00Z",
        "set": [1],
        "opaque": None,
        "name": "Zoë \ufffd",
    }


@pytest.mark.usefixtures("worker", "client")
def test_a_mistaken_context_costs_only_what_is_mistaken(stored):
    """A task is published and runs, with what was right."""
    with context(user_id=["u-1"], session_id="s-1", properties=7, context="garbage"):
        look.delay()

    (event,) = stored("looked")
    assert identity(event) == (None, None, "s-1")


@pytest.mark.usefixtures("worker", "client")
def test_properties_that_are_too_large_stay_behind_and_ids_do_not(stored, sdk_log):
    """A header is bounded, and its loss is told."""
    for size in (MAX_HEADER_BYTES, 200_000):
        with context(user_id="u-1", properties={"text": "x" * size}):
            look.delay()

    for event in stored("looked", 2):
        assert identity(event)[0] == "u-1"
        assert "properties" not in event
    assert sdk_log.reasons() == ["large_context"]


@pytest.mark.parametrize(
    "header",
    [
        "",
        "garbage",
        "[]",
        '{"v":2,"userId":"u-1"}',
        '{"userId":"u-1"}',
        '{"v":1,"userId":{"$ne":1},"sessionId":"","properties":[1],"context":[]}',
        '{"v":1,"userId":7,"context":{"traceId":7,"requestId":""},"properties":null}',
        '{"v":1,"userId":"' + "u" * 256 + '"}',
        '{"v":1,"userId":"u-1","properties":{"text":"' + "x" * MAX_HEADER_BYTES + '"}}',
        "[" * 8000,
        7,
        {"v": 1, "userId": "u-1"},
        None,
    ],
    ids=lambda header: str(header)[:30],
)
@pytest.mark.usefixtures("worker", "client")
def test_a_header_that_is_not_ours_says_nothing(stored, header):
    """Garbage, other types and other versions: the task runs as one without context."""
    look.apply_async(headers={HEADER: header})

    assert stored("shop.look")[0]["properties"]["status"] == "SUCCESS"
    (event,) = stored("looked")
    assert identity(event) == (None, None, None)
    assert "properties" not in event


@pytest.mark.usefixtures("worker", "client")
def test_headers_of_others_stay_as_they_are(stored, client):
    """Tasks see the headers that their callers gave."""
    seen = []

    def remember(task, **_):
        seen.append(task.request.get("baggage"))

    signals.task_prerun.connect(remember)
    with context(user_id="u-1"):
        look.apply_async(headers={"baggage": "a=1"})
    stored("looked")
    signals.task_prerun.disconnect(remember)

    assert seen == ["a=1"]


# Operations


@pytest.mark.usefixtures("worker", "client")
def test_a_run_is_one_event(stored):
    """Called as the task is, with how long it took and from which queue it came."""
    look.delay()

    (event,) = stored("shop.look")
    duration_ms = event["properties"].pop("durationMs")
    assert 0 < duration_ms < 5_000
    assert event["properties"] == {
        "status": "SUCCESS",
        "state": "SUCCESS",
        "retries": 0,
        "queue": "celery",
    }
    assert event["context"]["category"] == "SYSTEM_EVENT"


def outcomes(events):
    names = ("state", "status", "retries", "errorType")
    return [tuple(event["properties"].get(name) for name in names) for event in events]


@pytest.mark.usefixtures("worker", "client")
def test_a_task_that_raises_is_a_failure(stored):
    """It says what was raised, but not the message: that may be anybody's data."""
    fail.delay()

    (event,) = stored("shop.fail")
    assert outcomes([event]) == [("FAILURE", "FAILURE", 0, "KeyError")]
    assert "no such order" not in str(event)


@pytest.mark.usefixtures("worker", "client")
def test_a_task_that_is_retried_in_vain_is_one_failure(stored):
    """Each run is an event, and only the last one a FAILURE."""
    with context(user_id="u-1"):
        retry.delay()

    events = stored("shop.retry", 3)
    assert outcomes(events) == [
        ("RETRY", "SUCCESS", 0, "ConnectionError"),
        ("RETRY", "SUCCESS", 1, "ConnectionError"),
        ("FAILURE", "FAILURE", 2, "ConnectionError"),
    ]
    assert {identity(event)[0] for event in events} == {"u-1"}


@pytest.mark.usefixtures("worker", "client")
def test_a_task_that_asks_for_another_try_without_an_error_has_none(stored):
    """`errorType` names an error of the task, not Celery's way to say Retry."""
    retry_once.delay()

    assert outcomes(stored("shop.retry_once", 2)) == [
        ("RETRY", "SUCCESS", 0, None),
        ("SUCCESS", "SUCCESS", 1, None),
    ]


@pytest.mark.usefixtures("worker", "client")
def test_a_task_that_is_retried_keeps_its_context(stored):
    """As it was where the task asked for another try."""
    with context(user_id="u-1", session_id="s-1"):
        retry_once.delay()

    events = stored("shop.retry_once", 2)
    assert [identity(event) for event in events] == [
        ("u-1", None, "s-1"),
        ("u-1", None, "s-2"),
    ]


@pytest.mark.parametrize(
    ("task", "outcome"),
    [
        (ignore, [("IGNORED", "SUCCESS", 0, None)]),
        (reject, [("REJECTED", "FAILURE", 0, "ValueError")]),
        (requeue, [("REJECTED", "SUCCESS", 0, None), ("SUCCESS", "SUCCESS", 0, None)]),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
@pytest.mark.usefixtures("worker", "client")
def test_an_outcome_that_is_neither_success_nor_failure(stored, task, outcome):
    """Counted once, and as a FAILURE only if nothing is tried any more."""
    task.delay()

    assert outcomes(stored(task.name, len(outcome))) == outcome


@pytest.mark.usefixtures("worker", "client")
def test_a_task_that_raises_what_celery_raises_for_lost_workers_is_counted_once(stored):
    """The worker's main process reports lost runs, but this one isn't."""
    lose.delay()
    look.delay()
    stored("shop.look")

    (event,) = stored("shop.lose")
    assert event["properties"]["status"] == "FAILURE"
    assert event["properties"]["errorType"] == "WorkerLostError"


@pytest.mark.usefixtures("worker", "client")
def test_errands_of_celery_are_no_operations(stored, collector):
    """A chord polls for its end by a task of Celery's; nobody wants to read of that."""
    chord([look.si(), look.si()])(look.si())
    stored("shop.look", 3)

    assert set(collector.names) == {"looked", "shop.look"}


# Eager


@pytest.fixture
def eager(results):
    app.conf.update(task_always_eager=True)
    yield
    app.conf.update(task_always_eager=False, task_eager_propagates=False)


@pytest.mark.usefixtures("eager", "client")
def test_an_eager_task_is_inside_the_context_of_its_caller(stored):
    """All of it, for nothing has to travel; and its own blocks end with it."""
    with context(user_id="u-1", context={"ip": "203.0.113.7"}):
        run_in_place.delay()

    assert [identity(event)[0] for event in stored("looked")] == ["u-inner"]
    (after,) = stored("after")
    assert identity(after)[0] == "u-1"
    assert after["context"]["ip"] == "203.0.113.7"
    assert outcomes(stored("shop.look")) == [("SUCCESS", "SUCCESS", 0, None)]
    assert outcomes(stored("shop.run_in_place")) == [("SUCCESS", "SUCCESS", 0, None)]


@pytest.mark.usefixtures("eager", "client")
def test_an_eager_task_that_raises_into_its_caller_is_a_failure(stored):
    """Celery has no state for it then."""
    app.conf.task_eager_propagates = True
    with pytest.raises(KeyError):
        fail.delay()

    assert outcomes(stored("shop.fail")) == [("FAILURE", "FAILURE", 0, "KeyError")]


@pytest.mark.usefixtures("eager", "client")
def test_an_eager_task_that_is_retried_in_vain_is_one_failure(stored):
    """Celery makes the next try at once, in place."""
    retry.delay()

    assert outcomes(stored("shop.retry", 3)) == [
        ("RETRY", "SUCCESS", 0, "ConnectionError"),
        ("RETRY", "SUCCESS", 1, "ConnectionError"),
        ("FAILURE", "FAILURE", 2, "ConnectionError"),
    ]


@pytest.mark.usefixtures("eager", "client")
def test_an_eager_task_that_raises_retry_into_its_caller_is_no_failure(stored):
    """As in a worker: it asked for another try."""
    app.conf.task_eager_propagates = True
    with pytest.raises(Retry):
        retry.delay()

    assert outcomes(stored("shop.retry")) == [("RETRY", "SUCCESS", 0, "ConnectionError")]


@pytest.mark.usefixtures("eager", "client")
def test_an_eager_task_that_raises_worker_lost_error_is_a_failure(stored):
    """There is no main process that could tell instead."""
    lose.delay()

    assert outcomes(stored("shop.lose")) == [("FAILURE", "FAILURE", 0, "WorkerLostError")]


@pytest.mark.usefixtures("eager", "client")
def test_the_context_of_the_caller_comes_back_after_an_eager_task():
    """What a task sets is not seen by whoever ran it."""
    with context(user_id="u-1") as scope:
        run_in_place.delay()

        assert current.get() is scope


# Installing


@pytest.mark.usefixtures("eager")
def test_a_second_install_takes_the_place_of_the_first(client, stored):
    """One event a run, and the settings of the last call."""
    install(client=client, category="QUERY")
    look.delay()

    assert stored("shop.look")[0]["context"]["category"] == "QUERY"
    assert len(stored("looked")) == 1


@pytest.mark.usefixtures("worker")
def test_uninstall_takes_everything_back(client, stored):
    """No event, no context; and a second time does no harm."""
    uninstall()
    uninstall()
    with context(user_id="u-1"):
        look.delay()
    (event,) = stored("looked")
    client.flush()

    assert identity(event) == (None, None, None)
    assert client.stats().taken == 1


@pytest.mark.parametrize("settings", [{"ignore": ["shop.look"]}, {"operations": False}], ids=str)
@pytest.mark.usefixtures("worker")
def test_tasks_can_be_left_out(client, stored, settings):
    """By name, or all of them; the context is theirs nevertheless."""
    install(client=client, **settings)
    with context(user_id="u-1"):
        look.delay()
    (event,) = stored("looked")
    client.flush()

    assert identity(event)[0] == "u-1"
    assert client.stats().taken == 1


def test_a_single_name_in_place_of_a_list_is_a_mistake():
    """It would be taken for the names of its letters."""
    with pytest.raises(ConfigError, match="ignore"):
        install(ignore="shop.look")


@pytest.mark.usefixtures("eager")
def test_with_an_app_tasks_of_others_make_no_events(client, stored):
    """For a process with several apps."""
    other = Celery("other", set_as_current=False)
    other.conf.task_always_eager = True

    @other.task(name="other.task")
    def foreign():
        pass

    install(app, client=client)
    foreign.delay()
    look.delay()
    stored("shop.look")
    client.flush()

    assert client.stats().taken == 2


@pytest.mark.usefixtures("eager")
def test_without_a_client_the_default_client_of_the_moment_is_used(analytics, collector):
    """The one that init() made, also when it did so later."""
    TRACKERS.append(analytics)
    install()
    analytics.init("ak_live_test0SECRET", collector.url)
    look.delay()
    uninstall()
    TRACKERS.remove(analytics)

    assert analytics.flush()
    assert sorted(collector.names) == ["looked", "shop.look"]


@pytest.mark.usefixtures("eager")
def test_a_worker_that_ends_sends_what_waits(make_client, collector, eventually):
    """An embedded worker leaves its process running, and its events must not wait for more."""
    client = make_client(flush_interval_s=3600)
    install(client=client)
    TRACKERS.append(client)
    fail.delay()
    signals.worker_shutdown.send(sender=None)
    uninstall()
    TRACKERS.remove(client)

    eventually(lambda: collector.names == ["shop.fail"])


# Workers in processes of their own

TASKS = """
    import os, signal, threading
    from pathlib import Path
    from celery import Celery
    import analytics_sdk as analytics
    from analytics_sdk.integrations.celery import install

    app = Celery("shop", broker="filesystem://")
    app.conf.update(
        broker_transport_options={
            "polling_interval": 0.02, "control_folder": "control",
            "data_folder_in": "messages", "data_folder_out": "messages",
        },
        worker_prefetch_multiplier=1,
        worker_lost_wait=0.1,
    )
    install()

    @app.task(name="shop.charge")
    def charge(number):
        analytics.track("charged", {"number": number})
        Path("done", str(number)).touch()

    @app.task(name="shop.die")
    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    @app.task(name="shop.hang", time_limit=1)
    def hang():
        threading.Event().wait(60)
"""


class Shop:
    """A Celery app whose messages are files, so that workers in other processes see them too."""

    def __init__(self, folder, settings, module="shop_tasks"):
        self.folder = folder
        self.workers = []
        self._module = module
        self._settings = settings
        for name in ("control", "messages", "done"):
            folder.joinpath(name).mkdir(parents=True)
        folder.joinpath("shop_tasks.py").write_text(textwrap.dedent(TASKS))
        self._app = Celery("shop", broker="filesystem://", set_as_current=False)
        self._app.conf.broker_transport_options = {
            "control_folder": str(folder / "control"),
            "data_folder_in": str(folder / "messages"),
            "data_folder_out": str(folder / "messages"),
        }

    @property
    def environment(self):
        folders = os.pathsep.join((str(EXAMPLES), os.environ.get("PYTHONPATH", "")))
        return {**os.environ, **self._settings, "PYTHONPATH": folders}

    def publish(self, name, user_id, *arguments):
        """Publish a task in the context of a user."""
        with context(user_id=user_id):
            self._app.send_task(name, arguments)

    def charge(self, *numbers):
        """Publish a task for each number."""
        for number in numbers:
            self.publish("shop.charge", f"u-{number}", number)

    def has_charged(self, count):
        """Tell whether so many tasks got to their end."""
        return len(list(self.folder.glob("done/*"))) == count

    def start(self, *options, **environment):
        """Start a worker; it sends no event unless it is made to."""
        worker = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", self._module, "worker", "--loglevel=WARNING",
             "--concurrency=2", "--without-gossip", "--without-mingle", "--without-heartbeat",
             *options],
            cwd=self.folder, env={**self.environment, **environment},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self.workers.append(worker)

    def stop(self):
        """Ask the worker to end when its tasks have."""
        for worker in self.workers:
            worker.send_signal(signal.SIGTERM)

    def wait(self):
        """Wait for the end of the worker."""
        for worker in self.workers:
            output, _ = worker.communicate(timeout=20)
            assert worker.returncode == 0, output

    def end(self):
        """Leave nothing behind."""
        for worker in self.workers:
            worker.kill()
            worker.communicate()
        self._app.close()


@pytest.fixture
def make_shop(tmp_path, collector, make_client):
    """Make shops, each in a folder of its own; those who publish have the integration too."""
    shops = []
    settings = {
        "ANALYTICS_API_KEY": "ak_live_test0SECRET",
        "ANALYTICS_API_URL": collector.url,
        "ANALYTICS_BATCH_SIZE": "500",
        "ANALYTICS_FLUSH_INTERVAL_S": "3600",
        "ANALYTICS_SPOOL_MAX_BYTES": "0",
        "C_FORCE_ROOT": "1",
    }

    def make(name="shop", **options):
        shop = Shop(tmp_path / name, settings, **options)
        shops.append(shop)
        return shop

    install(client=make_client())
    yield make
    uninstall()
    for shop in shops:
        shop.end()


@pytest.fixture
def shop(make_shop):
    """One shop, for most tests need no more."""
    return make_shop()


def assert_each_charge_once(collector, numbers):
    for name in ("charged", "shop.charge"):
        users = [event["userId"] for event in collector.stored if event["name"] == name]
        assert sorted(users) == sorted(f"u-{number}" for number in numbers)
    ids = [event["messageId"] for event in collector.stored]
    assert len(ids) == len(set(ids))


def test_a_warm_shutdown_loses_nothing(make_shop, collector, eventually):
    """Each task is one event, in its own context, in every kind of pool."""
    # All at once, for workers take seconds to start and to stop.
    shops = {pool: make_shop(pool) for pool in ("prefork", "threads", "solo", "gevent")}
    for pool, shop in shops.items():
        shop.charge(*(f"{pool}-{number}" for number in range(8)))
        shop.start("--pool", pool)
    eventually(lambda: all(shop.has_charged(8) for shop in shops.values()), timeout_s=60)
    assert collector.stored == []
    for shop in shops.values():
        shop.stop()
    for shop in shops.values():
        shop.wait()

    assert_each_charge_once(
        collector, [f"{pool}-{number}" for pool in shops for number in range(8)]
    )


def test_processes_that_end_after_one_task_lose_nothing(shop, collector, eventually):
    """They end without atexit, so they deliver when Celery says that they end."""
    shop.charge(*range(5))
    shop.start("--pool=prefork", "--max-tasks-per-child=1")
    eventually(lambda: len(collector.stored) >= 10, timeout_s=60)
    shop.stop()
    shop.wait()

    assert_each_charge_once(collector, range(5))


def test_runs_that_are_killed_are_reported_by_the_main_process(shop, collector, eventually):
    """The process that could have told is gone."""
    shop.publish("shop.die", "u-1")
    shop.publish("shop.hang", "u-1")
    shop.start("--pool=prefork", ANALYTICS_BATCH_SIZE="1")
    eventually(lambda: len(collector.stored) >= 2, timeout_s=60)
    shop.stop()
    shop.wait()

    assert len(collector.stored) == 2
    assert {
        event["name"]: (event["properties"]["status"], event["properties"]["errorType"])
        for event in collector.stored
    } == {
        "shop.die": ("FAILURE", "WorkerLostError"),
        "shop.hang": ("FAILURE", "TimeLimitExceeded"),
    }


def test_a_collector_that_hangs_does_not_hold_up_the_end_of_a_worker(
    shop, collector, reply, eventually
):
    """The processes of the pool have `shutdown_timeout_s`, and then the main process has."""
    collector.always(reply.hang)
    shop.charge(1, 2)
    shop.start("--pool=prefork", ANALYTICS_SHUTDOWN_TIMEOUT_S="0.2")
    eventually(lambda: shop.has_charged(2), timeout_s=60)
    asked_at = monotonic()
    shop.stop()
    shop.wait()

    # Celery waits for up to 2 s for messages, and a process of its pool sleeps for another. A
    # request alone would have 10 s.
    assert monotonic() - asked_at < 10


def test_the_example_runs(make_shop, collector, eventually):
    """A chain of two tasks, published by a script in the context of a user."""
    shop = make_shop(module="celery_tasks")
    subprocess.run(
        [sys.executable, EXAMPLES / "celery_tasks.py"],
        cwd=shop.folder,
        env=shop.environment,
        check=True,
        timeout=30,
    )
    shop.start(ANALYTICS_BATCH_SIZE="1")
    eventually(lambda: len(collector.stored) == 4, timeout_s=60)
    shop.stop()
    shop.wait()

    assert sorted(collector.names) == [
        "points_awarded",
        "receipt_sent",
        "shop.award_points",
        "shop.send_receipt",
    ]
    for event in collector.stored:
        assert (event["userId"], event["sessionId"]) == ("u-1", "s-1")
        assert event["properties"]["plan"] == "pro"
