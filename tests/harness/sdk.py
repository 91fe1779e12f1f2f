"""Programs that use the real SDK, each in a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path

from harness.processes import Program


def sdk_program(code: str, url: str, key: str, folder: Path, *arguments: str) -> Program:
    """Return a program that finds the collector as any program does: by its environment."""
    environment = {
        "ANALYTICS_API_URL": url,
        "ANALYTICS_API_KEY": key,
        "ANALYTICS_SPOOL_DIR": str(folder / "spool"),
    }
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    return Program(command, folder, "sdk", environment)
