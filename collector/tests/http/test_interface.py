"""The interface that spec/openapi.yaml describes is the one that is served, no more and no less."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from analytics_collector.http.routes import routes

INTERFACE = Path(__file__).parents[3] / "spec/openapi.yaml"
METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}
# What comes with every GET, and what browsers ask before they send; no client calls it on purpose.
IMPLIED = {"HEAD", "OPTIONS"}


def nameless(path: str) -> str:
    """Return *path* without the names of its parameters, which are ours alone."""
    return re.sub(r"{[^}]*}", "{}", path)


def served() -> set[str]:
    """Return each method and address of the application."""
    return {
        f"{method} {nameless(route.path)}"
        for route in routes()
        for method in (route.methods or set()) - IMPLIED
    }


def described() -> set[str]:
    """Return each method and address of the document."""
    paths = yaml.safe_load(INTERFACE.read_text(encoding="utf-8"))["paths"]
    return {
        f"{method.upper()} {nameless(path)}"
        for path, operations in paths.items()
        for method in operations
        if method in METHODS
    }


class Strict(yaml.SafeLoader):
    """Refuses a member that is there twice, of which YAML keeps the last without a word."""

    def construct_mapping(self, node, deep=False):
        names = [key.value for key, _ in node.value]
        assert len(set(names)) == len(names), f"{node.start_mark}: a member is there twice"
        return super().construct_mapping(node, deep)


def test_nothing_is_described_twice():
    """Of two descriptions of an address one would be lost."""
    yaml.load(INTERFACE.read_text(encoding="utf-8"), Strict)


def test_every_address_that_is_served_is_described():
    """A route that is missing there is missing in every client that was made from it."""
    missing = sorted(served() - described())

    assert not missing, f"add to spec/openapi.yaml, then run spec/tools/copies.py: {missing}"


def test_every_address_that_is_described_is_served():
    """What the document promises, http/routes.py keeps."""
    broken = sorted(described() - served())

    assert not broken, f"spec/openapi.yaml describes what http/routes.py does not have: {broken}"
