"""What the packages have of the specification is what stands there."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_copies_are_written_by_the_tool(tmp_path: Path) -> None:
    """It writes the SDK's and the collector's as they are here, and nothing else."""
    for folder in ("collector/src/analytics_collector", "sdk-python/src/analytics_sdk"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copytree(ROOT / "spec", tmp_path / "spec")
    subprocess.run([sys.executable, tmp_path / "spec/tools/copies.py"], check=True, timeout=60)

    assert _copies(tmp_path) == _copies(ROOT)
    assert len(_copies(ROOT)) >= 3


def _copies(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.glob("*/src/*/_spec/*")}
