"""What can stand on the command line, and what it means. Does nothing yet."""

from __future__ import annotations

import argparse
import json
import math
import re
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NoReturn

from analytics_sdk.cli.console import EPILOG, Failure
from analytics_sdk.version import __version__

AGE: Final = re.compile(r"(\d{1,9})([smhdw])", re.ASCII)
SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
FRACTION: Final = re.compile(r"\.(\d+)", re.ASCII)
TIMEOUT_S: Final = 10.0
LONGEST_TIMEOUT_S: Final = 1_000_000.0

TRACK_EXAMPLES: Final = """
  analytics-sdk track checkout_completed --property amount=42.5 --property plan=pro --user-id u-1
  analytics-sdk track imported --property code='"007"'    # the text 007
  jq -c . facts.json | analytics-sdk track imported --properties - --json"""
IDENTIFY_EXAMPLES: Final = """
  analytics-sdk identify u-1 --trait plan=pro --trait seats=3"""
DOCTOR_EXAMPLES: Final = """
  analytics-sdk doctor
  analytics-sdk doctor --api-url https://collector.example.com --json"""
STATUS_EXAMPLES: Final = """
  analytics-sdk spool status --json"""
FLUSH_EXAMPLES: Final = """
  analytics-sdk spool flush --timeout 60
  analytics-sdk spool flush --from FOLDER    # events that were kept for a key which is no more"""
PURGE_EXAMPLES: Final = """
  analytics-sdk spool purge                  # asks first
  analytics-sdk spool purge --older-than 30d --yes"""
CODEGEN_EXAMPLES: Final = """
  analytics-sdk codegen schemas.json -o events.py
  analytics-sdk codegen schemas.json -o events.py --check    # for CI: is it up to date?"""


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes end a command as all others do."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **settings
        )

    def error(self, message: str) -> NoReturn:
        """Raise Failure."""
        raise Failure("misused", f"{message}; see {self.prog} --help")


def make_parser() -> Parser:
    """Return the parser of all commands; `command` of what it parses names the one to run."""
    parser = Parser(
        prog="analytics-sdk",
        description="Send events, and find out why they don't arrive.",
        epilog=EPILOG,
    )
    parser.add_argument("--version", action="version", version=__version__)
    _add_common(parser, api_key=None, api_url=None, spool_dir=None, json=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_event_commands(commands)
    doctor = _add(
        commands, "doctor", "find out why events don't arrive; sends none", DOCTOR_EXAMPLES
    )
    _add_timeout(doctor, "how long each step may take")
    spool = commands.add_parser("spool", help="look after events that wait on disk")
    _add_common(spool)
    _add_spool_commands(spool.add_subparsers(required=True, metavar="COMMAND"))
    codegen = _add(
        commands, "codegen", "write typed functions for events by their schemas", CODEGEN_EXAMPLES
    )
    codegen.add_argument("source", type=Path, metavar="SOURCE", help="a file with JSON Schemas")
    codegen.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    codegen.add_argument("--check", action="store_true", help="write nothing, fail if FILE differs")
    return parser


def _add_event_commands(commands: Any) -> None:
    track = _add(commands, "track", "send one event and wait for delivery", TRACK_EXAMPLES)
    track.add_argument("name", metavar="NAME", help="what happened")
    _add_members(track, "--property", "--properties")
    track.add_argument("--user-id", metavar="ID")
    identify = _add(commands, "identify", "tell who a user is", IDENTIFY_EXAMPLES)
    identify.add_argument("user_id", metavar="USER_ID")
    _add_members(identify, "--trait", "--traits")
    for parser in (track, identify):
        parser.add_argument("--anonymous-id", metavar="ID")
        parser.add_argument("--session-id", metavar="ID")
        parser.add_argument(
            "--timestamp", type=timestamp, metavar="ISO", help="local time unless it has an offset"
        )
        parser.add_argument(
            "--message-id", metavar="UUID", help="the collector stores an event once for each"
        )
        _add_timeout(parser, "how long to wait for delivery")


def _add_spool_commands(commands: Any) -> None:
    _add(commands, "status", "tell what waits, for the key given or for all", STATUS_EXAMPLES)
    flush = _add(commands, "flush", "deliver what ended programs have left", FLUSH_EXAMPLES)
    _add_timeout(flush, "how long to try")
    flush.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="FOLDER",
        help="a folder of `spool status` of another key: deliver with the key given here",
    )
    purge = _add(commands, "purge", "delete what ended programs have left", PURGE_EXAMPLES)
    purge.add_argument(
        "--older-than", type=age, default=0, metavar="AGE", help="such as 90s, 45m, 12h, 30d, 4w"
    )
    purge.add_argument("--yes", action="store_true", help="don't ask")


def _add(commands: Any, name: str, summary: str, examples: str) -> argparse.ArgumentParser:
    parser: Parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"Examples:{examples}\n\n{EPILOG}",
    )
    _add_common(parser)
    # "analytics-sdk spool flush" → "spool flush"
    parser.set_defaults(command=parser.prog.partition(" ")[2])
    return parser


def _add_common(parser: argparse.ArgumentParser, **defaults: Any) -> None:
    """Add the options that may stand before the command or behind it."""
    group = parser.add_argument_group("common options")

    def add(name: str, **settings: Any) -> None:
        # What is not given behind the command must not undo what was given before it.
        default = defaults.get(name, argparse.SUPPRESS)
        group.add_argument(f"--{name.replace('_', '-')}", default=default, **settings)

    add("api_key", metavar="KEY", help="better in ANALYTICS_API_KEY: others see it here, in `ps`")
    add("api_url", metavar="URL", help="or ANALYTICS_API_URL")
    add("spool_dir", metavar="DIR", help="or ANALYTICS_SPOOL_DIR")
    add("json", action="store_true", help="print one JSON object and nothing else")


def _add_members(parser: argparse.ArgumentParser, one: str, many: str) -> None:
    parser.add_argument(
        one,
        dest="members",
        type=member,
        action="append",
        default=[],
        metavar="K=V",
        help="V is JSON if it can be read as such (42.5, true, [1, 2]), else text; repeat for more",
    )
    parser.add_argument(
        many,
        dest="document",
        metavar="JSON",
        help=f"a JSON object, or - to read it from standard input; {one} adds to it",
    )


def _add_timeout(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument(
        "--timeout", type=seconds, default=TIMEOUT_S, metavar="S", help=f"{text} (10)"
    )


# Values


def member(text: str) -> tuple[str, Any]:
    """Return name and value of `k=v`."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not K=V, such as plan=pro")
    try:
        return name, parse_json(value)
    except ValueError:
        return name, value


def parse_json(text: str) -> Any:
    """Return *text* as JSON, in which nothing is NaN or infinite. Raises ValueError."""
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _refuse(digits)


def timestamp(text: str) -> datetime:
    """Return the moment that *text* names."""
    # Python 3.10 knows neither Z nor fractions of other lengths than 3 and 6.
    whole = FRACTION.sub(lambda found: f".{found[1][:6]:0<6}", text.strip())
    if whole[-1:] in ("Z", "z"):
        whole = f"{whole[:-1]}+00:00"
    try:
        return datetime.fromisoformat(whole)
    except ValueError:
        message = f"{text!r} is no ISO 8601 time, such as 2026-11-20T10:00:31Z"
        raise argparse.ArgumentTypeError(message) from None


def seconds(text: str) -> float:
    """Return a number of seconds that something may take."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number <= LONGEST_TIMEOUT_S:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0 to a million")
    return number


def age(text: str) -> int:
    """Return the seconds of an age such as 30d."""
    found = AGE.fullmatch(text.strip())
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no age, such as 90s, 45m, 12h, 30d or 4w")
    return int(found[1]) * SECONDS[found[2]]


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """Return what the options say of a client's settings; None leaves it to the environment."""
    return {name: getattr(options, name) for name in ("api_key", "api_url", "spool_dir")}
