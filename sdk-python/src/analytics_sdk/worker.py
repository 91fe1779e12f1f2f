"""The one thread that delivers: waits for a batch, sends it, retries, accounts for every event.

Started on first use. A child of fork() has our locks, perhaps held, but not our thread: it starts
afresh with new ones, and leaves the events that waited to its parent.
"""

from __future__ import annotations

import itertools
import threading
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
from analytics_sdk.batch import MAX_EVENTS_BYTES, pack
from analytics_sdk.config import Config
from analytics_sdk.errors import EventRejectedError, call_user_code
from analytics_sdk.event import random_tails
from analytics_sdk.logs import QuietLogger, facts_of
from analytics_sdk.outbox import Lot, Outbox
from analytics_sdk.process import call_at_exit, forget_at_exit, restart_after_fork, unforkable
from analytics_sdk.segment import is_supported
from analytics_sdk.spool import Spool
from analytics_sdk.stats import Counters

if TYPE_CHECKING:
    import httpx
    import tenacity

    from analytics_sdk.transport import Transport

# So that a batch which is answered at the last moment is still counted.
GRACE_S = 0.1
# How often the folder of the spool is searched for what processes that ended have left.
ADOPT_INTERVAL_S = 60.0
# Until then a power cut may take what the kernel has.
SYNC_INTERVAL_S = 1.0
# After so many failures in a row nothing makes it ask more often than once in this time.
CIRCUIT_FAILURES = 5
CIRCUIT_PAUSE_S = 1.0
# A pause that is worth the way to the disk.
SPILL_DELAY_S = 1.0
# More than a lock can wait is an error, so no infinity.
LONGEST_SLEEP_S = 3600.0

TURNED_AWAY = {
    "closed": "An event came after shutdown(), and was turned away",
    "queue_full": "Events are turned away, for max_queue_size or 32 MiB wait and none fits on disk",
    "spool_full": "Events are turned away, for the spool has reached spool_max_bytes",
    "spool_failed": "Events are turned away, for durable ones need a spool that can be written to",
}

# Not the module's generator, which a program may have seeded to repeat itself.
jitter = SystemRandom().random


class Worker:
    """Takes events as bytes, and sees each to its outcome."""

    def __init__(self, config: Config, http_transport: httpx.BaseTransport | None = None) -> None:
        self._config = config
        self._batch_size = config.batch_size
        self._http_transport = http_transport
        self._log = QuietLogger(__name__)
        self._spool: Spool | None = None
        # When to give up (monotonic); None as long as events are welcome.
        self._close_by: float | None = None
        self.start_afresh()
        restart_after_fork(self)

    def start_afresh(self) -> None:
        """Forget the thread, the locks and the events of the parent process, touching none."""
        if self._spool is not None:
            self._spool.abandon()
        random_tails.clear()
        self.pid = getpid()
        self.counters = Counters()
        self._spool = self._make_spool()
        self.outbox = Outbox(
            self.counters,
            max_events=self._config.max_queue_size,
            spool=self._spool,
            is_durable=bool(self._config.durable),
        )
        self._lock = self.counters.lock
        # All that wakes the thread, for its put() can be re-entered by a signal handler.
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._flush_target = 0
        self._nudges = self._nudges_seen = 0
        self._failures = 0
        self._not_before = 0.0
        self._adopt_at = self._sync_at = -inf
        self._is_orphans_turn = True
        self._recovered = threading.Event()
        self._is_complete = True

    def _make_spool(self) -> Spool | None:
        config = self._config
        if not (is_supported() and config.enabled and config.spool_max_bytes):
            return None
        return Spool(
            api_key=config.api_key,
            api_url=config.api_url,
            directory=config.spool_dir,
            max_bytes=config.spool_max_bytes,
            is_synced=config.durable == "fsync",
        )

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
        waiting = self.outbox.put(event)
        if waiting.__class__ is str:
            self._log.warning(waiting, TURNED_AWAY[waiting])
            return waiting
        if waiting == 1 or waiting == self._batch_size:  # noqa: PLR1714 - this is faster
            self._wake.put(None)
        return None

    def flush(self, timeout_s: float) -> bool:
        """Send what waits; tell whether all taken before had its outcome within *timeout_s*."""
        target, settled = self.outbox.progress()
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
                self.outbox.wait(target, timeout_s)
        return self._is_complete and self.outbox.progress()[1] >= target

    def recover(self, timeout_s: float) -> bool:
        """Deliver what processes that ended have left; tell whether nothing of theirs is there."""
        if self._spool is None:
            return True
        self._recovered.clear()
        with self._lock:
            self._adopt_at = -inf
            self._nudges += 1
        self._wake.put(None)
        return (self._thread is not None or self._start()) and self._recovered.wait(
            min(timeout_s, threading.TIMEOUT_MAX)
        )

    def shutdown(self, timeout_s: float) -> bool:
        """Take no more events, deliver for *timeout_s*; what is left goes to disk."""
        with self._lock:
            close_by = inf if self._close_by is None else self._close_by
            self._close_by = close_by = min(close_by, monotonic() + timeout_s)
            self._nudges += 1
            thread = self._thread
        self._wake.put(None)
        if thread is not None and thread is not threading.current_thread():
            left_s = max(close_by - monotonic(), 0) + GRACE_S
            thread.join(min(left_s, threading.TIMEOUT_MAX))
        spooled, dropped = self.outbox.close()
        if spooled:
            self._is_complete = False
            message = "Events wait on disk for the next process, for they could not be delivered"
            self._log.warning("spooled", message, events=spooled, url=self._config.api_url)
        if dropped:
            self._is_complete = False
            message = "Events were dropped at shutdown, for they could not be delivered in time"
            self._log.warning("shutdown", message, events=dropped, url=self._config.api_url)
        forget_at_exit(self._exit)
        return self._is_complete

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
                self.outbox.close()
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
            while not self.outbox.is_closed and (self.outbox.in_hand or self._next_lot()):
                numbers = itertools.count(1)
                decision = retrying(self._attempt, transport, self.outbox.in_hand[0], numbers)
                if isinstance(decision, retry.Again):
                    return
                self._settle(decision)

    def _next_lot(self) -> bool:
        """Wait for a full batch, or for the oldest event's time; False means closed and done."""
        while True:
            # By turns, so that neither what was left by others nor our own has to wait for long.
            self._is_orphans_turn = not self._is_orphans_turn
            if self._is_orphans_turn and self._adopt():
                return True
            waiting, oldest_at = self.outbox.waiting()
            due_in_s = oldest_at + self._config.flush_interval_s - monotonic()
            is_flushing = self.outbox.progress()[1] < self._flush_target
            is_hurried = due_in_s <= 0 or is_flushing or self._close_by is not None
            # All that waits, not just one batch: that is how a backlog drains fast.
            if (waiting >= self._config.batch_size or (waiting and is_hurried)) and (
                self.outbox.take(MAX_BATCH_EVENTS, MAX_EVENTS_BYTES)
            ):
                return True
            if self._adopt():
                return True
            if self._close_by is not None:
                return False
            self._tend(due_in_s, waiting)

    def _adopt(self) -> bool:
        """Take in hand what a process that ended has left; tell whether there was something."""
        if self._spool is None:
            return False
        if monotonic() >= self._adopt_at:
            self._adopt_at = monotonic() + ADOPT_INTERVAL_S
            self.outbox.look_for_orphans()
        if self.outbox.adopt(MAX_BATCH_EVENTS, MAX_EVENTS_BYTES):
            return True
        self._recovered.set()
        return False

    def _tend(self, due_in_s: float, waiting: int) -> None:
        """Look after the spool, and sleep until there may be something to do."""
        longest_s = min(due_in_s, LONGEST_SLEEP_S)
        if self._spool is not None:
            longest_s = min(longest_s, max(self._adopt_at - monotonic(), 0))
        if waiting:
            longest_s = min(longest_s, self._sync())
        self._sleep(longest_s)

    def _sync(self) -> float:
        """Write durable events through, if it is time; return for how long it is not."""
        if self._config.durable is not True:
            return LONGEST_SLEEP_S
        if (now := monotonic()) >= self._sync_at:
            self._sync_at = now + SYNC_INTERVAL_S
            self.outbox.sync()
        return max(self._sync_at - monotonic(), 0)

    def _attempt(
        self, transport: Transport, lot: Lot, numbers: itertools.count[int]
    ) -> retry.Decision:
        """Send *lot* once, and return what the answer means for it."""
        timeout_s = self._config.timeout_s
        if (close_by := self._close_by) is not None:
            if close_by <= max(monotonic(), self._not_before):
                return retry.Again("closing", inf)
            timeout_s = min(timeout_s, close_by - monotonic())
        self._nudges_seen = self._nudges
        body = pack(lot.events, datetime.now(timezone.utc))
        self.counters.request(len(body.content), is_retry=next(numbers) > 1)
        answer = transport.post(body, timeout_s)
        decision = retry.decide(
            answer,
            events=len(lot.events),
            attempt=self._failures + 1,
            now=datetime.now(timezone.utc),
            jitter=jitter(),
        )
        if isinstance(decision, (retry.Again, retry.Split)):
            facts = {
                "url": self._config.api_url,
                "status": answer.status,
                "failure": answer.failure,
            }
            self._log.warning(decision.reason, retry.MESSAGES[decision.reason], **facts)
        self._remember(decision)
        return decision

    def _remember(self, decision: retry.Decision) -> None:
        """Draw the consequences of a failure, or of its end."""
        if not isinstance(decision, retry.Again):
            self._failures = 0
            return
        self._failures += 1
        is_open = self._failures >= CIRCUIT_FAILURES
        self._not_before = monotonic() + max(decision.floor_s, CIRCUIT_PAUSE_S if is_open else 0)
        # It may take a while: what only memory has would be lost with the process.
        if self._failures > 1 or decision.delay_s >= SPILL_DELAY_S:
            self.outbox.spill()

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
            wake_at = min(until, close_by, inf if is_free else self._not_before)
            self._sleep(min(wake_at - now, self._sync()))

    def _sleep(self, seconds: float) -> None:
        with suppress(Empty):
            self._wake.get(timeout=seconds)

    def _settle(self, decision: retry.Delivered | retry.Reject | retry.Split) -> None:
        """Give the events at the head of the line their outcome, or send them on in parts."""
        if isinstance(decision, retry.Split):
            self.outbox.split()
            return
        events = self.outbox.in_hand[0].events
        refused = {verdict.index: verdict for verdict in decision.rejected}
        # Hooks first: who waits in flush() finds that they ran.
        try:
            for index, verdict in refused.items():
                self._report(verdict, events[index])
        finally:
            if isinstance(decision, retry.Delivered):
                delivered = len(events) - len(refused)
                self.outbox.settle(
                    delivered=delivered,
                    duplicates=min(decision.duplicates, delivered),
                    rejected=len(refused),
                )
            else:
                self.outbox.settle(refused, rejected=len(refused))

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
