"""Every name that we use in Redis."""

from typing import Final

# One entry a commit: `commit_id` and `events`, a JSON array. The id is `<xid>-<commit_id>`.
STREAM: Final = "analytics:events"
# The id of the last entry that the publisher appended, written together with it.
STREAM_TAIL: Final = "analytics:events:tail"
# The token buckets, a string each. The braces keep them together in a cluster, where one call may
# touch only one slot.
TOKENS: Final = "analytics:{limits}:"
# Events of a project in a month, by the month and its id; in one slot like the buckets.
USAGE: Final = "analytics:{usage}:"


# The braces as above: what one call touches lies together.
def sessions_since(project_id: int) -> str:
    """Return the key under which stands when the memory of a project's sessions began."""
    return f"analytics:{{sessions:{project_id}}}:since"


def session_stream(project_id: int, stream: str) -> str:
    """Return the key of the sessions of one stream of a project."""
    return f"analytics:{{sessions:{project_id}}}:{stream}"


# Acknowledged events that wait for Postgres, where the spool is a list here; then comes a name for
# the database that they are for.
SPOOL: Final = "analytics:spool:"
