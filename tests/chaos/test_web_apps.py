"""Web applications on gunicorn, under load and in trouble: what they track is stored, once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from signal import SIGHUP, SIGTERM

import pytest

from analytics_sdk import Client
from harness.collector import Collector, Serve, free_port
from harness.waiting import wait_for
from harness.web import GRACEFUL_TIMEOUT_S, WORKERS, Gunicorn, Visitors, faults_of

OpenShop = Callable[..., Gunicorn]
FRAMEWORKS = ("django", "flask", "fastapi")
THREADS = 4
NOISE_S = 20.0
# So that a worker has everything that it tracked in its hands, until it has to end.
PATIENT = {"batch_size": 500, "flush_interval_s": 600}


@pytest.fixture
def serve(collector: Collector) -> Iterator[Serve]:
    """A collector, not started, on a port that is known already."""
    serve = collector.serve(port=free_port())
    yield serve
    serve.end()


@pytest.fixture
def open_shop(collector: Collector, serve: Serve, tmp_path: Path) -> Iterator[OpenShop]:
    """Start a web application on gunicorn that sends to the collector."""
    key = collector.database.new_key("ingest")
    with ExitStack() as stack:

        def open_shop(framework: str, *options: str, **settings: object) -> Gunicorn:
            folder = tmp_path / framework
            shop = Gunicorn(framework, serve.url, key, folder, *options, **settings)
            return stack.enter_context(shop)

        yield open_shop


@contextmanager
def _visited(shops: Mapping[str, Gunicorn]) -> Iterator[dict[str, Visitors]]:
    """Have users in each shop; every worker has answered one."""
    with ExitStack() as stack:
        crowds = {
            name: stack.enter_context(Visitors(shop.port, name)) for name, shop in shops.items()
        }
        for crowd in crowds.values():
            wait_for(lambda c=crowd: len(c.answered_by) == WORKERS, "each worker has answered")
        yield crowds


def _go_on(crowds: Mapping[str, Visitors], visits: int = 100) -> None:
    """Let so many more visits of each shop be answered."""
    enough = {name: crowd.answered + visits for name, crowd in crowds.items()}
    wait_for(lambda: all(crowds[name].answered >= enough[name] for name in crowds), "more visits")


def _wait_closed(shops: Mapping[str, Gunicorn], killed: int = 0) -> None:
    """See each shop end in order and in time; the next process delivers what it left on disk."""
    for shop in shops.values():
        assert shop.wait(GRACEFUL_TIMEOUT_S + NOISE_S) == 0, shop.log
        assert shop.left_behind() == {}
        assert "Traceback" not in shop.log, shop.log
        # Gunicorn kills what does not end in time.
        assert shop.log.count("was sent SIGKILL") == killed, shop.log
    for shop in shops.values():
        next_process = Client(shop.key, shop.url, spool_dir=shop.spool)
        assert next_process.recover(60)
        next_process.shutdown()


def _faults(crowds: Mapping[str, Visitors], collector: Collector) -> Counter[str]:
    visits = [visit for crowd in crowds.values() for visit in crowd.visits]
    return faults_of(visits, collector.database)


@pytest.mark.parametrize(
    "frameworks", [("flask",), pytest.param(FRAMEWORKS, marks=pytest.mark.long)], ids=" ".join
)
def test_a_collector_that_is_killed_costs_neither_visits_nor_events(
    collector: Collector, serve: Serve, open_shop: OpenShop, frameworks: tuple[str, ...]
) -> None:
    """Both events of every visit are stored, once, under the right user, in order."""
    serve.start()
    shops = {framework: open_shop(framework) for framework in frameworks}
    serve.wait_ready()
    with _visited(shops) as crowds:
        _go_on(crowds)
        serve.kill()
        _go_on(crowds)
        serve.start()
        serve.wait_ready()
        _go_on(crowds)
    for shop in shops.values():
        shop.send_signal(SIGTERM)
    _wait_closed(shops)

    for crowd in crowds.values():
        assert crowd.failures == []
        assert all(visit.was_taken for visit in crowd.visits)
    assert _faults(crowds, collector) == {}
    assert serve.faults == []


@pytest.mark.long
def test_what_a_killed_worker_took_is_delivered_by_the_others(
    collector: Collector, serve: Serve, open_shop: OpenShop
) -> None:
    """With `durable`, though nothing could be delivered before; four processes share a spool."""
    shop = open_shop("flask", "--threads", str(THREADS), durable=True, **PATIENT)
    with _visited({"flask": shop}) as crowds:
        crowd = crowds["flask"]
        _go_on(crowds)
        [(victim, _)] = crowd.answered_by.most_common(1)
        shop.kill_worker(victim)
        wait_for(lambda: len(crowd.answered_by) > WORKERS, "another worker has taken its place")
        serve.start()
        serve.wait_ready()
        _go_on(crowds)
    shop.send_signal(SIGTERM)
    _wait_closed({"flask": shop}, killed=1)

    assert len(crowd.failures) <= THREADS, "only the visits in its threads may have no answer"
    assert _faults(crowds, collector) == {}


@pytest.mark.long
def test_workers_that_end_in_order_lose_nothing(
    collector: Collector, serve: Serve, open_shop: OpenShop
) -> None:
    """Gunicorn replaces its workers, and then ends, with visitors there."""
    serve.start()
    shops = {framework: open_shop(framework, **PATIENT) for framework in ("flask", "fastapi")}
    serve.wait_ready()
    with _visited(shops) as crowds:
        before = {name: shop.workers for name, shop in shops.items()}
        for shop in shops.values():
            shop.send_signal(SIGHUP)
        for name, shop in shops.items():
            wait_for(lambda s=shop, b=before[name]: not s.workers & b, "its workers are new")
        _go_on(crowds)
        for shop in shops.values():
            shop.send_signal(SIGTERM)
    _wait_closed(shops)

    assert _faults(crowds, collector) == {}
