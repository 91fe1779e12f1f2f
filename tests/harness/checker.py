"""Compare what was acknowledged with what is stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.client import Ledger


@dataclass(frozen=True, slots=True)
class Findings:
    """What a check saw. Acknowledged and stored are counts; the others are message ids."""

    acknowledged: int
    stored: int
    lost: list[str]
    doubled: list[str]
    invented: list[str]
    out_of_order: list[str]

    @property
    def is_clean(self) -> bool:
        """Whether every promise was kept."""
        return not (self.lost or self.doubled or self.invented or self.out_of_order)

    def __str__(self) -> str:
        faults = {
            name: len(getattr(self, name))
            for name in ("lost", "doubled", "invented", "out_of_order")
        }
        return f"acknowledged {self.acknowledged}, stored {self.stored}, {faults}"


def check(ledgers: Sequence[Ledger], stored: Iterable[tuple[str, str]]) -> Findings:
    """Return the findings for *stored*, message and user ids in stored order.

    What was acknowledged must be stored, and nothing twice. What was sent and not acknowledged
    may be stored or not. What is stored of a user must be in the order of sending.
    """
    rows = list(stored)
    counts = Counter(message_id for message_id, _ in rows)
    owners = {message_id: ledger.user_id for ledger in ledgers for message_id in ledger.sent}
    acknowledged = [message_id for ledger in ledgers for message_id in ledger.acknowledged]
    return Findings(
        acknowledged=len(acknowledged),
        stored=len(rows),
        lost=[message_id for message_id in acknowledged if message_id not in counts],
        doubled=[message_id for message_id, count in counts.items() if count > 1],
        invented=[message_id for message_id, user in rows if owners.get(message_id) != user],
        out_of_order=[message_id for ledger in ledgers for message_id in _misplaced(ledger, rows)],
    )


def _misplaced(ledger: Ledger, rows: Sequence[tuple[str, str]]) -> list[str]:
    """Return the ids of a user that are stored behind one that was sent after them."""
    places = {message_id: place for place, message_id in enumerate(ledger.sent)}
    latest = -1
    misplaced = []
    for message_id, _ in rows:
        place = places.get(message_id)
        if place is None:
            continue
        if place < latest:
            misplaced.append(message_id)
        latest = max(latest, place)
    return misplaced
