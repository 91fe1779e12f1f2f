"""The one thread that delivers: waits for a batch, sends it, retries, accounts for every event.

Started on first use. A child of fork() has our locks, perhaps held, but not our thread: it starts
afresh with new ones, and leaves the events that waited to its parent.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from contextlib import suppress
from datetime import datetime, timezone
from math import inf
from os import getpid
from queue import Empty, SimpleQueue
from random import SystemRandom
from time import monotonic
from typing import TYPE_CHECKING, Any

import orjson

from analytics_sdk import retry
from analytics_sdk._limits import MAX_BATCH_EVENTS, MAX_RETRY_DELAY_S
from analytics_sdk.batch import MAX_EVENTS_BYTES, halves, pack
from analytics_sdk.buffer import Buffer
from analytics_sdk.config import Config
from analytics_sdk.errors import EventRejectedError, call_user_code
from analytics_sdk.logs import QuietLogger, facts_of
from analytics_sdk.process import call_at_exit, forget_at_exit, restart_after_fork, unforkable
from analytics_sdk.stats import Counters

if TYPE_CHECKING:
    import httpx
    import tenacity

    from analytics_sdk.transport import Transport

# So that a batch which is answered at the last moment is still counted.
GRACE_S = 0.1
# More than a lock can wait is an error, so no infinity.
LONGEST_SLEEP_S = 3600.0

# Not the module's generator, which a program may have seeded to repeat itself.
jitter = SystemRandom().random


class Worker:
    """Takes events as bytes, and sees each to its outcome."""

    def __init__(self, config: Config, http_transport: httpx.BaseTransport | None = None) -> None:
        self._config = config
        self._http_transport = http_transport
        self._log = QuietLogger(__name__)
        # When to give up (monotonic); None as long as events are welcome.
        self._close_by: float | None = None
        self.start_afresh()
        restart_after_fork(self)

    def start_afresh(self) -> None:
        """Forget the thread, the locks and the events of the parent process, touching none."""
        self.pid = getpid()
        self.counters = Counters()
        self.buffer = Buffer(self.counters, max_events=self._config.max_queue_size)
        self._lock = self.counters.lock
        # All that wakes the thread, for its put() can be re-entered by a signal handler.
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._pending: deque[list[bytes]] = deque()
        self._flush_target = 0
        self._nudges = self._nudges_seen = 0
        self._not_before = 0.0
        self._is_lossless = True

    # For any thread

    def check_process(self) -> None:
        """Start afresh in a child that was forked behind Python's back, as uWSGI does."""
        if self.pid != getpid():
            self.start_afresh()

    def put(self, event: bytes) -> str | None:
        """Take *event* and return None, or the word for why not. Does no I/O and never waits."""
        if self._close_by is not None:
            return "closed"
        if self._thread is None and not self._start():
            return "no_thread"
        waiting = self.buffer.put(event)
        if waiting == 0:
            message = "Events are turned away, for too many wait; flush() waits for room"
            self._log.warning("queue_full", message, max_queue_size=self._config.max_queue_size)
            return "queue_full"
        if waiting in (1, self._config.batch_size):
            self._wake.put(None)
        return None

    def flush(self, timeout_s: float) -> bool:
        """Send what waits; tell whether all taken before had its outcome within *timeout_s*."""
        target, settled = self.buffer.progress()
        if settled < target:
            # The thread itself, in on_error, would wait for what only it can do.
            if threading.current_thread() is self._thread:
                return False
            with self._lock:
                self._flush_target = max(self._flush_target, target)
                self._nudges += 1
            self._wake.put(None)
            # A hook that raised SystemExit has ended the thread.
            if self._thread is not None or self._start():
                self.buffer.wait(target, timeout_s)
        return self._is_lossless and self.buffer.progress()[1] >= target

    def shutdown(self, timeout_s: float) -> bool:
        """Take no more events, deliver for *timeout_s*, then drop what is left, counted."""
        with self._lock:
            close_by = inf if self._close_by is None else self._close_by
            self._close_by = close_by = min(close_by, monotonic() + timeout_s)
            self._nudges += 1
            thread = self._thread
        self._wake.put(None)
        if thread is not None and thread is not threading.current_thread():
            left_s = max(close_by - monotonic(), 0) + GRACE_S
            thread.join(min(left_s, threading.TIMEOUT_MAX))
        if dropped := self.buffer.close("shutdown"):
            self._is_lossless = False
            message = "Events were dropped at shutdown, for they could not be delivered in time"
            self._log.warning("shutdown", message, events=dropped, url=self._config.api_url)
        forget_at_exit(self._exit)
        return self._is_lossless

    def retire(self) -> None:
        """End the thread when all is delivered, for nobody is left who could track."""
        with self._lock:
            if self._close_by is None:
                self._close_by = inf
        self._wake.put(None)

    def _exit(self) -> None:
        self.shutdown(self._config.shutdown_timeout_s)

    def _start(self) -> bool:
        with self._lock:
            if self._thread is not None:
                return True
            # Known before it starts, lest a signal handler in between start another.
            self._thread = threading.Thread(target=self._run, name="analytics-sdk", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:
                # The interpreter is at its end, or the process is out of threads.
                self._thread = None
                return False
        call_at_exit(self._exit)
        return True

    # For the thread

    def _run(self) -> None:
        try:
            for failures in itertools.count():
                self._nudges_seen = self._nudges
                # The guard round the job: whatever happens, the events wait and the thread lives.
                try:
                    self._deliver_all()
                    return
                except Exception as error:
                    message = "Delivery failed unexpectedly; the events wait"
                    self._log.warning("worker_error", message, **facts_of(error))
                self._pause(min(2.0 ** min(failures, 10), MAX_RETRY_DELAY_S))
                if self._close_by is not None and self._close_by <= monotonic():
                    return
        finally:
            self._thread = None
            if self._close_by == inf:
                forget_at_exit(self._exit)

    def _deliver_all(self) -> None:
        """Deliver until closed and done, or out of time."""
        with unforkable:
            # Here and nowhere else: importing both takes longer than a small program runs.
            import tenacity  # noqa: PLC0415

            from analytics_sdk.transport import Transport  # noqa: PLC0415

            transport = Transport(
                api_key=self._config.api_key,
                api_url=self._config.api_url,
                http_transport=self._http_transport,
            )
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_result(lambda decision: isinstance(decision, retry.Again)),
            wait=lambda state: _decision_of(state).delay_s,
            stop=self._is_out_of_time,
            sleep=self._pause,
            retry_error_callback=_decision_of,
        )
        with transport:
            while self._pending or self._next_batch():
                numbers = itertools.count(1)
                decision = retrying(self._attempt, transport, self._pending[0], numbers)
                if isinstance(decision, retry.Again):
                    return
                self._settle(decision)

    def _next_batch(self) -> bool:
        """Wait for a full batch, or for the oldest event's time; False means closed and done."""
        while True:
            waiting, oldest_at = self.buffer.waiting()
            due_in_s = oldest_at + self._config.flush_interval_s - monotonic()
            is_flushing = self.buffer.progress()[1] < self._flush_target
            is_hurried = due_in_s <= 0 or is_flushing or self._close_by is not None
            if waiting >= self._config.batch_size or (waiting and is_hurried):
                # All that waits, not just one batch: that is how a backlog drains fast.
                self._pending.append(self.buffer.take(MAX_BATCH_EVENTS, MAX_EVENTS_BYTES))
                return True
            if self._close_by is not None:
                return False
            self._sleep(min(due_in_s, LONGEST_SLEEP_S))

    def _attempt(
        self, transport: Transport, events: list[bytes], numbers: itertools.count[int]
    ) -> retry.Decision:
        """Send *events* once, and return what the answer means for them."""
        timeout_s = self._config.timeout_s
        if (close_by := self._close_by) is not None:
            if close_by <= max(monotonic(), self._not_before):
                return retry.Again("closing", inf)
            timeout_s = min(timeout_s, close_by - monotonic())
        self._nudges_seen = self._nudges
        attempt = next(numbers)
        body = pack(events, datetime.now(timezone.utc))
        self.counters.request(len(body.content), is_retry=attempt > 1)
        answer = transport.post(body, timeout_s)
        now = datetime.now(timezone.utc)
        decision = retry.decide(
            answer, events=len(events), attempt=attempt, now=now, jitter=jitter()
        )
        if isinstance(decision, (retry.Again, retry.Split)):
            facts = {
                "url": self._config.api_url,
                "status": answer.status,
                "failure": answer.failure,
            }
            self._log.warning(decision.reason, retry.MESSAGES[decision.reason], **facts)
        if isinstance(decision, retry.Again):
            self._not_before = monotonic() + decision.floor_s
        return decision

    def _is_out_of_time(self, state: tenacity.RetryCallState) -> bool:
        return self._close_by is not None and monotonic() + state.upcoming_sleep > self._close_by

    def _pause(self, delay_s: float) -> None:
        """Wait; a flush or a shutdown cuts it short, but not what the collector asked for."""
        until = monotonic() + delay_s
        while True:
            close_by = inf if self._close_by is None else self._close_by
            if (now := monotonic()) >= min(until, close_by):
                return
            is_free = now >= self._not_before
            is_nudged = self._nudges != self._nudges_seen
            if is_nudged and (is_free or self._not_before > close_by):
                return
            self._sleep(min(until, close_by, inf if is_free else self._not_before) - now)

    def _sleep(self, seconds: float) -> None:
        with suppress(Empty):
            self._wake.get(timeout=seconds)

    def _settle(self, decision: retry.Delivered | retry.Reject | retry.Split) -> None:
        """Give the events at the head of the line their outcome, or send them on in parts."""
        events = self._pending.popleft()
        if isinstance(decision, retry.Split):
            self._pending.extendleft(reversed(halves(events)))
            return
        refused = {verdict.index for verdict in decision.rejected}
        others = [event for index, event in enumerate(events) if index not in refused]
        if isinstance(decision, retry.Delivered):
            settled, delivered = events, len(others)
            duplicates = min(decision.duplicates, delivered)
        else:
            settled, delivered = [events[index] for index in refused], 0
            duplicates = 0
            if others:
                self._pending.appendleft(others)
        # Hooks first: who waits in flush() finds that they ran.
        try:
            for verdict in decision.rejected:
                self._report(verdict, events[verdict.index])
        finally:
            self.buffer.settle(
                settled, delivered=delivered, duplicates=duplicates, rejected=len(refused)
            )

    def _report(self, verdict: retry.Verdict, event: bytes) -> None:
        message = "The collector rejected an event for good; on_error gets it"
        self._log.warning("rejected", message, code=verdict.code)
        if self._config.on_error is None:
            return
        error = EventRejectedError(verdict.code, verdict.message, orjson.loads(event))
        _, failure = call_user_code(self._config.on_error, error)
        if failure is not None:
            self.counters.repair(["on_error"])
            self._log.warning("on_error", "on_error raised", failure=type(failure).__name__)


def _decision_of(state: tenacity.RetryCallState) -> Any:
    return state.outcome.result() if state.outcome is not None else None
