"""What can go wrong, as a tree.

CollectorError
├── ConfigurationError      a setting is missing or wrong; says which
├── UnsafeStore             Postgres would acknowledge what it can lose
├── StoreUnavailable        nowhere safe to put events now; the client retries
├── EmbeddedError           `up` can't run its own servers; see embedded/
└── Refusal                 a request is refused, with a code of spec/errors.json
    └── InvalidQuery        a question about stored events is malformed
"""

from __future__ import annotations


class CollectorError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigurationError(CollectorError):
    """A setting is missing or wrong; the message names each one."""


class UnsafeStore(CollectorError):
    """Postgres has fsync, full_page_writes or synchronous_commit off; turn it on."""


class StoreUnavailable(CollectorError):
    """Postgres did not confirm in time; the same events may be sent again."""

    def __init__(self, reason: str, *, advice: str | None = None, retry_after_s: int = 1) -> None:
        """*reason* is for the log; *advice*, if there is any, for who asked."""
        super().__init__(reason)
        self.advice = advice
        self.retry_after_s = retry_after_s


class Refusal(CollectorError):
    """A request is refused with *code*, one of spec/errors.json `request`.

    *message* replaces the code's own sentence where more can be said. *details* are further
    members of the answer; *headers* go with it.
    """

    def __init__(
        self,
        code: str,
        message: str | None = None,
        *,
        details: dict[str, object] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message or code)
        self.code = code
        self.message = message
        self.details = details or {}
        self.headers = headers or {}


class InvalidQuery(Refusal):
    """A question is malformed: *field* says where, *message* what to change."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__("INVALID_QUERY", f"{field}: {message}", details={"field": field})
