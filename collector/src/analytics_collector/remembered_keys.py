"""Which keys were valid when the store that knows them went away.

While it is away those that it confirmed not long ago stay valid, for as long as the operator
allows: an acknowledgement from the spool would be of no use if nobody could be let in. A key that
the store has called invalid is never among them; one that is revoked during the outage is refused
when the store is back. With a `KeyMemory` all this outlives a restart of the collector.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, Final

import orjson

from analytics_collector import metrics
from analytics_collector.errors import StoreUnavailable
from analytics_collector.interfaces import KeyMemory, KeyStore
from analytics_collector.model import ApiKey
from analytics_collector.project_settings import SECTIONS, ProjectSettings

logger = logging.getLogger(__name__)

# One that is used is confirmed every few seconds; it is written down this often.
KEEP_EVERY_S: Final = 10.0
_PROBE_S: Final = 1.0
_PATIENCE_S: Final = 1.0
_MAX_KEYS: Final = 10_000
_CLOCK_NOISE_S: Final = 60.0


class RememberedKeys:
    """A key store in front of another one. Implements `interfaces.KeyStore`."""

    def __init__(
        self,
        store: KeyStore,
        grace_s: float,
        memory: KeyMemory | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """*grace_s* is how long a key that was confirmed stays valid without the store."""
        self._store = store
        self._grace_s = grace_s
        self._memory = memory
        self._clock = clock
        self._known: dict[bytes, tuple[ApiKey, float]] = {}
        self._kept_at: dict[bytes, float] = {}
        self._is_away = False
        self._asked: Sequence[bytes] = ()
        self._tasks: set[asyncio.Task[None]] = set()
        self._watcher: asyncio.Task[None] | None = None

    async def recall(self) -> None:
        """Read what was kept before this process began; what can't be read is left out."""
        if self._memory is None:
            return
        try:
            kept = await self._memory.kept_keys()
        except StoreUnavailable as exc:
            logger.warning("Remembered keys can't be read", extra={"reason": str(exc)})
            return
        for digest, document, confirmed_at in kept:
            try:
                self._known[digest] = (_thaw(orjson.loads(document)), confirmed_at)
            except (ValueError, TypeError, KeyError):
                logger.warning("A remembered key is of another version and was left out")

    async def stop(self) -> None:
        """End what runs in the background."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def find_key(self, digests: Sequence[bytes]) -> ApiKey | None:
        """Return the valid key with one of *digests*, or None. Raises `StoreUnavailable`."""
        self._asked = digests
        known = self._recalled(digests[0])
        if known is None:
            return await self._ask(digests)
        if not self._is_away:
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    return await self._ask(digests)
            except (StoreUnavailable, TimeoutError):
                self._go_away()
        metrics.KEYS_RECALLED.inc()
        return known

    async def keep_digest(self, key_id: int, digest: bytes, pepper: str) -> None:
        """Store the key under *digest*. Raises `StoreUnavailable`."""
        await self._store.keep_digest(key_id, digest, pepper)

    async def _ask(self, digests: Sequence[bytes]) -> ApiKey | None:
        found = await self._store.find_key(digests)
        self._is_away = False
        if found is None:
            await self._forget(digests[0])
        else:
            self._remember(digests[0], found)
        return found

    def _recalled(self, digest: bytes) -> ApiKey | None:
        key, confirmed_at = self._known.get(digest, (None, 0.0))
        age_s = self._clock() - confirmed_at
        # A clock that was set back must not make keys valid for longer.
        return key if -_CLOCK_NOISE_S <= age_s <= self._grace_s else None

    def _go_away(self) -> None:
        if not self._is_away:
            self._is_away = True
            logger.warning("Keys are answered from memory", extra={"grace_s": self._grace_s})
            # One that looked while the store was back for a moment goes on.
            if self._watcher is None or self._watcher.done():
                self._watcher = self._start(self._watch())

    async def _watch(self) -> None:
        """Ask until the store answers, so that what it says counts again at once."""
        while self._is_away:
            await asyncio.sleep(_PROBE_S)
            try:
                await self._ask(self._asked)
            except StoreUnavailable:
                continue
            except Exception:
                # The guard round a task nobody waits for: if it ended, memory would be asked on.
                logger.exception("Looking up a key failed")
        logger.info("Keys are looked up again")

    def _remember(self, digest: bytes, key: ApiKey) -> None:
        now = self._clock()
        if digest not in self._known and len(self._known) >= _MAX_KEYS:
            oldest = min(self._known, key=lambda known: self._known[known][1])
            self._known.pop(oldest)
            self._kept_at.pop(oldest, None)
        self._known[digest] = (key, now)
        if self._memory is not None and now - self._kept_at.get(digest, 0.0) >= KEEP_EVERY_S:
            self._kept_at[digest] = now
            self._start(self._keep(digest, key, now))

    async def _keep(self, digest: bytes, key: ApiKey, now: float) -> None:
        assert self._memory is not None
        document = orjson.dumps(key, default=sorted)
        try:
            await self._memory.keep_keys([(digest, document, now)], now - self._grace_s)
        except StoreUnavailable as exc:
            logger.warning("A key was not remembered", extra={"reason": str(exc)})

    async def _forget(self, digest: bytes) -> None:
        if self._known.pop(digest, None) is None:
            return
        self._kept_at.pop(digest, None)
        if self._memory is not None:
            try:
                await self._memory.forget_key(digest)
            except StoreUnavailable as exc:
                logger.warning("A key was not forgotten on disk", extra={"reason": str(exc)})

    def _start(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _thaw(document: Mapping[str, Any]) -> ApiKey:
    """Return the key that `orjson.dumps` made *document* of."""
    values = dict(document)
    settings = {
        name: kind(**{member: _tuple(value) for member, value in values["settings"][name].items()})
        for name, kind in SECTIONS.items()
    }
    expires_at = values["expires_at"]
    values |= {
        "settings": ProjectSettings(**settings),
        "scopes": frozenset(values["scopes"]),
        "expires_at": None if expires_at is None else datetime.fromisoformat(expires_at),
        "allowed_origins": _tuple(values["allowed_origins"]),
    }
    if unknown := values.keys() - {spec.name for spec in fields(ApiKey)}:
        raise TypeError(f"unknown members {unknown}")
    return ApiKey(**values)


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
