"""API keys: how they look, what is stored of them, and a short memory of those looked up.

A key is `ak_live_` + 32 random bytes in base 62 + CRC-32 of all before in base 62. The check sum
lets a scanner recognise a leaked key and us refuse a mistyped one without asking the database.
Stored is HMAC-SHA256 of the key under the server's secret, the pepper; looking a key up by that
digest leaves nothing to time.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
import time
import zlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from analytics_collector.errors import StoreUnavailable
from analytics_collector.interfaces import KeyStore
from analytics_collector.model import ApiKey
from analytics_collector.usage import KeyUsage

logger = logging.getLogger(__name__)

PREFIX: Final = "ak_live_"
DISPLAY_CHARS: Final = 12
_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM_CHARS: Final = 43  # 32 bytes in base 62
_CRC_CHARS: Final = 6  # 4 bytes in base 62
_KEY_CHARS: Final = len(PREFIX) + _RANDOM_CHARS + _CRC_CHARS

# A revoked key is refused everywhere after this time at the latest.
CACHE_S: Final = 4.0
_MAX_CACHED: Final = 10_000
# How long a key that was replaced stays valid beside its successor.
DEFAULT_OVERLAP_S: Final = 86_400
MAX_OVERLAP_S: Final = 90 * 86_400


def generate_key() -> str:
    """Return a new key."""
    body = PREFIX + _base62(int.from_bytes(secrets.token_bytes(32)), _RANDOM_CHARS)
    return body + _checksum(body.encode())


def is_well_formed(key: bytes) -> bool:
    """Return whether *key* could have been made by `generate_key`."""
    if len(key) != _KEY_CHARS or not key.startswith(PREFIX.encode()):
        return False
    body, checksum = key[:-_CRC_CHARS], key[-_CRC_CHARS:]
    return hmac.compare_digest(_checksum(body).encode(), checksum)


def digest(secret: str, key: bytes) -> bytes:
    """Return what is stored of *key*."""
    return hmac.digest(secret.encode(), key, "sha256")


def pepper_id(secret: str) -> str:
    """Return a short name for *secret*: it may be shown and stored, and does not lead back."""
    named = hmac.digest(secret.encode(), b"analytics-collector: id of the pepper", "sha256")
    return named.hex()[:8]


class Keys:
    """Finds keys in a store, and remembers for `CACHE_S` seconds what it found or did not.

    A key that is stored under one of the *previous* secrets is found, too, and is stored under the
    current one from then on.
    """

    def __init__(
        self,
        store: KeyStore,
        secret: str,
        clock: Callable[[], float] = time.monotonic,
        *,
        previous: Sequence[str] = (),
        usage: KeyUsage | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._secret = secret
        self._previous = tuple(previous)
        self._pepper = pepper_id(secret)
        self._usage = usage or KeyUsage()
        self._cache: dict[bytes, tuple[ApiKey | None, float]] = {}
        self._moves: dict[int, asyncio.Task[None]] = {}

    async def find(self, key: bytes) -> ApiKey | None:
        """Return the valid key that reads *key*, which is used, or None.

        Raises `StoreUnavailable`.
        """
        found = await self.peek(key)
        if found is not None:
            self._usage.request(found.key_id)
        return found

    async def peek(self, key: bytes) -> ApiKey | None:
        """As `find`, where it is no use of the key."""
        if not is_well_formed(key):
            return None
        key_digest = digest(self._secret, key)
        found, expires = self._cache.get(key_digest, (None, 0.0))
        if self._clock() >= expires:
            found = await self._look_up(key, key_digest)
        if found is None or (found.expires_at and found.expires_at <= datetime.now(UTC)):
            return None
        return found

    async def _look_up(self, key: bytes, key_digest: bytes) -> ApiKey | None:
        older = [digest(secret, key) for secret in self._previous]
        found = await self._store.find_key([key_digest, *older])
        if len(self._cache) >= _MAX_CACHED:
            self._cache.clear()
        self._cache[key_digest] = (found, self._clock() + CACHE_S)
        if found is not None and found.pepper != self._pepper and found.key_id not in self._moves:
            move = asyncio.create_task(self._move(found.key_id, key_digest))
            self._moves[found.key_id] = move
            move.add_done_callback(lambda _: self._moves.pop(found.key_id, None))
        return found

    async def _move(self, key_id: int, key_digest: bytes) -> None:
        """Store the key under the current secret; if that fails, its next look-up tries again."""
        try:
            await self._store.keep_digest(key_id, key_digest, self._pepper)
        except StoreUnavailable as exc:
            facts = {"key_id": key_id, "reason": str(exc)}
            logger.warning("Key not stored under the current secret", extra=facts)
        else:
            logger.info("Key stored under the current secret", extra={"key_id": key_id})


def _base62(number: int, width: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 62)
        digits = _ALPHABET[digit] + digits
    return digits.rjust(width, _ALPHABET[0])


def _checksum(body: bytes) -> str:
    return _base62(zlib.crc32(body), _CRC_CHARS)
