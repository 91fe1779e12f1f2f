"""The mutants: of each guard that a promise hangs on, what the code would be without it.

A mutant names the tests that must turn red, as few and as narrow as they can be. Who changes a line
that is named here changes it here too: `test_catalogue.py` tells.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

_COLLECTOR: Final = "collector/src/analytics_collector"
_SDK: Final = "sdk-python/src/analytics_sdk"


class StaleMutantError(Exception):
    """The code has changed, and the catalogue has not."""


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One change to one file of ours."""

    name: str
    """What the code does then, in words."""
    promise: str
    """What is no longer true."""
    path: str
    text: str
    """What is replaced; it stands in the file once."""
    replacement: str
    tests: tuple[str, ...]
    """Those that must fail, each of them; without parameters."""

    def check(self, root: Path) -> str:
        """Return the content of the file below *root*; `StaleMutantError` if it can't be made."""
        content = (root / self.path).read_text(encoding="utf-8")
        if (found := content.count(self.text)) != 1:
            raise StaleMutantError(
                f"mutant “{self.name}”: {self.path} has its text {found} times, not once; "
                f"say in tests/mutants/catalogue.py how the code reads now: {self.text!r}"
            )
        return content

    def make_in(self, root: Path) -> None:
        """Change the file below *root*."""
        changed = self.check(root).replace(self.text, self.replacement)
        (root / self.path).write_text(changed, encoding="utf-8")


_ACKNOWLEDGED = (
    Mutant(
        name="acknowledges before the commit",
        promise="a 202 says that the events are committed",
        path=f"{_COLLECTOR}/ingest/write.py",
        text="        return await waiting.done\n",
        replacement="        return Stored([], [])\n",
        tests=(
            "collector/tests/ingest/test_write.py::test_nobody_is_answered_before_the_commit",
            "collector/tests/http/test_ingest.py::test_nobody_is_answered_before_the_commit",
        ),
    ),
    Mutant(
        name="starts on a Postgres with synchronous_commit off",
        promise="what is committed survives a crash of the database",
        path=f"{_COLLECTOR}/adapters/postgres/pool.py",
        text='("fsync", "full_page_writes", "synchronous_commit")',
        replacement='("fsync", "full_page_writes")',
        tests=(
            "collector/tests/adapters/test_postgres_pool.py::test_a_postgres_that_commits_later_is_refused_by_name",
        ),
    ),
    Mutant(
        name="lets the database decide whether commits wait for the disk",
        promise="a database that is reconfigured while we run loses nothing that we acknowledge",
        path=f"{_COLLECTOR}/adapters/postgres/pool.py",
        text='{"synchronous_commit": "on", "application_name"',
        replacement='{"application_name"',
        tests=(
            "collector/tests/adapters/test_postgres_pool.py::test_our_commits_wait_for_the_disk_even_if_the_server_is_changed_later",
        ),
    ),
    Mutant(
        name="forgets the second half of a group that holds a poison row",
        promise="a poison event costs no other event",
        path=f"{_COLLECTOR}/ingest/write.py",
        text="            await self._append(owners[half:], rows[half:])\n",
        replacement="",
        tests=(
            "collector/tests/ingest/test_write.py::test_a_poison_row_is_found_and_costs_no_other",
        ),
    ),
    Mutant(
        name="acknowledges before the spool has it",
        promise="with ack=spool a 202 says that the events are on the disk",
        path=f"{_COLLECTOR}/ingest/spooling.py",
        text="            await self._spool.append(rows)\n",
        replacement="            asyncio.create_task(self._spool.append(rows))\n",
        tests=(
            "collector/tests/ingest/test_spooling.py::test_nobody_is_answered_before_the_disk_has_it",
        ),
    ),
    Mutant(
        name="has SQLite sync the spool now and then",
        promise="what the spool has acknowledged survives a power cut",
        path=f"{_COLLECTOR}/adapters/spool/file.py",
        text="pragma synchronous = full",
        replacement="pragma synchronous = normal",
        tests=(
            "collector/tests/adapters/test_spool_power_cut.py"
            "::test_what_was_acknowledged_survives_a_power_cut",
        ),
    ),
    Mutant(
        name="empties the spool before the store has it",
        promise="what the spool holds is there until it is committed",
        path=f"{_COLLECTOR}/ingest/spooling.py",
        text="        refused, duplicates = await self._bring_home(found)\n",
        replacement="        await self._spool.remove(found.until, [])\n"
        "        refused, duplicates = await self._bring_home(found)\n",
        tests=(
            "collector/tests/ingest/test_spooling.py"
            "::test_what_comes_while_something_waits_waits_behind_it",
        ),
    ),
)

_ONCE_AND_IN_ORDER = (
    Mutant(
        name="stores a message id again",
        promise="an event that is sent again is stored once",
        path=f"{_COLLECTOR}/adapters/postgres/queries/events.sql",
        text='        project_id, message_id, "timestamp", received_at, client_timestamp,\n'
        "        coalesce(timestamp_clamped",
        replacement='        project_id, gen_random_uuid(), "timestamp", received_at, '
        "client_timestamp,\n        coalesce(timestamp_clamped",
        tests=(
            "collector/tests/adapters/test_postgres_store.py::test_duplicates_are_told_by_their_position",
            "collector/tests/http/test_ingest.py::test_a_hundred_copies_of_a_batch_at_once_are_one",
        ),
    ),
    Mutant(
        name="looks for message ids in all projects",
        promise="no project can keep the events of another from being stored",
        path=f"{_COLLECTOR}/ingest/write.py",
        text="identity = (row.project_id, row.message_id)",
        replacement="identity = (0, row.message_id)",
        tests=(
            "collector/tests/ingest/test_write.py::test_the_same_id_in_two_projects_is_two_events",
        ),
    ),
    Mutant(
        name="writes the newest request of a project first",
        promise="the events of a user are stored in the order in which they were sent",
        path=f"{_COLLECTOR}/ingest/turns.py",
        text="group.append(queue.requests.popleft())",
        replacement="group.append(queue.requests.pop())",
        tests=("collector/tests/ingest/test_turns.py::test_a_project_keeps_its_order",),
    ),
    Mutant(
        name="decodes the newest body of a project first",
        promise="the events of a user are stored in the order in which they were sent",
        path=f"{_COLLECTOR}/ingest/turnstile.py",
        text="size_bytes, let_in = queue.popleft()",
        replacement="size_bytes, let_in = queue.pop()",
        tests=(
            "collector/tests/ingest/test_turnstile.py::test_who_comes_later_does_not_overtake_its_own_project",
        ),
    ),
    Mutant(
        name="stores new events while older ones wait in the spool",
        promise="nothing overtakes what was acknowledged before",
        path=f"{_COLLECTOR}/ingest/write.py",
        text="        if self._overflow.is_empty:\n",
        replacement="        if True:\n",
        tests=(
            "collector/tests/ingest/test_spooling.py"
            "::test_what_comes_while_something_waits_waits_behind_it",
        ),
    ),
    Mutant(
        name="publishes commits that one in progress may still precede",
        promise="the stream misses no commit, however long its transaction took",
        path=f"{_COLLECTOR}/adapters/postgres/queries/events.sql",
        text="        and xid < pg_snapshot_xmin(pg_current_snapshot())\n",
        replacement="",
        tests=(
            "collector/tests/worker/test_publisher.py"
            "::test_a_transaction_that_began_early_and_commits_late_is_not_skipped",
        ),
    ),
    Mutant(
        name="goes by the number of a commit alone",
        promise="the stream misses no commit, whatever number it drew",
        path=f"{_COLLECTOR}/adapters/postgres/queries/events.sql",
        text="    where (xid, commit_id) >= ($1::xid8, $2::bigint)\n",
        replacement="    where commit_id >= $2::bigint and $1::xid8 is not null\n",
        tests=(
            "collector/tests/worker/test_publisher.py"
            "::test_a_commit_with_a_low_id_in_a_late_transaction_is_not_skipped",
        ),
    ),
    Mutant(
        name="appends to the stream without looking at its end",
        promise="a Redis that lost its memory at any moment loses no effect",
        path=f"{_COLLECTOR}/adapters/redis/stream.py",
        text="if (redis.call('GET', KEYS[2]) or '') ~= ARGV[1] then return 0 end\n"
        "if ARGV[1] ~= '' and redis.call('EXISTS', KEYS[1]) == 0 then return 0 end\n",
        replacement="",
        tests=(
            "collector/tests/adapters/test_redis_stream.py"
            "::test_a_flushed_stream_is_noticed_in_the_call_that_appends",
            "collector/tests/adapters/test_redis_stream.py::test_who_expects_another_tail_appends_nothing",
        ),
    ),
    Mutant(
        name="trims the stream up to the fastest consumer",
        promise="the stream keeps what a consumer has not seen",
        path=f"{_COLLECTOR}/adapters/redis/stream.py",
        text="minid=str(min(places))",
        replacement="minid=str(max(places))",
        tests=(
            "collector/tests/adapters/test_redis_stream.py"
            "::test_a_group_of_somebody_else_that_lags_loses_nothing",
        ),
    ),
)

_BAD_INPUT = (
    Mutant(
        name="does not judge events one by one",
        promise="a bad event is refused with its code, and costs no other",
        path=f"{_COLLECTOR}/ingest/validate.py",
        text="            _check_schema(checked)\n",
        replacement="",
        tests=(
            "collector/tests/ingest/test_vectors.py::test_an_event_gets_the_verdict_of_the_vector",
            "collector/tests/ingest/test_validate.py::test_every_event_has_exactly_one_outcome",
        ),
    ),
    Mutant(
        name="refuses a body for one lone surrogate",
        promise="a bad event costs no other",
        path=f"{_COLLECTOR}/ingest/decode.py",
        text="    except orjson.JSONDecodeError:\n        return _load_exactly(body), True\n",
        replacement="    except orjson.JSONDecodeError as exc:\n"
        '        raise Refusal("INVALID_JSON") from exc\n',
        tests=(
            "collector/tests/ingest/test_decode.py"
            "::test_what_the_fast_parser_changes_or_refuses_is_read_exactly",
        ),
    ),
    Mutant(
        name="takes NaN for null",
        promise="what is no JSON is refused and never guessed at",
        path=f"{_COLLECTOR}/ingest/decode.py",
        text='    raise ValueError(f"{name} is not JSON")\n',
        replacement="    return None\n",
        tests=(
            "collector/tests/ingest/test_vectors.py::test_a_body_gets_the_answer_of_the_vector",
        ),
    ),
    Mutant(
        name="rounds integers that are too large",
        promise="never is a number stored that was not sent",
        path=f"{_COLLECTOR}/ingest/decode.py",
        text='_LONG_NUMBER: Final = b"0" * 19\n',
        replacement='_LONG_NUMBER: Final = b"0" * 99\n',
        tests=(
            "collector/tests/ingest/test_vectors.py::test_an_event_gets_the_verdict_of_the_vector",
        ),
    ),
    Mutant(
        name="leaves NUL in texts",
        promise="no text of a client makes the database refuse a row",
        path=f"{_COLLECTOR}/ingest/validate.py",
        text='{0: "\\ufffd", **dict',
        replacement="{**dict",
        tests=(
            "collector/tests/ingest/test_vectors.py::test_an_event_gets_the_verdict_of_the_vector",
        ),
    ),
    Mutant(
        name="inflates whatever comes",
        promise="a bomb takes no more memory than a good body",
        path=f"{_COLLECTOR}/ingest/decode.py",
        text="member.decompress(rest, room + 1)",
        replacement="member.decompress(rest)",
        tests=(
            "collector/tests/ingest/test_decode.py"
            "::test_a_bomb_of_a_gigabyte_never_becomes_more_than_a_mebibyte",
        ),
    ),
    Mutant(
        name="reads a body of any length",
        promise="a body that does not say how long it is takes no more memory than others",
        path=f"{_COLLECTOR}/http/body.py",
        text="            if size_bytes > MAX_BODY_BYTES:\n",
        replacement="            if False:\n",
        tests=(
            "collector/tests/http/test_ingest.py"
            "::test_a_body_that_does_not_say_how_large_it_is_is_counted",
        ),
    ),
    Mutant(
        name="serves with uvicorn's own protocol",
        promise="slow and endless requests take neither connections nor memory",
        path=f"{_COLLECTOR}/server.py",
        text="            http=HardenedProtocol,\n",
        replacement='            http="httptools",\n',
        tests=(
            "tests/chaos/test_slow_clients.py::test_slow_clients_are_closed_in_time_and_hold_nobody_up",
        ),
    ),
)

_STRANGERS = (
    Mutant(
        name="never refuses for the rate",
        promise="a key sends no more than its limit",
        path=f"{_COLLECTOR}/ingest/limit.py",
        text="        return bucket.allowance(self._clock(), refused=1)\n",
        replacement="        return bucket.allowance(self._clock(), taken=1)\n",
        tests=(
            "collector/tests/ingest/test_limit.py::test_a_key_may_spend_its_minute_at_once_and_no_more",
            "collector/tests/http/test_ingest.py::test_too_many_requests_are_told_when_to_come_again",
        ),
    ),
    Mutant(
        name="refuses as fast as it is asked",
        promise="what one project sends beyond its limits does not slow the others",
        path=f"{_COLLECTOR}/http/ingest.py",
        text="            await asyncio.sleep(limiter.hold_s(scope[_PROJECT]))\n",
        replacement="            await asyncio.sleep(0)\n",
        tests=("collector/tests/http/test_limits.py::test_a_flood_is_refused_one_by_one",),
    ),
    Mutant(
        name="lets revoked keys in",
        promise="a key that was revoked is refused",
        path=f"{_COLLECTOR}/adapters/postgres/queries/keys.sql",
        text="where digest = any($1::bytea[]) and revoked_at is null\n",
        replacement="where digest = any($1::bytea[])\n",
        tests=(
            "collector/tests/adapters/test_postgres_keys.py::test_a_revoked_or_expired_key_is_not_found",
        ),
    ),
    Mutant(
        name="remembers keys for ever",
        promise="a key that was revoked is refused within five seconds",
        path=f"{_COLLECTOR}/keys.py",
        text="        if self._clock() >= expires:\n",
        replacement="        if not expires:\n",
        tests=("collector/tests/test_keys.py::test_a_revoked_key_is_refused_within_five_seconds",),
    ),
    Mutant(
        name="lets any key do anything",
        promise="a key does what its scopes say and nothing else",
        path=f"{_COLLECTOR}/http/auth.py",
        text="    if scope not in key.scopes:\n",
        replacement="    if False:\n",
        tests=(
            "collector/tests/http/test_ingest.py::test_a_key_for_something_else_may_not_write",
            "collector/tests/http/test_ingest.py::test_a_key_for_writing_may_not_read",
        ),
    ),
    Mutant(
        name="lets a page of any origin use a key",
        promise="a browser key works on the pages that it is for",
        path=f"{_COLLECTOR}/http/auth.py",
        text="        if not allows(key.allowed_origins, origin):\n",
        replacement="        if False:\n",
        tests=(
            "collector/tests/http/test_cors.py"
            "::test_a_page_that_the_key_does_not_allow_is_refused_and_can_read_why",
        ),
    ),
    Mutant(
        name="lets a star of an origin stand for anything",
        promise="a browser key works on the pages that it is for",
        path=f"{_COLLECTOR}/origins.py",
        text='bool(re.fullmatch(r"[a-z0-9_.-]+", rest))',
        replacement="True",
        tests=("collector/tests/test_origins.py::test_only_listed_pages_may_use_a_key",),
    ),
    Mutant(
        name="shows a project to the keys of others",
        promise="what belongs to another project is as if it were not there",
        path=f"{_COLLECTOR}/http/auth.py",
        text="    if type(asked) is int and key.of_installation and 0 < asked < 10**18:\n",
        replacement="    if type(asked) is int and 0 < asked < 10**18:\n",
        tests=(
            "collector/tests/http/test_admin.py::test_what_belongs_to_another_project_is_as_if_it_were_not_there",
        ),
    ),
)

_SDK_KEEPS = (
    Mutant(
        name="writes to the spool after it has said True",
        promise="with durable=True an event that was taken survives the death of the process",
        path=f"{_SDK}/outbox.py",
        text="            self._spool.append(event)\n",
        replacement="            threading.Timer(0.05, self._spool.append, [event]).start()\n",
        tests=(
            "sdk-python/tests/test_spool.py::test_durable_events_survive_every_end_of_a_process",
            "sdk-python/tests/test_spool.py::test_nothing_is_lost_when_writers_are_killed_at_random",
        ),
    ),
    Mutant(
        name="does not wait for the disk with fsync",
        promise='with durable="fsync" an event that was taken survives a power cut',
        path=f"{_SDK}/worker.py",
        text='is_synced=config.durable == "fsync"',
        replacement="is_synced=False",
        tests=(
            "sdk-python/tests/faults/test_power_cut.py::test_with_fsync_a_power_cut_costs_nothing",
        ),
    ),
    Mutant(
        name="syncs a file again whose fsync has failed",
        promise="what a failed fsync left is not taken for safe",
        path=f"{_SDK}/spool.py",
        text="                segment.is_spent = True\n                segment.cut(len(records))\n",
        replacement="                segment.cut(len(records))\n",
        tests=(
            "sdk-python/tests/test_spool.py::test_after_a_failed_fsync_the_segment_is_given_up",
        ),
    ),
    Mutant(
        name="makes room in the spool by dropping the oldest",
        promise="an event that was taken is kept",
        path=f"{_SDK}/spool.py",
        text='raise SpoolFullError(errno.ENOSPC, "The spool has reached spool_max_bytes")',
        replacement="self._remove(self._own[0])",
        tests=(
            "sdk-python/tests/test_spool.py::test_a_full_spool_turns_the_newest_away_and_keeps_the_old",
        ),
    ),
    Mutant(
        name="forgets what lies on disk before the collector has it",
        promise="an event is on disk until there is an answer for it",
        path=f"{_SDK}/outbox.py",
        text="        self._out_on_disk += len(reading.events)\n"
        "        return self._lot(reading, is_adopted=False)\n",
        replacement="        self._out_on_disk += len(reading.events)\n"
        "        self._spool.settle(reading.mark, len(reading.events))\n"
        "        return self._lot(reading, is_adopted=False)\n",
        tests=(
            "sdk-python/tests/test_spool.py::test_a_settled_lot_is_not_sent_again_by_the_next_process",
        ),
    ),
    Mutant(
        name="believes damaged records",
        promise="bytes that the disk has changed are never sent as an event",
        path=f"{_SDK}/segment.py",
        text="        if is_plausible and is_whole and crc32(content, time_s) == checksum:\n",
        replacement="        if is_plausible and is_whole:\n",
        tests=(
            "sdk-python/tests/test_spool.py::test_an_event_that_the_disk_has_changed_is_never_sent",
        ),
    ),
    Mutant(
        name="takes over what a living process holds",
        promise="processes that share a spool send each event once",
        path=f"{_SDK}/segment.py",
        text="            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
        replacement="",
        tests=("sdk-python/tests/test_spool.py::test_one_process_goes_on_with_what_another_left",),
    ),
    Mutant(
        name="puts new events before those on disk",
        promise="events are sent in the order of the calls",
        path=f"{_SDK}/outbox.py",
        text="                or self._waiting_on_disk\n",
        replacement="",
        tests=("sdk-python/tests/test_spool.py::test_order_and_account_hold_whatever_happens",),
    ),
    Mutant(
        name="keeps the locks of its parent after a fork",
        promise="a forked process can track",
        path=f"{_SDK}/worker.py",
        text="        if self._spool is not None:\n            self._spool.abandon()\n",
        replacement='        if hasattr(self, "pid"):\n            self.pid = getpid()\n'
        "            return\n",
        tests=("sdk-python/tests/test_process.py::test_a_fork_while_others_hold_every_lock",),
    ),
    Mutant(
        name="takes a lock that its own thread may hold",
        promise="a signal handler may track, whatever it interrupts",
        path=f"{_SDK}/outbox.py",
        text="        with self._lock:\n            waiting = len(self._waiting) + 1\n",
        replacement='        plain = self.__dict__.setdefault("_plain", threading.Lock())\n'
        "        with plain, self._lock:\n            waiting = len(self._waiting) + 1\n",
        tests=(
            "sdk-python/tests/test_process.py"
            "::test_a_signal_handler_may_track_in_the_middle_of_a_track",
        ),
    ),
)

_SDK_SENDS = (
    Mutant(
        name="follows redirects",
        promise="no key and no event goes where an answer points",
        path=f"{_SDK}/transport.py",
        text="follow_redirects=False",
        replacement="follow_redirects=True",
        tests=(
            "sdk-python/tests/faults/test_answers.py::test_nothing_reaches_the_target_of_a_redirect",
            "sdk-python/tests/test_transport.py::test_a_redirect_is_not_followed",
        ),
    ),
    Mutant(
        name="takes any 202 for the collector's",
        promise="an answer of something in between costs no event",
        path=f"{_SDK}/retry.py",
        text='        case 202 if type(document.get("eventCount")) is int:\n',
        replacement="        case 202:\n",
        tests=("sdk-python/tests/test_retry.py::test_spec_vector",),
    ),
    Mutant(
        name="ignores Retry-After",
        promise="a collector that asks for a pause gets it",
        path=f"{_SDK}/retry.py",
        text="    floor_s = retry_after_s(answer.retry_after, now)\n",
        replacement="    floor_s = 0.0\n",
        tests=(
            "sdk-python/tests/test_retry.py::test_spec_vector",
            "sdk-python/tests/test_worker.py::test_retry_after_is_obeyed",
        ),
    ),
    Mutant(
        name="reads an answer to its end",
        promise="no answer takes the memory of the program",
        path=f"{_SDK}/transport.py",
        text="            if len(content) > MAX_RESPONSE_BYTES:\n",
        replacement="            if False:\n",
        tests=("sdk-python/tests/test_transport.py::test_an_endless_answer_is_cut",),
    ),
    Mutant(
        name="drops a batch that the collector can't take now",
        promise="an event is dropped for nothing that passes",
        path=f"{_SDK}/retry.py",
        text="    return Again(reason, floor_s + backoff_s * jitter, floor_s)\n",
        replacement="    return Delivered()\n",
        tests=("sdk-python/tests/test_worker.py::test_after_a_fault_the_same_events_go_again",),
    ),
)

MUTANTS: Final = (
    *_ACKNOWLEDGED,
    *_ONCE_AND_IN_ORDER,
    *_BAD_INPUT,
    *_STRANGERS,
    *_SDK_KEEPS,
    *_SDK_SENDS,
)
