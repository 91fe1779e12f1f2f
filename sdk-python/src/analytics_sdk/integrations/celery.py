"""Celery: the context of the caller travels with its tasks, and each run of a task is an event.

    from analytics_sdk.integrations import celery as analytics_celery

    analytics_celery.install()

Call it where the Celery app is made, in a module that both the workers and those who publish tasks
import. A task then runs inside the `analytics.context()` in which it was published: the same user,
anonymous and session id, properties, request and trace id. They travel in one header of the
message; what does not fit into it (8 KiB), and everything else that a context may hold, such as the
address of a visitor, stays behind. Chains, groups, chords, callbacks and retries hand it on.

Each run of a task tracks one event, called as the task is: `status`, `durationMs`, `errorType`,
`retries` (how often it was tried before), `queue` (its routing key) and `state`, Celery's word for
how the run ended:

    state       status      the run
    SUCCESS     SUCCESS     returned
    FAILURE     FAILURE     raised, and is not tried again
    RETRY       SUCCESS     asked for another; `errorType` says for which error, if for one
    IGNORED     SUCCESS     raised Ignore, as one does that replaced itself by another task
    REJECTED    SUCCESS     raised Reject, and its message goes back to the queue
    REJECTED    FAILURE     raised Reject for good

So a task that fails three times and then for good is one FAILURE, with `retries: 3`. A run that was
killed (hard time limit, lost worker) is reported by the worker's main process, without a duration.

A pool process that ends delivers its events for `shutdown_timeout_s` first, also when it ends
after `worker_max_tasks_per_child` tasks. The main process does so at exit, like any program.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import orjson
from celery import signals
from celery.exceptions import Retry, TimeLimitExceeded, WorkerLostError
from celery.states import FAILURE, REJECTED, RETRY

import analytics_sdk
from analytics_sdk._limits import MAX_IDENTIFIER_CHARS
from analytics_sdk.context import Scope, current
from analytics_sdk.errors import ConfigError, MisuseError, call_user_code
from analytics_sdk.event import identifier
from analytics_sdk.logs import QuietLogger
from analytics_sdk.operation import Category, Operation
from analytics_sdk.values import encode

if TYPE_CHECKING:
    from celery import Celery

    from analytics_sdk.client import Client

HEADER: Final = "analytics-context"
# Of the header's content; one with another number is not ours to read.
VERSION: Final = 1
MAX_HEADER_BYTES: Final = 8192

IDS: Final = {"userId": "user_id", "anonymousId": "anonymous_id", "sessionId": "session_id"}
# Of the context's members: what tells which request an event belongs to, and nothing about people.
MEMBERS: Final = ("requestId", "traceId")

# Celery's own errands, nobody's operations; the first one retries itself every second.
ERRANDS: Final = ("celery.chord_unlock", "celery.accumulate", "celery.backend_cleanup")

# Under this name Celery knows our handlers, so that there are never two of a kind.
UID: Final = "analytics_sdk"

_log = QuietLogger(__name__)
# Not kept on the request, whose attributes may become headers of a message.
_innermost: ContextVar[_Run | None] = ContextVar("analytics_sdk_celery_run", default=None)


def install(
    app: Celery | None = None,
    *,
    client: Client | None = None,
    operations: bool = True,
    category: Category = "SYSTEM_EVENT",
    ignore: Collection[str] = (),
) -> None:
    """
    Connect to Celery's signals: once for a process, a second call takes the place of the first.

    With *app* only tasks of that app get their context and make events; those of all apps take the
    context along, for Celery doesn't say whose task is published. Without *client* the default
    client of the moment is used. *operations* says whether there are events, *ignore* has the names
    of tasks that make none.

    Raises ConfigError if *ignore* is a single name.
    """
    if isinstance(ignore, str):
        raise ConfigError(["ignore must be a list of names of tasks."])
    uninstall()
    handlers = _Handlers(app, client, operations, category, frozenset(ignore))
    for signal, handler in (
        (signals.before_task_publish, handlers.publish),
        (signals.task_prerun, handlers.begin),
        (signals.task_postrun, handlers.end),
        (signals.task_failure, handlers.fail),
        (signals.worker_process_shutdown, handlers.end_process),
        (signals.worker_shutdown, handlers.end_worker),
    ):
        signal.connect(handler, weak=False, dispatch_uid=UID)


def uninstall() -> None:
    """Take back `install()`, if it was called."""
    for signal in (
        signals.before_task_publish,
        signals.task_prerun,
        signals.task_postrun,
        signals.task_failure,
        signals.worker_process_shutdown,
        signals.worker_shutdown,
    ):
        signal.disconnect(dispatch_uid=UID)


@dataclass(frozen=True)
class _Run:
    """A run of a task that has begun. They nest, for a task may run another one in place."""

    request: Any
    operation: Operation | None
    outer: _Run | None
    outer_scope: Scope | None


@dataclass(frozen=True)
class _Handlers:
    """What is done at each signal. Celery calls with names, and with more of them in time."""

    app: Celery | None
    client: Client | None
    operations: bool
    category: Category
    ignore: Collection[str]
    killed: deque[str] = field(default_factory=lambda: deque(maxlen=1000))

    def publish(self, headers: Any = None, **_: Any) -> None:
        """Send the context along with a task."""
        scope = current.get()
        if scope is None or not isinstance(headers, dict):
            return
        # A task that is retried brings the header it came with; this one is newer.
        if (header := _written(scope)) is None:
            return
        client = analytics_sdk._default.get() if self.client is None else self.client
        if client is not None:
            header = client._pass_on(header)
        if header is not None:
            headers[HEADER] = header.decode()

    def begin(self, task: Any, **_: Any) -> None:
        """Enter the context that came with the task."""
        if not self._is_ours(task):
            return
        request = task.request
        # A task that is run in place, eagerly, is inside the context of its caller already. A
        # worker's thread may have one that is none of the task's.
        scope = Scope(current.get()) if request.is_eager else _read(request.get(HEADER))
        operation = None
        if self._makes_events(task):
            facts = _facts(request)
            operation = Operation(self._tracker.track, task.name, self.category, facts).__enter__()
        _innermost.set(_Run(request, operation, _innermost.get(), current.get()))
        current.set(scope)

    def end(self, task: Any, state: Any = None, retval: Any = None, **_: Any) -> None:
        """Report the run, and leave its context."""
        run = _innermost.get()
        if run is None or run.request is not task.request:
            return
        _innermost.set(run.outer)
        state, outcome = _outcome(state, retval, is_eager=run.request.is_eager)
        if run.operation is not None and state is not None:
            _conclude(run.operation, state, outcome)
        current.set(run.outer_scope)

    def fail(self, sender: Any, task_id: Any = None, exception: Any = None, **_: Any) -> None:
        """Report a run that was killed and can't do so itself."""
        is_killed = isinstance(exception, (TimeLimitExceeded, WorkerLostError))
        # A task may also raise such an error itself, and then is still running.
        run = _innermost.get()
        is_running = run is not None and run.request is sender.request
        if not is_killed or is_running or task_id in self.killed or not self._is_ours(sender):
            return
        # Celery 5.7 says it twice when a task is out of time, and only once what its request was.
        self.killed.append(task_id)
        if self._makes_events(sender):
            facts = {"state": FAILURE, "status": "FAILURE", "errorType": type(exception).__name__}
            with _inside(_read(sender.request.get(HEADER))):
                self._tracker.track(
                    sender.name,
                    {**_facts(sender.request), **facts},
                    context={"category": self.category},
                )

    def end_process(self, **_: Any) -> None:
        """Deliver, since a pool process ends without `atexit`."""
        self._tracker.shutdown()

    def end_worker(self, **_: Any) -> None:
        """
        Send what waits, but don't wait for it.

        The process ends, and then waits itself; or it lives on, if the worker was embedded in it.
        """
        self._tracker.flush(0)

    @property
    def _tracker(self) -> Any:
        return analytics_sdk if self.client is None else self.client

    def _is_ours(self, task: Any) -> bool:
        return self.app is None or bool(task.app == self.app)

    def _makes_events(self, task: Any) -> bool:
        return self.operations and task.name not in self.ignore and task.name not in ERRANDS


def _facts(request: Any) -> dict[str, Any]:
    """Return what is known of a run before it begins."""
    # Outside of runs there is a request that says nothing.
    if request.id is None:
        return {}
    facts = {"retries": request.retries or 0}
    delivery = request.delivery_info
    if isinstance(delivery, dict) and delivery.get("routing_key"):
        facts["queue"] = delivery["routing_key"]
    return facts


def _outcome(
    state: str | None, retval: Any, *, is_eager: bool
) -> tuple[str | None, BaseException | Any]:
    """
    Return the state of a run that ended, and what it returned or raised.

    No state means that it is not for the run to tell, but for fail() in the main process.
    """
    if state is None:
        # The error is still on its way through Celery.
        retval = sys.exc_info()[1]
        # What is no Exception, such as SystemExit, ends more than the run: the worker is lost.
        if isinstance(retval, Exception):
            state = RETRY if isinstance(retval, Retry) else FAILURE
    elif state == FAILURE and isinstance(retval, WorkerLostError) and not is_eager:
        # Raised by the task itself, because it waited for another one. Celery takes it for a loss.
        state = None
    return state, retval


def _conclude(operation: Operation, state: str, outcome: Any) -> None:
    """Track the event of a run that ended in *state*."""
    operation.properties["state"] = state
    if state == FAILURE:
        operation.fail(type(outcome).__name__)
    elif state == RETRY and outcome.exc is not None:
        operation.error_type = type(outcome.exc).__name__
    elif state == REJECTED and not outcome.requeue:
        # The reason is an error by custom, but may be anything.
        reason = outcome.reason
        operation.fail(type(reason if isinstance(reason, Exception) else outcome).__name__)
    operation.__exit__(None, None, None)


@contextmanager
def _inside(scope: Scope) -> Iterator[None]:
    token = current.set(scope)
    try:
        yield
    finally:
        current.reset(token)


# The header


def _written(scope: Scope) -> bytes | None:
    """Return *scope* as the header has it, or None if there is nothing to say."""
    ids = {name: _identifier(getattr(scope, attribute)) for name, attribute in IDS.items()}
    # Whoever made the block may have given anything; an event would be refused for it.
    context = scope.context if isinstance(scope.context, Mapping) else {}
    properties = scope.properties if isinstance(scope.properties, Mapping) else {}
    members = {name: _member(context.get(name)) for name in MEMBERS}
    if not any((*ids.values(), *members.values(), properties)):
        return None
    # Shaped as an event is, so that it is made JSON in the same way.
    content: dict[str, Any] = {"v": VERSION, **_known(ids), "context": _known(members)}
    if properties:
        whole = None
        # Too much even for an event is too much for a header.
        with suppress(MisuseError):
            whole, _ = encode({**content, "properties": properties})
        if whole is not None and len(whole) <= MAX_HEADER_BYTES:
            return whole
        _log.warning("large_context", "A task is published without the context's properties")
    header, _ = encode(content)
    return header


def _known(values: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in values.items() if value is not None}


def _identifier(value: Any) -> str | None:
    if callable(value):
        value, _ = call_user_code(value)
    if value is None:
        return None
    with suppress(MisuseError):
        return identifier(value)
    return None


def _member(value: Any) -> str | None:
    is_good = isinstance(value, str) and 0 < len(value) <= MAX_IDENTIFIER_CHARS
    return str.__str__(value) if is_good else None


def _read(header: object) -> Scope:
    """Return what *header* says; nothing, if it is none or not of our making."""
    scope = Scope(None)
    if not isinstance(header, str) or len(header) > MAX_HEADER_BYTES:
        return scope
    try:
        content = orjson.loads(header)
    except orjson.JSONDecodeError:
        return scope
    if not isinstance(content, dict) or content.get("v") != VERSION:
        return scope
    for name, attribute in IDS.items():
        setattr(scope, attribute, _member(content.get(name)))
    if isinstance(members := content.get("context"), dict):
        scope.context = _known({name: _member(members.get(name)) for name in MEMBERS})
    if isinstance(properties := content.get("properties"), dict):
        scope.properties = properties
    return scope
