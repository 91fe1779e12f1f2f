"""`spool status|flush|purge`: look after the events that wait on disk."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from analytics_sdk import config, folders
from analytics_sdk._limits import MAX_SPOOL_BYTES
from analytics_sdk.cli.arguments import settings_of
from analytics_sdk.cli.console import Console, Failure, Outcome
from analytics_sdk.cli.waiting import hear_troubles, wait_for
from analytics_sdk.client import Client
from analytics_sdk.segment import Segment


def status(options: argparse.Namespace, console: Console) -> Outcome:
    """Tell what waits, in the folder of the key or in all."""
    home, found = _find(options)
    for folder in found:
        console.say(f"{folder.path} (key {folder.key_prefix}..., {folder.api_url})")
        console.say(f"  {_told(folder)}")
    events = sum(folder.events for folder in found)
    told = [_as_json(folder) for folder in found]
    facts = {"home": str(home), "events": events, "folders": told}
    return Outcome("ok", f"{events} events wait in {home}", facts)


def flush(options: argparse.Namespace, _: Console) -> Outcome:
    """Deliver what ended programs have left for the key."""
    # To call this is to want it, whatever holds for programs that track.
    given = {**settings_of(options), "enabled": True, "spool_max_bytes": MAX_SPOOL_BYTES}
    if options.source is not None:
        given["spool_dir"] = _hand_over(options.source, config.load(given))
    client = Client(**given)
    with hear_troubles() as troubles:
        try:
            is_done = wait_for(client.recover, options.timeout, troubles)
        finally:
            client.shutdown(0)
    stats = client.stats()
    facts = {
        "delivered": stats.delivered,
        "rejected": stats.rejected,
        "expired": stats.expired,
        "reasons": list(troubles.told),
    }
    message = f"{stats.delivered} events delivered, {stats.rejected} rejected"
    if is_done:
        return Outcome("ok", message, facts)
    why = "; ".join(troubles.told.values()) or "there was not enough time"
    return Outcome("failed", f"{message}, others remain: {why}", facts)


def _hand_over(source: Path, settings: config.Config) -> Path:
    """Move what ended programs have left in *source* to the folder of the key; return the home."""
    source = source.absolute()
    if not (source / folders.ABOUT).is_file():
        raise Failure("misused", f"{source} is no folder of `analytics-sdk spool status`")
    # In the same home, so that to move a file is one step: it is never in both, never in none.
    name = folders.folder_name(settings.api_key)
    notice = folders.about(settings.api_key, settings.api_url)
    target = folders.make_folder(source.parent, name, notice)
    for path in sorted(source.iterdir()):
        segment = Segment.adopt(path) if folders.NAME.fullmatch(path.name) else None
        if segment is not None:
            path.rename(target / path.name)
            segment.close()
    return source.parent


def purge(options: argparse.Namespace, console: Console) -> Outcome:
    """Delete what ended programs have left, in the folder of the key or in all."""
    home, found = _find(options)
    left = [folder for folder in found if folder.segments > folder.held_segments]
    if left and not options.yes:
        if sys.stdin is None or not sys.stdin.isatty():
            raise Failure("misused", "this deletes events for good; say so with --yes")
        places = [f"{folder.path}: {_told(folder)}" for folder in left]
        question = "Delete what ended programs have left there, for good?"
        if not console.confirm("\n".join([*places, question])):
            raise Failure("failed", "nothing was deleted")
    events = sum(folders.purge(each.path, older_than_s=options.older_than) for each in found)
    return Outcome("ok", f"{events} events deleted", {"home": str(home), "events": events})


def _find(options: argparse.Namespace) -> tuple[Path, list[folders.FolderStatus]]:
    # A client that is not enabled needs neither key nor address, and nor does this.
    settings = config.load({**settings_of(options), "enabled": False})
    home, key = folders.home(settings.spool_dir), settings.api_key
    return home, [each for each in folders.folders(home) if not key or each.is_ours(key)]


def _told(folder: folders.FolderStatus) -> str:
    told = f"{folder.events} events, {folder.bytes} bytes"
    if folder.oldest_at is not None:
        told += f", the oldest of {folder.oldest_at:%Y-%m-%d %H:%M:%S %Z}"
    if folder.held_segments:
        told += f"; running programs hold {folder.held_segments} of {folder.segments} segments"
    return told


def _as_json(folder: folders.FolderStatus) -> dict[str, Any]:
    return {
        "path": str(folder.path),
        "keyPrefix": folder.key_prefix,
        "apiUrl": folder.api_url,
        "events": folder.events,
        "bytes": folder.bytes,
        "segments": folder.segments,
        "heldSegments": folder.held_segments,
        "oldestAt": None if folder.oldest_at is None else folder.oldest_at.isoformat(),
    }
