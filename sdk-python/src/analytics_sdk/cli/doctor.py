"""`doctor`: find out why events don't arrive. Stores nothing anywhere."""

from __future__ import annotations

import argparse
import platform
import tempfile
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final
from zlib import crc32

from analytics_sdk import config, folders
from analytics_sdk._limits import SPOOL_EXPIRY_DAYS
from analytics_sdk.cli import network
from analytics_sdk.cli.arguments import settings_of
from analytics_sdk.cli.check import Check, reason_of, skipped
from analytics_sdk.cli.console import Console, Outcome
from analytics_sdk.errors import ConfigError
from analytics_sdk.segment import is_supported
from analytics_sdk.version import __version__

PACKAGES: Final = ("httpx", "orjson", "platformdirs", "tenacity")

KEY_PREFIX: Final = "ak_live_"
KEY_CHARS: Final = 57
CHECKSUM_CHARS: Final = 6
ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

# More than what a program that can deliver lets an event wait.
USUAL_WAIT: Final = timedelta(minutes=2)
EXPIRY: Final = timedelta(days=SPOOL_EXPIRY_DAYS)
NEARLY: Final = 0.9


def tell(options: argparse.Namespace, console: Console) -> Outcome:
    """Make every check, and tell each when it is made."""
    checks: list[Check] = []
    for check in examine(settings_of(options), options.timeout):
        checks.append(check)
        console.say(f"{check.status:<8} {check.name:<10} {check.message}")
        for name, setting in check.facts.get("settings", {}).items():
            console.say(f"{'':19} {name:<19} {setting['value']}  ({setting['origin']})")
        if check.advice:
            console.say(f"{'':19} -> {check.advice}")
    statuses = [check.status for check in checks]
    told = [
        f"{statuses.count(status)} {status}"
        for status in ("failed", "warning")
        if status in statuses
    ]
    facts = {"checks": [check.as_json() for check in checks]}
    return Outcome(told[0].split()[1] if told else "ok", ", ".join(told) or "all is well", facts)


def examine(given: Mapping[str, Any], timeout_s: float) -> Iterator[Check]:
    """Yield one check after the other; each step of the network takes *timeout_s* at most."""
    yield check_versions()
    try:
        settings = config.load(given)
    except ConfigError as error:
        facts = {"mistakes": list(error.mistakes)}
        yield Check("settings", "failed", str(error), "Correct each of them.", facts)
        for name in ("key", *network.CHECKS, "spool"):
            yield skipped(name, "the settings are wrong")
        return
    yield check_settings(settings, given)
    yield check_key(settings.api_key)
    yield from network.check_network(settings, timeout_s)
    yield check_spool(settings)


def check_versions() -> Check:
    """Tell what is installed here."""
    facts = {"analytics-sdk": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            facts[name] = version(name)
        except PackageNotFoundError:  # copied to where it is, as some do for AWS Lambda
            facts[name] = "unknown"
    told = ", ".join(f"{name} {number}" for name, number in facts.items())
    return Check("versions", "ok", told, facts=facts)


def check_settings(settings: config.Config, given: Mapping[str, Any]) -> Check:
    """Tell each setting and where it comes from."""
    found = with_origins(settings, given)
    facts = {"settings": found}
    if not settings.enabled:
        message, advice = "nothing is tracked: enabled is false", "Unset ANALYTICS_ENABLED."
    elif settings.sample_rate < 1:
        message = f"only some users are tracked: sample_rate is {settings.sample_rate:g}"
        advice = "Unset ANALYTICS_SAMPLE_RATE to track all."
    elif settings.debug:
        message = "debug is on: misuse raises, and every event is printed"
        advice = "Unset ANALYTICS_DEBUG where others use the program."
    else:
        changed = sum(setting["origin"] != "default" for setting in found.values())
        message = f"{changed} of {len(found)} are not as by default"
        return Check("settings", "ok", message, facts=facts)
    return Check("settings", "warning", message, advice, facts)


def with_origins(settings: config.Config, given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return value and origin of every setting that the environment can hold."""
    # Key and address have no default: anything will do.
    defaults = _values(config.load({"api_key": "-", "api_url": "http://-"}, {}))
    found: dict[str, dict[str, Any]] = {}
    for name, value in _values(settings).items():
        origin = "default" if value in (defaults[name], "") else "environment"
        found[name] = {"value": value, "origin": "option" if given.get(name) else origin}
    return found


def _values(settings: config.Config) -> dict[str, Any]:
    names = ("durable", *config.NUMBERS, *config.SWITCHES)
    return {
        "api_key": shown_key(settings.api_key),
        "api_url": settings.api_url,
        "spool_dir": str(folders.home(settings.spool_dir)),
        **{name: getattr(settings, name) for name in names},
        **{name: sorted(getattr(settings.scrubber, name) or ()) for name in config.LISTS},
    }


def shown_key(api_key: str) -> str:
    """Return what may be shown of a key: twelve characters, but never more than half of it."""
    shown = min(folders.SHOWN_KEY_CHARS, len(api_key) // 2)
    return f"{api_key[:shown]}..." if api_key else ""


def check_key(api_key: str) -> Check:
    """Tell a key that was cut short or mistyped from one that may be right."""
    if not api_key:
        return skipped("key", "there is none")
    shown = shown_key(api_key)
    facts = {"prefix": shown}
    if is_well_formed(api_key):
        return Check("key", "ok", f"{shown} has the form of a key", facts=facts)
    if len(api_key) == KEY_CHARS and api_key.startswith(KEY_PREFIX):
        message = f"{shown} is mistyped: its check sum does not fit"
    else:
        message = f"{shown} has not the form of a key: {KEY_PREFIX} and 49 letters and digits"
    advice = "Copy the whole key again; `analytics-collector keys create` makes a new one."
    return Check("key", "warning", message, advice, facts)


def is_well_formed(api_key: str) -> bool:
    """Tell whether a collector could have made *api_key*: its end is a check sum of the rest."""
    body, checksum = api_key[:-CHECKSUM_CHARS], api_key[-CHECKSUM_CHARS:]
    if len(api_key) != KEY_CHARS or not api_key.startswith(KEY_PREFIX):
        return False
    number, digits = crc32(body.encode()), ""
    for _ in range(CHECKSUM_CHARS):
        number, digit = divmod(number, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits == checksum


def check_spool(settings: config.Config) -> Check:
    """Tell whether events can be kept on disk, and what waits there."""
    home = folders.home(settings.spool_dir)
    facts = {"home": str(home)}
    if not settings.spool_max_bytes:
        message = "the spool is off: what can't be delivered before the exit is lost"
        return Check("spool", "warning", message, "Unset ANALYTICS_SPOOL_MAX_BYTES.", facts)
    if not is_supported():
        message = "this system has no spool: what can't be delivered before the exit is lost"
        return Check("spool", "warning", message, "Call flush() before the exit.", facts)
    try:
        _try_to_write(home, settings)
        waiting = [each for each in folders.folders(home) if each.is_ours(settings.api_key)]
    except OSError as error:
        message = f"{error.filename or home} can't be used: {reason_of(error)}"
        advice = "Set ANALYTICS_SPOOL_DIR to a directory that is this user's alone."
        return Check("spool", "failed", message, advice, facts)
    for folder in waiting:
        return judge_spool(folder, settings.spool_max_bytes, datetime.now(timezone.utc))
    return Check("spool", "ok", f"{home} can be written to, nothing waits", facts=facts)


def _try_to_write(home: Path, settings: config.Config) -> None:
    """Make a file where events would be kept, and remove it; raises OSError."""
    folder = home.absolute() / folders.folder_name(settings.api_key)
    if folder.exists():
        notice = folders.about(settings.api_key, settings.api_url)
        folders.make_folder(home, folder.name, notice)
    # No folder is made for a key that may be wrong.
    while not folder.exists():
        folder = folder.parent
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"{}")


def judge_spool(folder: folders.FolderStatus, max_bytes: int, now: datetime) -> Check:
    """Tell whether what waits on disk is on its way."""
    age = timedelta() if folder.oldest_at is None else now - folder.oldest_at
    facts = {
        "home": str(folder.path.parent),
        "events": folder.events,
        "bytes": folder.bytes,
        "oldestAt": None if folder.oldest_at is None else folder.oldest_at.isoformat(),
    }
    message = f"{folder.events} events wait in {folder.path}"
    if folder.events:
        message += f", the oldest for {in_words(age)}"
    if folder.bytes >= NEARLY * max_bytes:
        message += f"; {folder.bytes} of {max_bytes} bytes are taken"
        advice = (
            "What finds no room is lost: let the collector take them, or raise spool_max_bytes."
        )
    elif folder.events and folder.segments > folder.held_segments:
        advice = "The next program with this key delivers them; now: `analytics-sdk spool flush`."
    elif folder.events and age > USUAL_WAIT:
        advice = "Running programs can't deliver them; the checks above may tell why."
    else:
        return Check("spool", "ok", message, facts=facts)
    if age >= NEARLY * EXPIRY:
        advice += f" They expire after {SPOOL_EXPIRY_DAYS} days."
    return Check("spool", "warning", message, advice, facts)


def in_words(age: timedelta) -> str:
    """Return *age* in the largest unit of which it has two."""
    seconds = max(int(age.total_seconds()), 0)
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} seconds"
