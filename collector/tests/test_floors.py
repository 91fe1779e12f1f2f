"""Modules import downwards only. A new module takes its place in FLOORS first."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import analytics_collector

PACKAGE = "analytics_collector"
ROOT = Path(analytics_collector.__file__).parent

FLOORS = [  # ground floor first
    {"_limits", "errors", "logs", "metrics", "spans", "version", "wire"},
    {"background", "project_settings", "schemas.compiled", "schemas.cost", "settings"},
    {"model", "schemas.document"},
    {"interfaces", "schemas.explain", "schemas.files", "schemas.infer"},
    {"origins", "remembered_keys", "schemas.plan", "schemas.report", "usage"},
    {"ingest.enrich.address", "ingest.enrich.scrub", "ingest.enrich.seen", "ingest.plans"},
    {"ingest.enrich.campaign", "ingest.enrich.geo", "ingest.enrich.local_time"}
    | {"ingest.enrich.referrer", "ingest.enrich.screen", "ingest.enrich.user_agent"},
    {"ingest.enrich.urls", "ingest.schemas", "ingest.sessions"},
    {"ingest.enrich.stage", "ingest.payload"},
    {"adapters.migrate", "adapters.redis.client", "adapters.redis.names"}
    | {"adapters.sqlfile", "analytics.steps", "ingest.buckets", "ingest.decode"}
    | {"ingest.refusals", "ingest.rejected", "ingest.turns", "ingest.turnstile", "keys"},
    {"adapters.postgres.pool", "adapters.redis.quota", "adapters.redis.sessions"}
    | {"adapters.redis.stream", "adapters.redis.tokens", "adapters.spool.file"}
    | {"adapters.spool.rows", "analytics.params", "ingest.leases", "ingest.validate"}
    | {"ingest.visitor", "ingest.write"},
    {"adapters.postgres.dead_letters"},
    {"adapters.postgres.lag", "adapters.postgres.log", "adapters.redis.spool"}
    | {"adapters.spool.sqlite", "ingest.spooling"},
    {"ingest.limit", "ingest.quota", "live"},
    {"adapters.postgres.funnel_sql", "adapters.postgres.key_store"}
    | {"adapters.postgres.administration", "adapters.postgres.live", "adapters.postgres.quota"}
    | {"adapters.postgres.schemas", "adapters.postgres.sessions", "adapters.postgres.store"}
    | {"adapters.redis.live", "analytics.funnel", "ingest.pipeline", "worker.consumer"}
    | {"worker.daily_counts", "worker.housekeeping", "worker.lag_watch", "worker.publisher"},
    {"adapters.postgres.reader", "http.auth", "http.body", "http.cors", "http.middleware"}
    | {
        "http.peer",
        "http.problems",
        "http.script",
        "http.visitor_cookie",
        "ingest.replay",
        "worker.run",
    },
    {"http.envelope", "worker.reapply"},
    {"doctor.findings", "http.address_limit"},
    {"doctor.host", "doctor.services"},
    {"doctor"},
    {"assemble", "http.admin", "http.dead_letters", "http.docs"}
    | {"http.dry_run", "http.health", "http.ingest", "http.live", "http.protocol"}
    | {"http.query", "http.schemas", "http.tracing"},
    {"http.routes"},
    {"app"},
    {"server"},
    {"workers"},
    {"up"},
    {"cli.common"},
    {"cli.dead_letters", "cli.doctor", "cli.keys", "cli.projects", "cli.run", "cli.schemas"}
    | {"cli.spool", "cli.tail"},
    {"cli"},
    {"__main__"},
]
# A house of its own in the same street: it stands on `errors`, and `up` and `cli` look in.
EMBEDDED = [
    {"embedded.binaries", "embedded.lock"},
    {"embedded.account"},
    {"embedded.directory", "embedded.process"},
    {"embedded.postgres", "embedded.valkey"},
    {"embedded.supervisor"},
    {"embedded"},
]
FLOOR_OF = {name: number for number, floor in enumerate(FLOORS) for name in floor} | {
    name: 1 + number / 10 for number, floor in enumerate(EMBEDDED) for name in floor
}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in ROOT.rglob("*.py")
    if path.name != "__init__.py" or "import" in path.read_text(encoding="utf-8")
}


def own_imports(path: Path) -> Iterator[str]:
    """Yield the names of our own modules that *path* imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "write our imports in full, without leading dots"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == PACKAGE:
                yield module_of(name.removeprefix(PACKAGE).lstrip("."))


def module_of(name: str) -> str:
    """Return the module in which *name* is: `keys` for `keys.Keys`."""
    inner = name
    while inner and inner not in FLOOR_OF:
        inner = inner.rpartition(".")[0]
    return inner or name


def test_every_module_has_a_floor():
    """A file that is in no floor, or a floor without its file, is a mistake."""
    assert set(MODULES) == set(FLOOR_OF)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_down(module):
    """Nothing is imported from the same floor or from one above, not even inside a function."""
    upward = {name for name in own_imports(MODULES[module]) if FLOOR_OF[name] >= FLOOR_OF[module]}

    assert upward == set()


@pytest.mark.parametrize("module", sorted(name for name in MODULES if name != "embedded"))
def test_the_embedded_servers_are_a_house_of_their_own(module):
    """They know nothing of a collector, and only the command line knows of them."""
    own = {"errors"} | {name for name in MODULES if name.startswith("embedded")}
    crossing = {
        name
        for name in own_imports(MODULES[module])
        if (module in own) != (name in own) or (module.startswith("embedded") and name not in own)
    } - {"errors"}

    assert crossing == set() or module == "up" or module.startswith("cli")


@pytest.mark.parametrize(
    "module",
    sorted(name for name in MODULES if name.startswith(("ingest.", "http.", "analytics."))),
)
def test_the_stages_do_not_know_who_serves_them(module):
    """Which database and which queue it is stands in `assemble` alone."""
    assert not [name for name in own_imports(MODULES[module]) if name.startswith("adapters")]
