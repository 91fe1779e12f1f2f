"""One thing that the doctor looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Check:
    """What was found, and what to do if that is not good."""

    name: str
    status: str
    """ok, warning, failed or skipped"""
    message: str
    advice: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        told = {"name": self.name, "status": self.status, "message": self.message}
        return {**told, "advice": self.advice or None, "facts": dict(self.facts)}


def skipped(name: str, why: str) -> Check:
    """Return a check that had nothing to look at."""
    return Check(name, "skipped", f"not looked at: {why}")


def reason_of(error: Exception) -> str:
    """Return *error* in words."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
