"""Limit the requests of an address for which no valid key vouches.

That is every request where no key is asked, and every one whose key is refused: so a client can't
guess keys, nor keep the database busy with keys that don't exist. Many clients may share one
address: a key that was found valid here goes on being looked at, whatever the others behind the
same address do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from analytics_collector.errors import Refusal
from analytics_collector.http import script
from analytics_collector.http.auth import ON_KEY_CHECK
from analytics_collector.http.body import Body
from analytics_collector.http.peer import client_ip, network_of
from analytics_collector.http.problems import problem
from analytics_collector.ingest.buckets import Allowance
from analytics_collector.ingest.limit import RateLimiter, headers_of

# Those who watch the collector ask often, from one address, and must not be turned away; nor must
# the pages of all who share an address: the script costs us less than a refusal of it.
EXEMPT: Final = frozenset({"/livez", "/readyz", "/health", "/metrics", script.PATH})
KNOWN_KEY_S: Final = 3600.0
_MAX_KNOWN_KEYS: Final = 10_000


class AddressLimit:
    """Counts what strangers send, by their address."""

    def __init__(
        self,
        app: ASGIApp,
        limiter: RateLimiter,
        trusted_proxies: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._limiter = limiter
        self._trusted_proxies = trusted_proxies
        self._clock = clock
        # When each key was last found valid; it is looked up all the same. Keys themselves are
        # not kept: a hash with the process's own seed is enough to tell them apart.
        self._known: dict[int, float] = {}
        self._checks: dict[int, asyncio.Future[None]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on unless its address has sent too much without a key."""
        if scope["type"] != "http" or scope["path"] in EXEMPT or scope["method"] == "OPTIONS":
            await self._app(scope, receive, send)
            return
        key = _hash_of_key(scope)
        if key is not None and self._is_known(key):
            scope[ON_KEY_CHECK] = partial(self._look_again, key)
            await self._app(scope, receive, send)
            return
        address = client_ip(scope, self._trusted_proxies)
        if address is None or (key is not None and await self._turns_out_known(key)):
            # Whoever may reach a Unix socket is trusted.
            await self._app(scope, receive, send)
            return
        await self._watch(network_of(address), key, scope, receive, send)

    def _is_known(self, key: int) -> bool:
        known_at = self._known.get(key)
        return known_at is not None and self._clock() - known_at < KNOWN_KEY_S

    def _look_again(self, key: int, valid: bool | None) -> None:
        if valid is False:  # revoked, or expired
            self._known.pop(key, None)

    async def _turns_out_known(self, key: int) -> bool:
        """Wait if *key* is being looked at for another request, and return what came of it.

        After a start a hundred clients may send the same good key at once.
        """
        check = self._checks.get(key)
        if check is None:
            return False
        await asyncio.wait([check])
        return self._is_known(key)

    async def _watch(
        self, network: str, key: int | None, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Count the request and pass it on; take back what it cost if its key turns out good.

        Others with the same key wait for that from the start, also while limits are asked.
        """
        check: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if key is not None:
            self._checks.setdefault(key, check)

        def settle(valid: bool | None) -> None:
            if check.done():
                return
            check.set_result(None)
            if valid is not False:
                self._limiter.forgive_address(network)
            if key is not None:
                if valid:
                    self._remember(key)
                if self._checks.get(key) is check:
                    del self._checks[key]

        scope[ON_KEY_CHECK] = settle
        try:
            allowance = await self._limiter.admit_address(network)
            if not allowance.retry_after_s:
                await self._app(scope, receive, send)
                return
        finally:
            settle(False)  # no key was looked at
        await _refuse(allowance, scope, receive, send)

    def _remember(self, key: int) -> None:
        if len(self._known) >= _MAX_KNOWN_KEYS:
            self._known.clear()
        self._known[key] = self._clock()


async def _refuse(allowance: Allowance, scope: Scope, receive: Receive, send: Send) -> None:
    refusal = Refusal(
        "RATE_LIMITED",
        "Too many requests from this address without a valid key; wait as long as Retry-After "
        "says.",
        headers=headers_of(allowance),
    )
    response = problem(refusal, scope["request_id"])
    if not await Body(receive, dict(scope["headers"])).discard():
        response.headers["Connection"] = "close"
    await response(scope, receive, send)


def _hash_of_key(scope: Scope) -> int | None:
    for name, value in scope["headers"]:
        if name == b"x-api-key":
            return hash(value)
    return None
