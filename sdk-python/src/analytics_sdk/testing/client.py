"""Put a recorder where a client has its worker, and such a client where the default one is."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import getpid
from typing import Any

import orjson

import analytics_sdk
from analytics_sdk.capture import Capture
from analytics_sdk.client import Client
from analytics_sdk.config import load
from analytics_sdk.default import DefaultClient
from analytics_sdk.stats import Counters, Stats
from analytics_sdk.testing.recorder import Recorder


class RecordingClient(Client):
    """
    A client that records at once instead of sending: no thread, no network, no file.

    Takes what `Client` takes, but needs no key and no address, and reads no environment, on which
    a test should not depend. `recorder` has the events.
    """

    def __init__(
        self,
        api_key: str | None = None,
        api_url: str | None = None,
        *,
        recorder: Recorder | None = None,
        **settings: Any,
    ) -> None:
        # Not the constructor of Client itself, which would make a worker; but its signature.
        inspect.signature(Client).bind(api_key, api_url, **settings)
        settings["api_key"] = api_key or "ak_live_recorded"
        settings["api_url"] = api_url or "http://recorded.invalid"
        self._config = load(settings, environ={})
        self.recorder = Recorder() if recorder is None else recorder
        self._sink = _Sink(self.recorder, raises=self._config.debug)
        worker: Any = self._sink
        self._capture = Capture(self._config, worker)

    def flush(self, timeout_s: float | None = None) -> bool:
        """Return True: nothing waits."""
        return True

    def recover(self, timeout_s: float | None = None) -> bool:
        """Return True: nothing is on disk."""
        return True

    def shutdown(self, timeout_s: float | None = None) -> bool:
        """Take no more events, as a client does; return True, for nothing waits."""
        self._sink.is_closed = True
        return True

    def stats(self) -> Stats:
        """Return the account of a client that delivers at once."""
        return self._sink.counters.stats(queued=0)


class _Sink:
    """Has of a worker what the door needs, and hands every event to the recorder."""

    def __init__(self, recorder: Recorder, *, raises: bool) -> None:
        self._recorder = recorder
        self._raises = raises
        self.is_closed = False
        self.start_afresh()

    def start_afresh(self) -> None:
        """Count anew in a forked child, as a worker does."""
        self.pid = getpid()
        self.counters: Counters = _Counters(self._recorder)

    def check_process(self) -> None:
        """Do so in one that was forked behind Python's back, too."""
        if self.pid != getpid():
            self.start_afresh()

    def put(self, event: bytes) -> str | None:
        """Record *event*, or return the word for why not."""
        __tracebackhide__ = True
        if self.is_closed:
            return "closed"
        with self.counters.lock:
            self.counters.taken += 1
            self.counters.delivered += 1
            faults = self._recorder.record(orjson.loads(event))
        if faults and self._raises:
            raise AssertionError("\n  ".join(["The collector would refuse:", *faults]))
        return None


class _Counters(Counters):
    """Tell the recorder what is refused."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def refuse(self, reason: str) -> None:
        super().refuse(reason)
        self._recorder.refuse(reason)


@contextmanager
def capture_events(**settings: Any) -> Iterator[Recorder]:
    """
    Record what the functions of `analytics_sdk` track inside the block, instead of sending it.

        with capture_events() as events:
            ...

    In all threads and tasks. Blocks nest: the innermost one records. At the end an AssertionError
    names the events that the collector would refuse, and the calls that were refused for misuse;
    with `debug=True` the call itself raises.

    *settings* are those of `Client`; neither the environment nor the client that is replaced has a
    say. The client of an `init()` inside the block is the default one after it.
    """
    __tracebackhide__ = True
    recorder = Recorder()
    outer = analytics_sdk._default
    analytics_sdk._default = _RecordingDefault(outer, recorder, settings)
    try:
        yield recorder
    finally:
        analytics_sdk._default = outer
    recorder.assert_valid()


class _RecordingDefault(DefaultClient):
    """The place of the default client while a block records."""

    def __init__(
        self, outer: DefaultClient, recorder: Recorder, settings: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self._outer = outer
        self._recorder = recorder
        self._settings = settings
        self._record()

    def put(self, client: Client) -> None:
        """Leave *client* for after the block, and record on, even after a shutdown."""
        self._outer.put(client)
        self._record()

    def _record(self) -> None:
        self._place = {"client": RecordingClient(recorder=self._recorder, **self._settings)}
