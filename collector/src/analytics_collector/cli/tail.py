"""Watch events come in, from the command line."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import click

from analytics_collector.cli.common import data_dir_option, told
from analytics_collector.errors import CollectorError, ConfigurationError
from analytics_collector.up import Installation

_SILENCE_S: Final = 45.0  # three times as long as a server stays silent
_FIRST_WAIT_S: Final = 1.0
_LONGEST_WAIT_S: Final = 30.0
_MAX_REFUSAL_BYTES: Final = 64 * 1024


class TailRefused(CollectorError):
    """The server will not let us listen, whenever we ask."""


class _Lost(Exception):
    """The connection is over, or there is none; it may be had again after `wait_s`."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


@dataclass(slots=True)
class Frame:
    """One server-sent event."""

    kind: str
    data: str


@dataclass(slots=True)
class Tail:
    """A connection to the live tail that is made again whenever it is lost."""

    url: str
    key: str = field(repr=False)
    query: str
    last_id: str | None
    is_local: bool

    def frames(self) -> Iterator[Frame]:
        """Yield what comes, for ever. Raises `TailRefused`; at the first try also `OSError`."""
        waits = 0
        was_connected = False
        while True:
            reason, wait_s = "the stream ended", None
            try:
                for frame in self._connection():
                    was_connected, waits = True, 0
                    yield frame
            except _Lost as exc:
                if not was_connected and exc.wait_s is None:
                    raise TailRefused(f"{self.url}: {exc}") from exc
                reason, wait_s = str(exc), exc.wait_s
            pause_s = wait_s or min(_FIRST_WAIT_S * 2.0**waits, _LONGEST_WAIT_S)
            waits += 1
            click.echo(f"{reason}; again in {pause_s:g} s", err=True)
            time.sleep(pause_s)

    def _connection(self) -> Iterator[Frame]:
        headers = {"x-api-key": self.key, "Accept": "text/event-stream"}
        if self.last_id is not None:
            headers["Last-Event-ID"] = self.last_id
        request = urllib.request.Request(f"{self.url}/api/v1/live{self.query}", headers=headers)
        # Whatever http_proxy says, a server on this machine is asked directly.
        proxies = [urllib.request.ProxyHandler({})] if self.is_local else []
        try:
            with urllib.request.build_opener(*proxies).open(request, timeout=_SILENCE_S) as answer:
                yield Frame("open", "")
                yield from self._read(answer)
        except urllib.error.HTTPError as exc:
            raise _refusal(exc) from exc
        except urllib.error.URLError as exc:
            raise _Lost(str(exc.reason)) from exc
        except (OSError, http.client.HTTPException) as exc:
            raise _Lost(str(exc) or type(exc).__name__) from exc

    def _read(self, answer: Any) -> Iterator[Frame]:
        kind, data, last_id = "message", [], self.last_id
        for raw in answer:
            line = raw.decode().rstrip("\r\n")
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "id":
                last_id = value
            elif name == "event":
                kind = value
            elif name == "data":
                data.append(value)
            elif not line:
                self.last_id = last_id
                if data:
                    yield Frame(kind, "\n".join(data))
                kind, data = "message", []


def _refusal(answer: urllib.error.HTTPError) -> Exception:
    """Return what an answer that is not 200 means: try again, or give up."""
    try:
        told = json.loads(answer.read(_MAX_REFUSAL_BYTES))
        reason = str(told["error"])
    except (ValueError, KeyError, TypeError, OSError):
        reason = f"answered {answer.code}"
    if answer.code not in (408, 429) and answer.code < 500:
        return TailRefused(reason)
    after = answer.headers.get("Retry-After", "")
    return _Lost(reason, min(float(after), _LONGEST_WAIT_S) if after.isdecimal() else _FIRST_WAIT_S)


@click.command()
@click.option("--url", envvar="ANALYTICS_API_URL", show_envvar=True, help="Where the server is.")
@click.option(
    "--key", envvar="ANALYTICS_API_KEY", show_envvar=True, help="A key with the scope read."
)
@data_dir_option
@click.option("--name", "names", multiple=True, help="Only events of this name; may be repeated.")
@click.option("--type", "types", multiple=True, help="Only events of this type; may be repeated.")
@click.option("--user", "users", multiple=True, help="Only events of this user; may be repeated.")
@click.option("--since", help="Go on behind the event of this id (see --json).")
@click.option("--json", "as_machine", is_flag=True, help="Print a line of JSON for each event.")
@told
def tail(
    url: str | None,
    key: str | None,
    data_dir: Path | None,
    names: tuple[str, ...],
    types: tuple[str, ...],
    users: tuple[str, ...],
    since: str | None,
    as_machine: bool,
) -> None:
    """Print each event of a project as it is committed, until stopped with Ctrl-C.

    A connection that is lost is made again, and what was missed comes first.
    """
    if data_dir is not None:
        installation = Installation(data_dir.absolute())
        url, key = installation.running_url(), installation.kept_key()
    if not url or not key:
        raise ConfigurationError(
            "--url and --key are needed (or ANALYTICS_API_URL and ANALYTICS_API_KEY); or, for a "
            "running `up`, its directory with --data-dir"
        )
    asked = [("name", name) for name in names]
    asked += [("type", kind) for kind in types] + [("userId", user) for user in users]
    query = "?" + urlencode(asked) if asked else ""
    connection = Tail(url.rstrip("/"), key, query, since, is_local=data_dir is not None)
    try:
        for frame in connection.frames():
            _print(frame, connection, as_machine)
    except (KeyboardInterrupt, BrokenPipeError):
        pass  # how it is meant to end


def _print(frame: Frame, connection: Tail, as_machine: bool) -> None:
    if frame.kind != "message":
        if frame.data:
            click.echo(f"{frame.kind}: {_printable(json.loads(frame.data)['message'])}", err=True)
        return
    event = json.loads(frame.data)
    if as_machine:
        click.echo(json.dumps({"id": connection.last_id, **event}))
        return
    who = event["userId"] or event["anonymousId"] or "-"
    facts = event["traits"] or event["properties"]
    parts = [event["receivedAt"], event["type"], event["name"], who]
    parts.append(json.dumps(facts, ensure_ascii=False))
    click.echo("  ".join(_printable(part) for part in parts))


def _printable(text: str) -> str:
    """Return *text* without what a terminal would obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
