"""What is written in any of the shipped files means something to the collector."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from analytics_collector.cli import main
from analytics_collector.settings import Settings

_OWN = {f"ANALYTICS_{spec.name.upper()}" for spec in fields(Settings)}
# Of the clients: the SDK, and `tail`.
_CLIENTS = {"ANALYTICS_API_URL", "ANALYTICS_API_KEY"}
_IN_FILES = {f"ANALYTICS_{name}_FILE" for name in ("DATABASE_URL", "REDIS_URL", "SECRET")}


def _texts(deploy: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(deploy.rglob("*")):
        if path.is_file() and "secrets" not in path.parts:
            yield str(path.relative_to(deploy)), path.read_text()


def test_every_setting_is_one_of_the_collector(deploy):
    """A misspelt variable would be ignored without a word."""
    unknown = {
        (name, variable)
        for name, text in _texts(deploy)
        for variable in re.findall(r"\bANALYTICS_[A-Z_]+\b", text)
        if variable not in _OWN | _CLIENTS | _IN_FILES
    }

    assert unknown == set()


def _commands(deploy: Path) -> list[list[str]]:
    """Return the arguments of every call of the collector in the shipped files."""
    found = [
        shlex.split(line.partition("/bin/analytics-collector ")[2])
        for unit in (deploy / "systemd").glob("*.service")
        for line in unit.read_text().splitlines()
        if line.startswith("Exec")
    ]
    for name, text in _texts(deploy):
        if not name.endswith(("_helpers.tpl", ".service")):
            found += [
                shlex.split(words)
                for words in re.findall(r"(?:-- |collector )analytics-collector (.+)", text)
            ]
        found += [
            [word.strip().strip('"') for word in words.split(",")]
            for words in re.findall(
                r"(?:args|command): \[((?:serve|worker|migrate)[^\]{]*)\]", text
            )
        ]
    found += [
        [str(word) for word in service["command"]]
        for service in yaml.safe_load((deploy / "compose.yaml").read_text())["services"].values()
        if "build" in service
    ]
    return found


def test_every_command_is_one_of_the_collector(deploy):
    """With options that it takes."""
    commands = _commands(deploy)

    assert {words[0] for words in commands} >= {"serve", "worker", "migrate", "projects", "keys"}
    for words in commands:
        _parse(words)


def _parse(words: list[str]) -> None:
    context = main.make_context("analytics-collector", [*words], resilient_parsing=False)
    name, command, rest = main.resolve_command(context, [*words])
    assert command is not None
    if hasattr(command, "commands"):
        name, command, rest = command.resolve_command(context, rest)
        assert command is not None
    command.make_context(name, rest, parent=context)


@pytest.mark.parametrize("words", [["serv"], ["serve", "--prot", "1"], ["keys", "make"]])
def test_a_command_that_is_none_would_be_noticed(words):
    """The test above is no formality."""
    with pytest.raises(Exception, match="No such"):
        _parse(words)
