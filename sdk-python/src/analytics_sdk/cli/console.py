"""How a command ends, for people and for programs.

Exit codes:
  0    done: delivered, nothing left to do, no check failed
  1    not done: the reason is told
  2    misused: an argument or a setting is wrong
  3    kept on disk: not delivered yet; any program with the same key will do it
  4    rejected: the collector refuses the event for good
  130  interrupted (Ctrl-C)
"""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

EXIT_CODES: Final = {
    "ok": 0,
    "warning": 0,
    "delivered": 0,
    "failed": 1,
    "misused": 2,
    "spooled": 3,
    "rejected": 4,
    "interrupted": 130,
}
# What `--help` says of them.
EPILOG: Final = (__doc__ or "").partition("\n\n")[2]

# A user may paste a key where none belongs, and errors quote what they do not understand.
KEY: Final = re.compile(r"(ak_live_\w{4})\w+")


@dataclass(frozen=True)
class Outcome:
    """How a command ended: a word of `EXIT_CODES`, the same in a sentence, facts for programs."""

    status: str
    message: str
    facts: Mapping[str, Any] = field(default_factory=dict)


class Failure(Exception):
    """The command ends here, with `outcome`."""

    def __init__(self, status: str, message: str, **facts: Any) -> None:
        self.outcome = Outcome(status, message, facts)
        super().__init__(message)


class Console:
    """Where the result goes: sentences, or with `--json` one object on standard output."""

    def __init__(self, *, is_json: bool) -> None:
        self._is_json = is_json
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")

    def say(self, text: str) -> None:
        """Tell people how far it is."""
        if not self._is_json:
            print(harmless(text), flush=True)

    def confirm(self, question: str) -> bool:
        """Return whether somebody at the keyboard says yes."""
        print(f"{harmless(question)} [y/N] ", end="", file=sys.stderr, flush=True)
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    def end(self, outcome: Outcome) -> int:
        """Tell the outcome and return its exit code."""
        code = EXIT_CODES[outcome.status]
        if self._is_json:
            told = {"status": outcome.status, "exitCode": code, "message": outcome.message}
            print(KEY.sub(r"\1...", json.dumps({**told, **outcome.facts})), flush=True)
        elif code:
            print(f"analytics-sdk: {harmless(outcome.message)}", file=sys.stderr, flush=True)
        else:
            self.say(outcome.message)
        return code


def harmless(text: str) -> str:
    """Return *text* without whole keys, and without what a terminal would obey."""
    text = "".join(char if char.isprintable() or char == "\n" else "?" for char in text)
    return KEY.sub(r"\1...", text)
