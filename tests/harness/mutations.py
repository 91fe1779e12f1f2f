"""Spoil good and bad bodies at random, but the same way for the same seed."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

_UUID = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TOKENS = (
    b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", b"\\u0000", b"\\ud800", b"\x00", b"\xff",
    b"\xe2\x80\xa8", b"\xef\xbb\xbf", b"null", b"NaN", b"1e999", b"-0", b"18446744073709551616",
    b'"batch"', b'"sentAt":', b"[[[[[[[[", b'{"a":' * 8, b"9" * 400, b"1" + b"0" * 18,
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 2**63, 2**64, 2**70, 1e308, 5e-324, "", "\x00", "\ud800", "a" * 256,
    "track", "identify", "2026-02-30T00:00:00Z", "0001-01-01T00:00:00+14:00", [], {}, [[]],
    {"": ""}, {"\x00": 1}, {"$gt": ""}, [None] * 40,
)  # fmt: skip


class Mutator:
    """Makes one body after the other out of a few to begin with."""

    def __init__(self, seeds: Sequence[bytes], seed: int) -> None:
        self._seeds = seeds
        self._random = random.Random(seed)
        self._ways: Sequence[Callable[[bytes], bytes]] = (
            self._flip, self._cut, self._repeat, self._insert, self._truncate, self._splice,
            self._replace_value, self._replace_value, self._replace_value,
        )  # fmt: skip

    def body(self) -> tuple[bytes, bool]:
        """Return a body, and whether it is in gzip."""
        body = self._random.choice(self._seeds)
        if self._random.random() < 0.7:
            body = _UUID.sub(self._fresh_id, body)
        for _ in range(self._random.choice((0, 1, 1, 1, 2, 4))):
            body = self._random.choice(self._ways)(body)
        if self._random.random() < 0.9:
            return body, False
        packed = gzip.compress(body, 1, mtime=0)
        return (self._flip(packed) if self._random.random() < 0.5 else packed), True

    def _fresh_id(self, _: re.Match[bytes]) -> bytes:
        return str(UUID(int=self._random.getrandbits(128), version=4)).encode()

    def _place(self, body: bytes) -> int:
        return self._random.randrange(len(body) + 1)

    def _slice(self, body: bytes) -> tuple[int, int]:
        start = self._place(body)
        return start, min(len(body), start + self._random.choice((1, 2, 8, 64)))

    def _flip(self, body: bytes) -> bytes:
        if not body:
            return body
        place = self._random.randrange(len(body))
        flipped = body[place] ^ (1 << self._random.randrange(8))
        return body[:place] + bytes([flipped]) + body[place + 1 :]

    def _cut(self, body: bytes) -> bytes:
        start, end = self._slice(body)
        return body[:start] + body[end:]

    def _repeat(self, body: bytes) -> bytes:
        start, end = self._slice(body)
        return body[:end] + body[start:end] * self._random.choice((1, 2, 50)) + body[end:]

    def _insert(self, body: bytes) -> bytes:
        place = self._place(body)
        return body[:place] + self._random.choice(_TOKENS) + body[place:]

    def _truncate(self, body: bytes) -> bytes:
        return body[: self._place(body)]

    def _splice(self, body: bytes) -> bytes:
        other = self._random.choice(self._seeds)
        return body[: self._place(body)] + other[self._place(other) :]

    def _replace_value(self, body: bytes) -> bytes:
        """Put a value of another kind somewhere into the document, if it is one."""
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            return self._insert(body)
        places = list(_places(document))
        if not places:
            return body
        holder, key = self._random.choice(places)
        holder[key] = self._random.choice(_VALUES)
        return json.dumps(document, ensure_ascii=True).encode()


def _places(value: Any, depth: int = 0) -> Any:
    """Yield (holder, key) for each place of a value in a document, down to some depth."""
    if depth > 8:
        return
    pairs = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, inner in list(pairs):
        yield value, key
        yield from _places(inner, depth + 1)
