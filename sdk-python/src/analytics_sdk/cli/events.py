"""`track` and `identify`: send one event, wait, and tell what became of it."""

from __future__ import annotations

import argparse
import sys
from typing import Any, Final

from analytics_sdk.cli.arguments import parse_json, settings_of
from analytics_sdk.cli.console import Console, Failure, Outcome
from analytics_sdk.cli.waiting import Troubles, hear_troubles, wait_for
from analytics_sdk.client import Client
from analytics_sdk.errors import EventRejectedError, MisuseError
from analytics_sdk.event import build
from analytics_sdk.stats import Stats
from analytics_sdk.values import encode

LATER: Final = "the next program with this key or `analytics-sdk spool flush` delivers it"


def track(options: argparse.Namespace, _: Console) -> Outcome:
    """Send one track event."""
    properties = _members(options, "--properties")
    return _send("track", options, {"name": options.name, "properties": properties})


def identify(options: argparse.Namespace, _: Console) -> Outcome:
    """Send one identify event."""
    return _send("identify", options, {"traits": _members(options, "--traits")})


def _members(options: argparse.Namespace, option: str) -> dict[str, Any] | None:
    """Return the properties or traits: those of the JSON object, then those given one by one."""
    members: Any = {}
    if options.document is not None:
        try:
            members = parse_json(_read(options.document))
        except ValueError as error:
            raise Failure("misused", f"{option} is not JSON: {error}") from None
        if not isinstance(members, dict):
            raise Failure("misused", f"{option} must be a JSON object, such as {{}}")
    return {**members, **dict(options.members)} or None


def _read(document: str) -> str:
    if document != "-":
        return document
    # A process may be started without one.
    if sys.stdin is None:
        raise Failure("misused", "there is no standard input to read")
    return sys.stdin.buffer.read().decode()


def _send(kind: str, options: argparse.Namespace, fields: dict[str, Any]) -> Outcome:
    for name in ("user_id", "anonymous_id", "session_id", "timestamp", "message_id"):
        fields[name] = getattr(options, name)
    try:
        event = build(kind, **fields)
        encode(event)
    except MisuseError as error:
        raise Failure("misused", str(error)) from None
    # To know it again among the rejected.
    fields["message_id"] = event["messageId"]
    rejected: list[EventRejectedError] = []
    client = Client(
        **settings_of(options),
        batch_size=1,
        # Who sends an event by hand means this one.
        sample_rate=1.0,
        handle_sigterm=True,
        on_error=rejected.append,
    )
    with hear_troubles() as troubles:
        word = _deliver(client, kind, fields, options.timeout, troubles)
    facts = {"messageId": fields["message_id"], "reasons": list(troubles.told)}
    # Those that other programs had left may be among them.
    for refusal in rejected:
        if refusal.message_id == fields["message_id"]:
            facts |= {"code": refusal.code, "advice": refusal.advice}
            return Outcome("rejected", f"rejected: {refusal}", facts)
    return _outcome(word, client.stats(), troubles, facts)


def _deliver(
    client: Client, kind: str, fields: dict[str, Any], timeout_s: float, troubles: Troubles
) -> str:
    """Track the event and let the client end; return delivered, waiting or interrupted."""
    word = "waiting"
    try:
        if not getattr(client, kind)(**fields):
            raise _not_taken(client.stats(), troubles)
        if wait_for(client.flush, timeout_s, troubles):
            word = "delivered"
    except KeyboardInterrupt:
        word = "interrupted"
    client.shutdown(0)
    return word


def _not_taken(stats: Stats, troubles: Troubles) -> Failure:
    reason = next(iter(stats.refused), "closed")
    words = "ANALYTICS_ENABLED is false" if reason == "disabled" else reason
    return Failure("failed", f"not sent: {troubles.told.get(reason, words)}", code=reason)


def _outcome(word: str, stats: Stats, troubles: Troubles, facts: dict[str, Any]) -> Outcome:
    why = "; ".join(troubles.told.values()) or "the collector did not take it in time"
    is_cut, is_open = word == "interrupted", word != "delivered"
    if not stats.taken:
        return Outcome("interrupted", "interrupted", facts)
    if is_open and stats.dropped.get("shutdown"):
        return Outcome("interrupted" if is_cut else "failed", f"lost: {why}", facts)
    if is_open and stats.spooled:
        message = f"kept on disk, until {LATER}: {why}"
        return Outcome("interrupted" if is_cut else "spooled", message, facts)
    # At the last moment, perhaps. What others had left may be among the duplicates.
    facts["duplicate"] = stats.duplicates > 0 and not stats.adopted
    known = ", which the collector had already" if facts["duplicate"] else ""
    return Outcome("delivered", f"delivered: {facts['messageId']}{known}", facts)
