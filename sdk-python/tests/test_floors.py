"""Modules import downwards only. A new module takes its place in FLOORS first."""

import ast
from pathlib import Path

import pytest

PACKAGE = "analytics_sdk"
ROOT = Path(__file__).parents[1] / "src" / PACKAGE

FLOORS = [  # ground floor first
    {"_limits", "blocks", "errors", "orders", "process", "scrub", "segment", "stats", "version"},
    {"batch", "config", "context", "folders", "foreign", "logs", "operation", "retry"},
    {"place", "reading", "transport", "values"},
    {"event", "orphans"},
    {"ambient", "spool"},
    {"outbox"},
    {"delivery"},
    {"worker"},
    {"capture"},
    {"client"},
    {"default"},
    {""},  # analytics_sdk/__init__.py
    # What stands on the whole: its floors are its own.
    {
        "cli.check",
        "cli.console",
        "cli.probe",
        "cli.waiting",
        "codegen.names",
        "codegen.schema",
        "compat",
        "compat._segment_message",
        "compat._segment_settings",
        "integrations",
        "integrations._options",
        "integrations.celery",
        "integrations.logging",
        "testing.compare",
        "testing.schema",
    },
    {
        "cli.arguments",
        "cli.network",
        "codegen.declarations",
        "codegen.documents",
        "compat.segment",
        "integrations._request",
        "testing.recorder",
    },
    {
        "cli.doctor",
        "cli.events",
        "cli.spooled",
        "codegen.types",
        "integrations._exchange",
        "testing.client",
    },
    {
        "codegen.module",
        "integrations.asgi",
        "integrations.aws_lambda",
        "integrations.django",
        "integrations.wsgi",
        "testing",
    },
    {"codegen", "integrations.django.apps", "integrations.flask", "pytest_plugin"},
    {"cli.typed"},
    {"cli"},
    {"__main__"},
]
FLOOR_OF = {name: number for number, floor in enumerate(FLOORS) for name in floor}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    .removesuffix("__init__")
    .rstrip("."): path
    for path in ROOT.rglob("*.py")
}
# Importing them takes longer than small programs run, so the thread does it.
HEAVY = {"httpx", "httpcore", "tenacity"}


def imports(tree):
    """Yield each import of the module, wherever in the file, and the names it imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield node, [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "write our imports in full, without leading dots"
            yield node, [f"{node.module}.{alias.name}" for alias in node.names]


def own_imports(path):
    """Yield the names of our own modules that *path* imports."""
    for _, names in imports(ast.parse(path.read_text())):
        for name in names:
            if name.split(".")[0] == PACKAGE:
                module = name.removeprefix(PACKAGE).lstrip(".")
                while module not in FLOOR_OF:  # `client.Client` → `client`
                    module = module.rpartition(".")[0]
                yield module


def test_every_module_has_a_floor():
    """A file that is in no floor, or a floor without its file, is a mistake."""
    assert set(MODULES) == set(FLOOR_OF)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_down(module):
    """Nothing is imported from the same floor or from one above."""
    upward = {name for name in own_imports(MODULES[module]) if FLOOR_OF[name] >= FLOOR_OF[module]}

    assert upward == set()


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_stand_at_the_top(module):
    """None hides in a function, but for those that say why."""
    tree = ast.parse(MODULES[module].read_text())
    hidden = {
        name.split(".")[0]
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        for _, names in imports(function)
        for name in names
    }

    allowed = {
        "worker": {PACKAGE},
        "pytest_plugin": {PACKAGE},
        "client": {"asyncio"},
        "folders": {"platformdirs", "hashlib"},
    }
    assert hidden == allowed.get(module, set())


@pytest.mark.parametrize("module", sorted(MODULES))
def test_one_module_reads_the_environment(module):
    """Settings come in at one place."""
    readers = ("os.environ", "getenv")
    is_reader = any(word in MODULES[module].read_text() for word in readers)

    assert is_reader == (module == "config")


@pytest.mark.parametrize("module", sorted(MODULES))
def test_broad_excepts_are_the_three_named_guards(module):
    """Whatever else can fail is caught by its name."""
    tree = ast.parse(MODULES[module].read_text())
    broad = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) in ("Exception", "BaseException"))
    ]

    assert len(broad) == (module in ("errors", "capture", "delivery"))
