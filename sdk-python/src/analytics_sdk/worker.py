"""The one thread that delivers, seen from the others: take an event, flush, end.

Started on first use. A child of fork() has our locks, perhaps held, but not our thread: it starts
afresh with new ones, and leaves the events that waited to its parent.
"""

from __future__ import annotations

import itertools
import threading
from math import inf
from os import getpid
from time import monotonic
from typing import TYPE_CHECKING
from weakref import WeakSet

from analytics_sdk._limits import MAX_RETRY_DELAY_S
from analytics_sdk.config import Config
from analytics_sdk.errors import call_user_code
from analytics_sdk.event import random_tails
from analytics_sdk.folders import home
from analytics_sdk.logs import QuietLogger, facts_of
from analytics_sdk.orders import Orders
from analytics_sdk.outbox import Outbox
from analytics_sdk.process import (
    call_at_exit,
    forget_at_exit,
    importing,
    restart_after_fork,
    seconds_at_exit,
    uwsgi_advice,
    watch_sigterm,
)
from analytics_sdk.segment import is_supported
from analytics_sdk.spool import Spool
from analytics_sdk.stats import Counters

if TYPE_CHECKING:
    import httpx

    from analytics_sdk.delivery import Delivery
    from analytics_sdk.transport import Transport

# So that a batch which is answered at the last moment is still counted.
GRACE_S = 0.1

TURNED_AWAY = {
    "closed": "An event came after shutdown(), and was turned away",
    "queue_full": "Events are turned away, for max_queue_size or 32 MiB wait and none fits on disk",
    "spool_full": "Events are turned away, for the spool has reached spool_max_bytes",
    "spool_failed": "Events are turned away, for durable ones need a spool that can be written to",
}

# Those that live, for at the end of the process they share the time.
_workers: WeakSet[Worker] = WeakSet()


class Worker:
    """Takes events as bytes, and sees each to its outcome."""

    def __init__(self, config: Config, http_transport: httpx.BaseTransport | None = None) -> None:
        self._config = config
        self._batch_size = config.batch_size
        self._http_transport = http_transport
        self._log = QuietLogger(__name__)
        self._spool: Spool | None = None
        # Now, for the program may go to another directory later, or be there no more.
        self._spool_home = home(config.spool_dir)
        self.orders = Orders(threading.RLock())
        self._births: dict[int, threading.RLock] = {}
        self._is_retired = False
        self.start_afresh()
        restart_after_fork(self)
        _workers.add(self)
        if config.handle_sigterm and not watch_sigterm(self):
            message = "handle_sigterm has no effect: only the main thread can set signal handlers"
            self._log.warning("handle_sigterm", message)

    def start_afresh(self) -> None:
        """Forget the thread, the locks and the events of the parent process, touching none."""
        if self._spool is not None:
            self._spool.abandon()
        random_tails.clear()
        self.counters = Counters()
        self._spool = self._make_spool()
        self.outbox = Outbox(
            self.counters,
            max_events=self._config.max_queue_size,
            spool=self._spool,
            is_durable=bool(self._config.durable),
        )
        close_by = self.orders.close_by
        self.orders = Orders(self.counters.lock)
        self.orders.close_by = close_by
        self._thread: threading.Thread | None = None
        self._is_complete = True
        # Last, for from here on other threads use what is above.
        self.pid = getpid()

    def _make_spool(self) -> Spool | None:
        config = self._config
        if not (is_supported() and config.enabled and config.spool_max_bytes):
            return None
        return Spool(
            api_key=config.api_key,
            api_url=config.api_url,
            directory=self._spool_home,
            max_bytes=config.spool_max_bytes,
            is_synced=config.durable == "fsync",
        )

    # For any thread

    def check_process(self) -> None:
        """Start afresh in a child that was forked behind Python's back, as uWSGI does."""
        if self.pid == (pid := getpid()):
            return
        # One of this process alone: whoever had the parent's is not here to let it go.
        with self._births.setdefault(pid, threading.RLock()):
            if self.pid != pid:
                self.start_afresh()

    def put(self, event: bytes) -> str | None:
        """Take *event* and return None, or the word for why not; does no I/O but to the spool."""
        if self.orders.close_by is not None:
            self._log.warning("closed", TURNED_AWAY["closed"])
            return "closed"
        if self._thread is None and not self._start():
            return "no_thread"
        waiting = self.outbox.put(event)
        if waiting.__class__ is str:
            self._log.warning(waiting, TURNED_AWAY[waiting])
            return waiting
        if waiting == 1 or waiting == self._batch_size:  # noqa: PLR1714 - this is faster
            self.orders.ring()
        return None

    def flush(self, timeout_s: float) -> bool:
        """Send what waits; tell whether all taken before had its outcome within *timeout_s*."""
        target, settled = self.outbox.progress()
        if settled < target:
            # The thread itself, in on_error, would wait for what only it can do.
            if threading.current_thread() is self._thread:
                return False
            self.orders.flush(target)
            if self.is_interrupted:
                return False
            # A hook that raised SystemExit has ended the thread.
            if self._thread is not None or self._start():
                self.outbox.wait(target, timeout_s)
            if timeout_s > 0 and self.outbox.progress()[1] < target:
                # Whoever waited for it may be about to be killed.
                self.outbox.spill()
        return self._is_complete and self.outbox.progress()[1] >= target

    def recover(self, timeout_s: float) -> bool:
        """Deliver what processes that ended have left; tell whether nothing of theirs is there."""
        if self._spool is None:
            return True
        if self.outbox.is_closed:
            return False
        found_all = self.orders.seek()
        is_running = self._thread is not None or self._start()
        return is_running and found_all.wait(min(timeout_s, threading.TIMEOUT_MAX))

    def shutdown(self, timeout_s: float) -> bool:
        """Take no more events, deliver for *timeout_s*; what is left goes to disk."""
        close_by = self.orders.close(monotonic() + timeout_s)
        if self.is_interrupted:
            # The exit of the process does the rest.
            return False
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            left_s = close_by - monotonic()
            if left_s > 0:
                thread.join(min(left_s + GRACE_S, threading.TIMEOUT_MAX))
        spooled, dropped = self.outbox.close()
        if spooled:
            message = "Events wait on disk for the next process, for they could not be delivered"
            self._log.warning("spooled", message, events=spooled, url=self._config.api_url)
        if dropped:
            message = "Events were dropped at shutdown, for they could not be delivered in time"
            self._log.warning("shutdown", message, events=dropped, url=self._config.api_url)
        self._is_complete = self._is_complete and not (spooled or dropped)
        forget_at_exit(self._exit)
        return self._is_complete

    @property
    def is_interrupted(self) -> bool:
        """Whether a signal handler asks, in the middle of a call that keeps the thread waiting."""
        return self.outbox.is_interrupted

    def retire(self) -> None:
        """
        End the thread, for nobody is left who could track.

        Soon if what is left can wait on disk: a program may let go of many clients. Else when all
        is delivered.
        """
        self._is_retired = True
        patience_s = inf if self._spool is None else self._config.shutdown_timeout_s
        self.orders.close(monotonic() + patience_s)

    def hurry(self) -> None:
        """Begin to deliver all that waits."""
        self.orders.flush(self.outbox.progress()[0])

    def deliver_at_sigterm(self, *, is_end: bool, kept_s: float) -> None:
        """
        Deliver what waits; unless *is_end*, more may come.

        For `shutdown_timeout_s` at most, less *kept_s*, the time that others took.
        """
        left_s = max(self._config.shutdown_timeout_s - kept_s, 0)
        if is_end:
            self.shutdown(left_s)
        elif not self.flush(left_s):
            self.outbox.spill()

    def _exit(self) -> None:
        # All clients of a process share the time, so those whose turn comes later begin now.
        kept_s = seconds_at_exit()
        for worker in list(_workers):
            worker.hurry()
        self.shutdown(max(self._config.shutdown_timeout_s - kept_s, 0))

    def _start(self) -> bool:
        with self.counters.lock:
            if self._thread is not None:
                return True
            self.orders.use_new_bell()
            # Known before it starts, lest a signal handler in between start another.
            self._thread = threading.Thread(target=self._run, name="analytics-sdk", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:
                # The interpreter is at its end, or the process is out of threads.
                self._thread = None
                return False
        call_at_exit(self._exit)
        if (advice := uwsgi_advice()) is not None:
            self._log.warning("uwsgi", advice)
        return True

    def _connect(self) -> Transport:
        with importing():
            from analytics_sdk.transport import Transport  # noqa: PLC0415

            return Transport(
                api_key=self._config.api_key,
                api_url=self._config.api_url,
                http_transport=self._http_transport,
            )

    def _delivery(self) -> Delivery | None:
        """Return what delivers as soon as it can be imported; None if the end comes before."""
        for failures in itertools.count():
            # What others wrote is imported with it, and that may raise anything.
            delivery, error = call_user_code(self._import_delivery)
            if error is None:
                return delivery
            message = "What delivers can't be imported; the events wait"
            self._log.warning("worker_error", message, **facts_of(error))
            self.outbox.spill()
            # The bell of a flush, of an end or of a full batch cuts it short.
            self.orders.sleep(min(2.0 ** min(failures, 10), MAX_RETRY_DELAY_S))
            if self.orders.close_by is not None and self.orders.close_by <= monotonic():
                break
        return None

    def _import_delivery(self) -> Delivery:
        with importing():
            # Here and nowhere else, for what it imports takes so long.
            from analytics_sdk.delivery import Delivery  # noqa: PLC0415

        return Delivery(self._config, self.outbox, self.counters, self.orders, self._connect)

    def _run(self) -> None:
        try:
            if (delivery := self._delivery()) is not None:
                delivery.run()
        finally:
            self._thread = None
            if self._is_retired:
                self.outbox.close()
                forget_at_exit(self._exit)
