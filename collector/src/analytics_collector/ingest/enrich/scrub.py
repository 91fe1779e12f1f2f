"""Take out of an event what a project does not want stored: members by name, texts by pattern.

Pure. Nearly all events hold nothing of the kind, so the serialised text is asked first; only an
event that may hold something is walked through.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import orjson

_EMAIL: Final = re.compile(r"(?<![\w.%+-])[\w.%+-]+(?:@|%40)(?:[\w-]+\.)+[\w-]+")
_CARD: Final = re.compile(r"(?<![0-9.])[2-6](?:[ -]?[0-9]){12,18}(?![0-9])")
_TOKEN: Final = re.compile(
    r"(?<![\w-])eyJ[\w-]{8,}\.[\w-]*(?:\.[\w-]*){0,3}"
    r"|(?<![A-Za-z0-9])[a-z]{2}_(?:live|test)_\w{8,}"
    r"|(?<![A-Za-z0-9])(?:gh[opsur]_|github_pat_|glpat-|xox[abeprs]-|sk-)[\w-]{10,}"
    r"|(?<![A-Za-z0-9])AKIA[0-9A-Z]{16}"
    r"|(?<![A-Za-z0-9])[Bb][Ee][Aa][Rr][Ee][Rr]\s+[\w.~+/=-]{12,}"
)
_TOKEN_MARKS: Final = (
    *("eyJ", "_live_", "_test_", "earer", "EARER", "sk-", "glpat-", "xox", "AKIA"),
    *("ghp_", "gho_", "ghs_", "ghu_", "ghr_", "github_pat_"),
)
_DIGITS_TO_ZERO: Final = bytes(48 if 48 <= byte < 58 else 32 for byte in range(256))
_FEWEST_CARD_DIGITS: Final = b"0" * 13
# Of each first digit, the lengths that card numbers have.
_CARD_LENGTHS: Final = {
    "2": (16,),
    "3": (14, 15, 16),
    "4": (13, 16, 19),
    "5": (16,),
    "6": (16, 17, 18, 19),
}


def _may_hold_email(text: str) -> bool:
    return "@" in text or "%40" in text


def _may_hold_card(text: str) -> bool:
    return _FEWEST_CARD_DIGITS in text.encode().translate(_DIGITS_TO_ZERO, b" -")


def _may_hold_token(text: str) -> bool:
    return any(mark in text for mark in _TOKEN_MARKS)


def _without_emails(text: str) -> str:
    return _EMAIL.sub("[email]", text)


def _without_cards(text: str) -> str:
    return _CARD.sub(lambda match: "[card]" if _is_card(match[0]) else match[0], text)


def _without_tokens(text: str) -> str:
    return _TOKEN.sub("[token]", text)


def _is_card(text: str) -> bool:
    digits = text.replace(" ", "").replace("-", "")
    if len(digits) not in _CARD_LENGTHS[digits[0]]:
        return False
    doubled = (divmod(2 * int(digit), 10) for digit in digits[-2::-2])  # Luhn
    return (sum(map(int, digits[-1::-2])) + sum(map(sum, doubled))) % 10 == 0


_Kind = tuple[Callable[[str], bool], Callable[[str], str]]
_KINDS: Final[Mapping[str, _Kind]] = {
    "token": (_may_hold_token, _without_tokens),  # first: a token may hold what looks like others
    "email": (_may_hold_email, _without_emails),
    "card": (_may_hold_card, _without_cards),
}


class Scrubber:
    """Takes out the members and the kinds of text that one project names."""

    def __init__(self, deny: Iterable[str], kinds: Iterable[str]) -> None:
        self._deny = frozenset(name.casefold() for name in deny)
        # As they stand in JSON.
        self._denied_texts = [orjson.dumps(name).decode().casefold() for name in deny]
        wanted = set(kinds)
        self._kinds = [kind for name, kind in _KINDS.items() if name in wanted]

    def __bool__(self) -> bool:
        """Return whether there is anything to take out."""
        return bool(self._deny or self._kinds)

    def clean(self, text: str) -> str:
        """Return the JSON *text* without it; the same object if nothing is found."""
        found = [clean for may_hold, clean in self._kinds if may_hold(text)]
        if not found and not self._holds_denied(text):
            return text
        return orjson.dumps(self._walk(orjson.loads(text), found)).decode()

    def _holds_denied(self, text: str) -> bool:
        if not self._deny:
            return False
        folded = text.casefold()
        return any(name in folded for name in self._denied_texts)

    def _walk(self, value: Any, found: list[Callable[[str], str]]) -> Any:
        if isinstance(value, str):
            for clean in found:
                value = clean(value)
            return value
        if isinstance(value, dict):
            return self._members(value, found)
        if isinstance(value, list):
            return [self._walk(item, found) for item in value]
        if isinstance(value, int | float) and not isinstance(value, bool) and found:
            return self._number(value, found)
        return value

    def _members(self, value: dict[str, Any], found: list[Callable[[str], str]]) -> dict[str, Any]:
        members: dict[str, Any] = {}
        for name, item in value.items():
            if name.casefold() in self._deny:
                continue
            kept = self._walk(name, found)
            count = 1
            while kept in members:  # two addresses as names of members became one
                count += 1
                kept = f"{self._walk(name, found)} {count}"
            members[kept] = self._walk(item, found)
        return members

    def _number(self, value: float, found: list[Callable[[str], str]]) -> Any:
        """Return a card number that was sent as a number as its kind, other numbers as they are."""
        if isinstance(value, float) and not value.is_integer():
            return value
        digits = str(int(value)) if abs(value) < 1e20 else ""
        return value if self._walk(digits, found) == digits else "[card]"
