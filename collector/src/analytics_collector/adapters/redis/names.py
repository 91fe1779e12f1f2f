"""Every name that we use in Redis."""

from typing import Final

# One entry a commit: `commit_id` and `events`, a JSON array. The id is `<xid>-<commit_id>`.
STREAM: Final = "analytics:events"
# The id of the last entry that the publisher appended, written together with it.
STREAM_TAIL: Final = "analytics:events:tail"
