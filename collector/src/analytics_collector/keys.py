"""API keys: how they look, what is stored of them, and a short memory of those looked up.

A key is `ak_live_` + 32 random bytes in base 62 + CRC-32 of all before in base 62. The check sum
lets a scanner recognise a leaked key and us refuse a mistyped one without asking the database.
Stored is HMAC-SHA256 of the key under the server's secret; looking a key up by that digest
leaves nothing to time.
"""

from __future__ import annotations

import hmac
import secrets
import time
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from analytics_collector.interfaces import KeyStore
from analytics_collector.model import ApiKey

PREFIX: Final = "ak_live_"
DISPLAY_CHARS: Final = 12
_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM_CHARS: Final = 43  # 32 bytes in base 62
_CRC_CHARS: Final = 6  # 4 bytes in base 62
_KEY_CHARS: Final = len(PREFIX) + _RANDOM_CHARS + _CRC_CHARS

# A revoked key is refused everywhere after this time at the latest.
CACHE_S: Final = 4.0
_MAX_CACHED: Final = 10_000


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


class Keys:
    """Finds keys in a store, and remembers for `CACHE_S` seconds what it found or did not."""

    def __init__(
        self, store: KeyStore, secret: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._clock = clock
        self._secret = secret
        self._cache: dict[bytes, tuple[ApiKey | None, float]] = {}

    async def find(self, key: bytes) -> ApiKey | None:
        """Return the valid key that reads *key*, or None. Raises `StoreUnavailable`."""
        if not is_well_formed(key):
            return None
        key_digest = digest(self._secret, key)
        found, expires = self._cache.get(key_digest, (None, 0.0))
        if self._clock() >= expires:
            found = await self._store.find_key(key_digest)
            if len(self._cache) >= _MAX_CACHED:
                self._cache.clear()
            self._cache[key_digest] = (found, self._clock() + CACHE_S)
        if found and found.expires_at and found.expires_at <= datetime.now(UTC):
            return None
        return found


def _base62(number: int, width: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 62)
        digits = _ALPHABET[digit] + digits
    return digits.rjust(width, _ALPHABET[0])


def _checksum(body: bytes) -> str:
    return _base62(zlib.crc32(body), _CRC_CHARS)
