"""What is shipped to run the collector with, and a rendering of the chart."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from analytics_collector.version import __version__

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture(scope="session")
def deploy() -> Path:
    """The folder with everything that is shipped."""
    return DEPLOY


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository, from where the image is built."""
    return DEPLOY.parents[1]


@pytest.fixture(scope="session")
def program() -> Callable[[str], str]:
    """Return the path of a program that a package of the tests brings."""

    def find(name: str) -> str:
        path = shutil.which(name, path=str(Path(sys.executable).parent))
        assert path is not None, f"{name} is not installed: requirements/tests.txt brings it"
        return path

    return find


@pytest.fixture(scope="session")
def render(program: Callable[[str], str]) -> Callable[..., list[dict[str, Any]]]:
    """Render the chart with files of values and single ones, with the real helm."""

    def render(*options: str) -> list[dict[str, Any]]:
        chart = str(DEPLOY / "helm/analytics-collector")
        command = [program("helm"), "template", "analytics", chart, *options]
        rendered = subprocess.run(command, capture_output=True, text=True, check=False)
        assert rendered.returncode == 0, rendered.stderr
        return [document for document in yaml.safe_load_all(rendered.stdout) if document]

    return render


@pytest.fixture(scope="session")
def version() -> str:
    """The version of the package, which is also that of its image and its chart."""
    return __version__
