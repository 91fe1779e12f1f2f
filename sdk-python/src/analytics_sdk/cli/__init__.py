"""The command line: `analytics-sdk`, the same as `python -m analytics_sdk`.

Exit codes: 0 done, 1 not done, 2 misused, 3 kept on disk, 4 rejected, 130 interrupted; `--help`
and `console` say more.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Final

from analytics_sdk.cli import doctor, events, spooled, typed
from analytics_sdk.cli.arguments import make_parser
from analytics_sdk.cli.console import EXIT_CODES, Console, Failure, Outcome
from analytics_sdk.errors import ConfigError

COMMANDS: Final[dict[str, Callable[[argparse.Namespace, Console], Outcome]]] = {
    "track": events.track,
    "identify": events.identify,
    "doctor": doctor.tell,
    "spool status": spooled.status,
    "spool flush": spooled.flush,
    "spool purge": spooled.purge,
    "codegen": typed.generate,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that *arguments* (those of the process) name, and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # Known before the words are parsed, for that may fail.
    options = words[: words.index("--")] if "--" in words else words
    console = Console(is_json="--json" in options)
    try:
        return console.end(_run(words, console))
    except BrokenPipeError:
        # `| head` has seen enough. What is still buffered must not fail once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_CODES["failed"]


def _run(words: Sequence[str], console: Console) -> Outcome:
    try:
        options = make_parser().parse_args(words)
        return COMMANDS[options.command](options, console)
    except Failure as failure:
        return failure.outcome
    except ConfigError as error:
        return Outcome("misused", str(error))
    except BrokenPipeError:
        raise
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return Outcome("failed", f"{where}{error.strerror or error}")
    except KeyboardInterrupt:
        return Outcome("interrupted", "interrupted")
