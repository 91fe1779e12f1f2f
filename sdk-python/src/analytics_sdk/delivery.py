"""The work of the thread: wait for a batch, send it, retry, account for every event.

Imported by the worker's thread on first use, as it imports httpx and tenacity: to import them takes
longer than a small program runs.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from datetime import datetime, timezone
from math import inf
from random import SystemRandom
from time import monotonic
from typing import Any

import orjson
import tenacity

from analytics_sdk import retry
from analytics_sdk._limits import MAX_BATCH_EVENTS, MAX_RETRY_DELAY_S
from analytics_sdk.batch import MAX_EVENTS_BYTES, pack
from analytics_sdk.config import Config
from analytics_sdk.errors import EventRejectedError, call_user_code
from analytics_sdk.logs import QuietLogger, facts_of
from analytics_sdk.orders import LONGEST_SLEEP_S, Orders
from analytics_sdk.outbox import Lot, Outbox
from analytics_sdk.stats import Counters
from analytics_sdk.transport import Transport

# How often the folder of the spool is searched for what processes that ended have left.
ADOPT_INTERVAL_S = 60.0
# Until then a power cut may take what the kernel has.
SYNC_INTERVAL_S = 1.0
# After so many failures in a row nothing makes it ask more often than once in this time.
CIRCUIT_FAILURES = 5
CIRCUIT_PAUSE_S = 1.0
# A pause that is worth the way to the disk.
SPILL_DELAY_S = 1.0
# How often a disk that could not be read is tried again.
LOOK_AGAIN_S = 1.0

# Not the module's generator, which a program may have seeded to repeat itself.
jitter = SystemRandom().random


class Delivery:
    """Delivers what is in the outbox, until ordered to end. For one thread."""

    def __init__(
        self,
        config: Config,
        outbox: Outbox,
        counters: Counters,
        orders: Orders,
        connect: Callable[[], Transport],
    ) -> None:
        self._config = config
        self._outbox = outbox
        self._counters = counters
        self._orders = orders
        self._connect = connect
        self._log = QuietLogger(__name__)
        self._nudges_seen = orders.nudges
        self._failures = 0
        self._not_before = 0.0
        self._adopt_at = self._sync_at = -inf
        self._is_orphans_turn = True
        # Who waits for the end of the search that is going on.
        self._awaiting: list[threading.Event] = []

    def run(self) -> None:
        """Deliver until closed and done, or out of time."""
        failures = 0
        while True:
            began_at = monotonic()
            self._nudges_seen = self._orders.nudges
            # The guard round the job: whatever happens, the events wait and the thread lives.
            try:
                # In here, for a certificate file that the environment names may be missing.
                with self._connect() as self._transport:
                    self._deliver_all()
                return
            except Exception as error:
                message = "Delivery failed unexpectedly; the events wait"
                self._log.warning("worker_error", message, **facts_of(error))
            self._outbox.spill()
            # After one that is long past this is the first again.
            failures = 0 if monotonic() - began_at > MAX_RETRY_DELAY_S else failures
            self._pause(min(2.0 ** min(failures, 10), MAX_RETRY_DELAY_S))
            failures += 1
            if self._orders.close_by is not None and self._orders.close_by <= monotonic():
                return

    def _deliver_all(self) -> None:
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_result(lambda decision: isinstance(decision, retry.Again)),
            wait=lambda state: _decision_of(state).delay_s,
            stop=self._is_out_of_time,
            sleep=self._pause,
            retry_error_callback=_decision_of,
        )
        while not self._outbox.is_closed and (self._outbox.in_hand or self._next_lot()):
            numbers = itertools.count(1)
            decision = retrying(self._attempt, self._outbox.in_hand[0], numbers)
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
            waiting, oldest_at = self._outbox.waiting()
            due_in_s = oldest_at + self._config.flush_interval_s - monotonic()
            is_flushing = self._outbox.progress()[1] < self._orders.flush_target
            is_hurried = due_in_s <= 0 or is_flushing or self._orders.close_by is not None
            # All that waits, not just one batch: that is how a backlog drains fast.
            if (waiting >= self._config.batch_size or (waiting and is_hurried)) and (
                self._outbox.take(MAX_BATCH_EVENTS, MAX_EVENTS_BYTES)
            ):
                return True
            if self._adopt():
                return True
            if self._orders.close_by is not None:
                return False
            self._tend(due_in_s, waiting)

    def _adopt(self) -> bool:
        """Take in hand what a process that ended has left; tell whether there was something."""
        if not self._outbox.has_spool:
            return False
        seekers = self._orders.seekers()
        if seekers or monotonic() >= self._adopt_at:
            self._adopt_at = monotonic() + ADOPT_INTERVAL_S
            self._awaiting += seekers
            self._outbox.look_for_orphans()
        if self._outbox.adopt(MAX_BATCH_EVENTS, MAX_EVENTS_BYTES):
            return True
        while self._awaiting:
            self._awaiting.pop().set()
        return False

    def _tend(self, due_in_s: float, waiting: int) -> None:
        """Look after the spool, and sleep until there may be something to do."""
        # What is due and could not be taken is tried again, but not at once.
        longest_s = min(due_in_s if due_in_s > 0 else LOOK_AGAIN_S, LONGEST_SLEEP_S)
        if self._outbox.has_spool:
            longest_s = min(longest_s, max(self._adopt_at - monotonic(), 0))
        if waiting:
            longest_s = min(longest_s, self._sync())
        self._orders.sleep(longest_s)

    def _sync(self) -> float:
        """Write durable events through, if it is time; return for how long it is not."""
        if self._config.durable is not True:
            return LONGEST_SLEEP_S
        if (now := monotonic()) >= self._sync_at:
            self._sync_at = now + SYNC_INTERVAL_S
            self._outbox.sync()
        return max(self._sync_at - monotonic(), 0)

    def _attempt(self, lot: Lot, numbers: itertools.count[int]) -> retry.Decision:
        """Send *lot* once, and return what the answer means for it."""
        timeout_s = self._config.timeout_s
        if (close_by := self._orders.close_by) is not None:
            if close_by <= max(monotonic(), self._not_before):
                return retry.Again("closing", inf)
            timeout_s = min(timeout_s, close_by - monotonic())
        # Here too, for under load there is no pause.
        self._sync()
        self._nudges_seen = self._orders.nudges
        body = pack(lot.events, datetime.now(timezone.utc))
        self._counters.request(len(body.content), is_retry=next(numbers) > 1)
        answer = self._transport.post(body, timeout_s)
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
            self._outbox.spill()

    def _is_out_of_time(self, state: tenacity.RetryCallState) -> bool:
        return (
            self._orders.close_by is not None
            and monotonic() + state.upcoming_sleep > self._orders.close_by
        )

    def _pause(self, delay_s: float) -> None:
        """Wait; a flush or a shutdown cuts it short, but not what the collector asked for."""
        until = max(monotonic() + delay_s, self._not_before)
        while True:
            close_by = inf if self._orders.close_by is None else self._orders.close_by
            if (now := monotonic()) >= min(until, close_by):
                return
            is_free = now >= self._not_before
            is_nudged = self._orders.nudges != self._nudges_seen
            if is_nudged and (is_free or self._not_before > close_by):
                return
            wake_at = min(until, close_by, inf if is_free else self._not_before)
            self._orders.sleep(min(wake_at - now, self._sync()))

    def _settle(self, decision: retry.Delivered | retry.Reject | retry.Split) -> None:
        """Give the events at the head of the line their outcome, or send them on in parts."""
        if isinstance(decision, retry.Split):
            self._outbox.split()
            return
        events = self._outbox.in_hand[0].events
        refused = {verdict.index: verdict for verdict in decision.rejected}
        # Hooks first: who waits in flush() finds that they ran.
        try:
            for index, verdict in refused.items():
                self._report(verdict, events[index])
        finally:
            if isinstance(decision, retry.Delivered):
                delivered = len(events) - len(refused)
                self._outbox.settle(
                    delivered=delivered,
                    duplicates=min(decision.duplicates, delivered),
                    rejected=len(refused),
                )
            else:
                self._outbox.settle(refused, rejected=len(refused))

    def _report(self, verdict: retry.Verdict, event: bytes) -> None:
        message = "The collector rejected an event for good; on_error gets it"
        self._log.warning("rejected", message, code=verdict.code)
        if self._config.on_error is None:
            return
        error = EventRejectedError(verdict.code, verdict.message, orjson.loads(event))
        _, failure = call_user_code(self._config.on_error, error)
        if failure is not None:
            self._counters.repair(["on_error"])
            self._log.warning("on_error", "on_error raised", failure=type(failure).__name__)


def _decision_of(state: tenacity.RetryCallState) -> Any:
    return state.outcome.result() if state.outcome is not None else None
