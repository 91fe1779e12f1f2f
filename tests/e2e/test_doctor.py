"""`analytics-collector doctor` on an `up`: what an operator does first when something is odd."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness.collector import Up, run_command
from harness.waiting import wait_for


def test_a_running_up_is_well_and_a_stopped_one_has_no_worker(tmp_path: Path) -> None:
    """From its directory alone; the worker is seen at work, and missed when it is gone."""
    data_dir = tmp_path / "data"

    def look() -> dict[str, Any]:
        told = run_command("doctor", "--data-dir", str(data_dir), "--json").stdout
        return {check["check"]: check["status"] for check in json.loads(told)["checks"]}

    with Up(data_dir, tmp_path):
        wait_for(lambda: set(look().values()) == {"ok"}, "all is well")

    stopped = look()
    workers = [name for name in stopped if name.startswith("worker: ")]
    assert {name for name, status in stopped.items() if status != "ok"} == set(workers)
    assert [stopped[name] for name in workers] == ["warn", "warn"]
