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
    {"errors", "version", "_limits", "metrics", "logs"},
    {"settings", "project_settings"},
    {"model"},
    {"interfaces"},
    {"ingest.decode", "ingest.limit", "analytics.steps", "keys"}
    | {"adapters.sqlfile", "adapters.migrate", "adapters.redis.names", "adapters.redis.client"},
    {"ingest.validate", "ingest.write", "analytics.params"}
    | {"adapters.postgres.pool", "adapters.postgres.log", "adapters.redis.stream"},
    {"ingest.pipeline", "analytics.funnel", "worker.publisher", "worker.daily_counts"}
    | {"adapters.postgres.funnel_sql", "adapters.postgres.keys", "adapters.postgres.store"},
    {"adapters.postgres.reader", "worker.run"}
    | {"http.problems", "http.body", "http.auth", "http.middleware"},
    {"assemble", "http.ingest", "http.query", "http.health", "http.protocol"},
    {"http.routes"},
    {"app"},
    {"server"},
    {"up"},
    {"cli.common"},
    {"cli.run", "cli.projects", "cli.keys"},
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
    while name not in FLOOR_OF:
        name = name.rpartition(".")[0]
    return name


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

    assert crossing == set() or module in {"up", "cli"}


@pytest.mark.parametrize(
    "module",
    sorted(name for name in MODULES if name.startswith(("ingest.", "http.", "analytics."))),
)
def test_the_stages_do_not_know_who_serves_them(module):
    """Which database and which queue it is stands in `assemble` alone."""
    assert not [name for name in own_imports(MODULES[module]) if name.startswith("adapters")]
