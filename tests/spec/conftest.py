"""The tools of spec/tools/ as modules: they are scripts, and in no package."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

TOOLS = Path(__file__).parents[2] / "spec/tools"
# As for a script: what lies beside it can be imported.
sys.path.append(str(TOOLS))


@cache
def load(tool: str) -> ModuleType:
    """Return the module in the file *tool* of spec/tools/."""
    found = importlib.util.spec_from_file_location(f"spec_tools_{Path(tool).stem}", TOOLS / tool)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def load_tool() -> Callable[[str], ModuleType]:
    """Return the function that loads a tool, once each."""
    return load


@pytest.fixture(scope="session")
def agree() -> ModuleType:
    """Return spec/tools/agree.py."""
    return load("agree.py")
