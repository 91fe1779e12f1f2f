"""What is on this machine: the secret, the data directory, the spool."""

from __future__ import annotations

import math
import os
import shutil
import sqlite3
import stat
from collections import Counter
from pathlib import Path
from typing import Final

from analytics_collector.adapters.spool.file import read_state
from analytics_collector.adapters.spool.sqlite import spool_name
from analytics_collector.doctor.findings import Finding
from analytics_collector.settings import SPOOL_IN_REDIS, Settings

# What `openssl rand -hex 16` has, with some room for chance.
_STRONG_BITS: Final = 100.0
_WEAK_BITS: Final = 48.0
_PLACEHOLDERS: Final = ("secret", "change", "password", "example", "default", "1234", "test")
_ADVICE_ON_SECRETS: Final = (
    "make one with `openssl rand -base64 32`, and put the present one into "
    "ANALYTICS_SECRET_PREVIOUS until its keys are rotated"
)
_FULL: Final = 0.8
_PRIVATE_FILES: Final = ("secret", "credentials.json", "url")


def check_secret(settings: Settings) -> Finding:
    """Look at how hard the secret is to guess. Nothing of it is told, not even its length."""
    bits = _bits(settings.secret)
    if bits < _WEAK_BITS:
        weakness = "can be guessed: its characters repeat"
        return Finding("secret", "fail", weakness, _ADVICE_ON_SECRETS)
    if any(word in settings.secret.lower() for word in _PLACEHOLDERS):
        return Finding("secret", "warn", "looks like a placeholder", _ADVICE_ON_SECRETS)
    if bits < _STRONG_BITS:
        return Finding("secret", "warn", "is short or not random", _ADVICE_ON_SECRETS)
    if settings.secret in settings.secret_previous:
        advice = "take it out of ANALYTICS_SECRET_PREVIOUS"
        return Finding("secret", "warn", "is among the previous ones, too", advice)
    return Finding("secret", "ok", "is long and random enough")


def _bits(text: str) -> float:
    """Return how much information *text* holds, going by how often its characters occur."""
    size = len(text)
    return -sum(n * math.log2(n / size) for n in Counter(text).values())


def check_data_dir(path: Path) -> Finding:
    """Look at who may read what `up` or the spool keeps in *path*."""
    if not path.exists():
        return Finding("data directory", "ok", f"{path} is not in use")
    if not path.is_dir():
        return Finding("data directory", "fail", f"{path} is no directory", "choose another")
    if (owner := path.stat().st_uid) != os.geteuid():
        return Finding(
            "data directory",
            "warn",
            f"{path} belongs to user id {owner}, and this is {os.geteuid()}",
            "run the collector and this command as that user",
        )
    open_ones = [path] if _mode(path) & 0o066 else []
    open_ones += [
        file for name in _PRIVATE_FILES if (file := path / name).exists() and _mode(file) & 0o077
    ]
    if open_ones:
        names = ", ".join(map(str, open_ones))
        return Finding("data directory", "fail", f"others may read {names}", f"chmod go= {names}")
    return Finding("data directory", "ok", f"{path} is private")


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def check_spool(settings: Settings) -> Finding:
    """Look at where events are acknowledged while Postgres is away, and at what waits there."""
    if settings.ack != "spool":
        detail = "not in use: while Postgres is away clients get 503 and keep their events"
        return Finding("spool", "ok", detail)
    if settings.spool == SPOOL_IN_REDIS:
        return Finding("spool", "ok", "is in Redis; see there")
    folder = settings.data_dir / "spool" if settings.spool is None else Path(settings.spool)
    if not folder.exists():
        return _spool_to_be_made(folder)
    if not os.access(folder, os.W_OK | os.X_OK):
        return Finding("spool", "fail", f"{folder} can't be written to", f"chown or chmod {folder}")
    if _mode(folder) & 0o077:
        return Finding("spool", "fail", f"others may enter {folder}", f"chmod 700 {folder}")
    return _spool_contents(folder, settings)


def _spool_to_be_made(folder: Path) -> Finding:
    nearest = next(parent for parent in folder.absolute().parents if parent.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
        advice = f"make {folder} for the user of the collector, with mode 700"
        return Finding("spool", "fail", f"{folder} can't be made in {nearest}", advice)
    return Finding("spool", "ok", f"{folder} will be made by the server")


def _spool_contents(folder: Path, settings: Settings) -> Finding:
    path = folder / f"{spool_name(settings.database_url)}.sqlite"
    used, events, refused = 0, 0, 0
    if path.exists():
        try:
            state = read_state(path)
        except sqlite3.Error as exc:
            advice = "a server sets it aside and begins another; what it holds has to be rescued"
            return Finding("spool", "fail", f"{path}: {type(exc).__name__}", advice)
        used, events, refused = state.bytes, state.events, state.refused
    room = settings.spool_max_bytes - used
    waiting = f"{events} events wait in {folder}"
    if refused:
        advice = "look at the server's log; they stay in the spool until you decide"
        return Finding("spool", "warn", f"Postgres refused {refused} acknowledged events", advice)
    if used > _FULL * settings.spool_max_bytes:
        advice = "bring Postgres back, or raise ANALYTICS_SPOOL_MAX_BYTES"
        return Finding("spool", "warn", f"nearly full: {waiting}", advice)
    if shutil.disk_usage(folder).free < room:
        advice = "lower ANALYTICS_SPOOL_MAX_BYTES, or give it a larger disk"
        return Finding("spool", "warn", f"the disk has no room for {room} bytes more", advice)
    return Finding("spool", "ok", waiting)
