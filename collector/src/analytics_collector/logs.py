"""Log as JSON, one line a record. Messages are constants; the facts are in `extra`."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

import orjson

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


class JsonFormatter(logging.Formatter):
    """Format a record as one line of JSON, whatever it holds."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line: time, level, logger, message, then the facts."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        known = _STANDARD | line.keys()
        line.update({key: value for key, value in vars(record).items() if key not in known})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(line, default=repr).decode()
        except TypeError:  # a lone surrogate, a huge integer, a circle
            facts = {k: v if isinstance(v, str) else repr(v) for k, v in line.items()}
            return json.dumps(facts)


def configure(level: str) -> None:
    """Send the records of this process to stderr as JSON, from *level* up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # Its pools tell of an absent Postgres again and again, with tracebacks; we do so once a commit.
    logging.getLogger("asyncpg").setLevel(logging.ERROR)
