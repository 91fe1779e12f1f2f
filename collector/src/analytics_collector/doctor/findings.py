"""What a check says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import asyncpg
from redis.exceptions import ResponseError

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. *advice* is what to do about it; empty if nothing is."""

    check: str
    status: Status
    detail: str
    advice: str = ""


def reason(exc: BaseException) -> str:
    """Return why a server could not be used, without what its URL may tell of a password."""
    if isinstance(exc, (asyncpg.PostgresError, ResponseError)):
        return f"{type(exc).__name__}: {exc}"  # a server's own words
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror
    return type(exc).__name__
