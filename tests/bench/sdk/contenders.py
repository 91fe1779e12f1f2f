"""Who is measured, and where each is installed."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import venv
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
LOCK = ROOT / "requirements" / "bench.txt"
# Theirs, so that what they depend on never meets what we depend on.
ENVIRONMENT = ROOT / ".nox" / "bench-peers"


@dataclass(frozen=True)
class Contender:
    """An SDK with settings: a column of the table."""

    name: str
    adapter: str
    imports: str
    python: str
    options: dict[str, Any] = field(default_factory=dict)
    # A variant is the same SDK with other settings: what doesn't depend on them is left out.
    is_variant: bool = False

    @property
    def is_ours(self) -> bool:
        return self.adapter == "ours"


def contenders() -> list[Contender]:
    """Return all columns, in order; installs the peers if their lock has changed."""
    theirs, ours = str(_install()), sys.executable
    return [
        Contender("ours", "ours", "analytics_sdk", ours),
        Contender("durable", "ours", "analytics_sdk", ours, {"durable": True}, is_variant=True),
        Contender("fsync", "ours", "analytics_sdk", ours, {"durable": "fsync"}, is_variant=True),
        Contender("segment", "segment", "segment.analytics", theirs),
        Contender("posthog", "posthog", "posthog", theirs),
        Contender("mixpanel", "mixpanel", "mixpanel", theirs),
        Contender("mp-buffered", "mixpanel", "mixpanel", theirs, {"is_buffered": True}, True),
    ]


FLOOR = Contender("floor", "floor", "orjson", sys.executable)


def versions() -> str:
    """Return which releases are measured."""
    pinned = dict(
        line.split(" ")[0].split("==") for line in LOCK.read_text().splitlines() if "==" in line
    )
    theirs = ("segment-analytics-python", "posthog", "mixpanel")
    ours = f"analytics-sdk {version('analytics-sdk')}"
    return ", ".join([ours, *(f"{name} {pinned[name]}" for name in theirs)])


def _install() -> Path:
    python = ENVIRONMENT / "bin" / "python"
    stamp = ENVIRONMENT / "lock.sha256"
    wanted = hashlib.sha256(LOCK.read_bytes() + sys.version.encode()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"installing the peers in {ENVIRONMENT.relative_to(ROOT)}", file=sys.stderr)
        venv.create(ENVIRONMENT, clear=True, with_pip=True)
        subprocess.run(
            [python, "-m", "pip", "install", "-qq", "--require-hashes", "-r", LOCK], check=True
        )
        stamp.write_text(wanted)
    return python
