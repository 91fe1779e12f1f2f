"""Rejected events are kept, shown to who looks after the project, and can be sent again."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

from analytics_collector.adapters.postgres.dead_letters import PostgresDeadLetters
from analytics_collector.interfaces import RowsRefused

PATH = "/api/v1/dead-letters"


class Desk:
    """An operator of the project `mine`, whose letters are all gone at first."""

    def __init__(self, site: Any, eventually: Callable[..., Any]) -> None:
        self.site = site
        self._eventually = eventually
        # Letters are written in order: when the last one is there, no earlier one comes later.
        last = bad()
        site.post(last)
        found = "select 1 from dead_letters where message_id = $1"
        eventually(lambda: site.sql(found, last["messageId"]))
        site.sql("delete from dead_letters")
        site.sql("delete from events")

    def ask(
        self, method: str, path: str = "", key: str = "admin", status: int = 200, **kwargs: Any
    ) -> Any:
        headers = {"x-api-key": self.site.keys.get(key, key)}
        answer = self.site.ask(method, PATH + path, headers=headers, **kwargs)
        assert answer.status_code == status, answer.text
        content = answer.json()
        assert content["success"] == (status < 400)
        return content["data"] if status < 400 else content["error"]

    def list(self, count: int, key: str = "admin") -> Any:
        """Return the letters, when there are so many."""
        found: list[Any] = []

        def are_there() -> bool:
            found[:] = self.ask("GET", key=key)["deadLetters"]
            return len(found) == count

        self._eventually(are_there)
        return found

    def replay(self, status: int = 200, **document: Any) -> Any:
        return self.ask("POST", "/replay", status=status, json=document)

    def outcomes(self, **document: Any) -> list[str]:
        return [verdict["outcome"] for verdict in self.replay(**document)["verdicts"]]


@pytest.fixture
def desk(site: Any, eventually: Callable[..., Any]) -> Iterator[Desk]:
    yield Desk(site, eventually)


def bad(**members: Any) -> dict[str, Any]:
    """Return an event without its name."""
    return {"type": "track", "messageId": str(uuid4()), "properties": {"a": 1}, **members}


def good(name: str = "good") -> dict[str, Any]:
    return {**bad(), "name": name}


def test_a_rejected_event_is_kept_with_what_is_known_of_it(desk):
    """Reason, stage, field, key, message id, when it came, and the event itself."""
    event = bad(userId="u")
    answer = desk.site.post(good(), event)
    assert answer.status_code == 202
    [letter] = desk.list(1)

    assert "payload" not in letter
    assert (letter["stage"], letter["reason"]) == ("validate", "MISSING_NAME")
    assert (letter["messageId"], letter["isWhole"]) == (event["messageId"], True)
    assert (letter["attempts"], letter["revision"], letter["name"]) == (0, 0, None)
    assert letter["receivedAt"].endswith("Z")
    key_ids = [row["key_id"] for row in desk.site.sql("select key_id from api_keys")]
    assert letter["keyId"] in key_ids
    assert desk.ask("GET", f"/{letter['letterId']}") == {**letter, "payload": event}


def test_a_batch_that_is_refused_as_a_whole_is_kept_too(desk):
    """Each of its events, when all are bad; its beginning, when it can't be read."""
    assert desk.site.post(bad(), bad()).status_code == 400
    headers = {"x-api-key": desk.site.keys["ingest"], "Content-Type": "application/json"}
    for body, encoding in [
        (b'{"batch": [' + b'{"a": 1},' * 1_000, {}),
        (gzip.compress(b"\xff"), {"Content-Encoding": "gzip"}),
        (b"no gzip", {"Content-Encoding": "gzip"}),
    ]:
        answer = desk.site.ask(
            "POST", "/api/v1/events", content=body, headers={**headers, **encoding}
        )
        assert answer.status_code == 400
    letters = desk.list(5)

    assert [letter["reason"] for letter in reversed(letters)] == [
        *("MISSING_NAME", "MISSING_NAME", "INVALID_JSON", "INVALID_UTF8", "INVALID_ENCODING")
    ]
    assert [letter["isWhole"] for letter in letters] == [False, False, False, True, True]
    assert letters[0]["stage"] == "decode"
    whole = desk.ask("GET", f"/{letters[2]['letterId']}")
    assert whole["payload"].startswith('{"batch": [{"a": 1},')
    assert len(whole["payload"]) <= 2_048


def test_what_a_stranger_sends_is_not_kept(desk):
    """Only who has a key can leave something here."""
    assert desk.site.post(bad(), key="ak_live_unknown").status_code == 401
    assert desk.site.post(bad(), key="read").status_code == 403
    assert desk.site.post(bad()).status_code == 400

    assert len(desk.list(1)) == 1


def test_letters_are_found_by_what_is_asked(desk):
    """By reason, stage, name and time."""
    desk.site.post(bad(), {"type": "track", "name": "sold", "timestamp": "yesterday"}, good())
    [by_time, _] = desk.list(2)

    def names(**query: str) -> list[str]:
        return [letter["reason"] for letter in desk.ask("GET", params=query)["deadLetters"]]

    assert names(reason="MISSING_NAME") == ["MISSING_NAME"]
    assert names(name="sold") == ["INVALID_TIMESTAMP"]
    assert names(stage="store") == []
    assert names(to=by_time["receivedAt"]) == []
    assert len(names(**{"from": by_time["receivedAt"], "to": "2999-01-01T00:00:00Z"})) == 2


def test_pages_follow_each_other(desk):
    """Each letter is on one page, whatever comes meanwhile."""
    desk.site.post(*(bad() for _ in range(7)))
    ids = [letter["letterId"] for letter in desk.list(7)]
    seen, cursor = [], None
    while True:
        query = {"limit": "3"} | ({"cursor": cursor} if cursor else {})
        page = desk.ask("GET", params=query)
        seen += [letter["letterId"] for letter in page["deadLetters"]]
        cursor = page["nextCursor"]
        if cursor is None:
            break
        desk.site.post(bad())

    assert seen == ids == sorted(ids, reverse=True)


@pytest.mark.parametrize(
    "query",
    [
        *({"limit": "0"}, {"limit": "501"}, {"cursor": "x"}, {"cursor": "MTox w=="}),
        *({"from": "2026-01-01"}, {"to": "soon"}, {"name": "a\0"}),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(desk, query):
    """And tells where."""
    error = desk.ask("GET", params=query, status=400)

    assert (error["code"], error["field"]) == ("INVALID_QUERY", next(iter(query)))


def test_a_letter_is_edited_replayed_and_gone(desk):
    """The way of an operator: look, try, correct, try, send."""
    event = bad(timestamp="2026-01-01T00:00:00Z")
    desk.site.post(event)
    [letter] = desk.list(1)
    path = f"/{letter['letterId']}"

    assert desk.outcomes(ids=[letter["letterId"]], dryRun=True) == ["rejected"]
    assert desk.ask("GET", path)["attempts"] == 0
    assert desk.outcomes(ids=[letter["letterId"]]) == ["rejected"]
    assert desk.ask("GET", path)["attempts"] == 1
    edited = desk.ask("PATCH", path, json={"payload": {**event, "name": "corrected"}})
    assert (edited["name"], edited["revision"]) == ("corrected", 1)
    assert desk.outcomes(filter={"name": "corrected"}, dryRun=True) == ["stored"]
    assert desk.site.names() == []
    [verdict] = desk.replay(filter={})["verdicts"]

    assert (verdict["outcome"], verdict["messageId"]) == ("stored", event["messageId"])
    assert desk.list(0) == []
    [stored] = desk.site.sql('select "timestamp", received_at, message_id::text from events')
    assert stored["message_id"] == event["messageId"]
    assert stored["timestamp"].isoformat() == "2026-01-01T00:00:00+00:00"
    assert stored["received_at"].isoformat(timespec="milliseconds")[:23] in letter["receivedAt"]


def test_a_replay_never_stores_an_event_twice(desk):
    """Not if the event came by itself meanwhile, nor if a replay was cut off before its end."""
    event = bad()
    desk.site.post(event)
    [letter] = desk.list(1)
    path = f"/{letter['letterId']}"
    desk.ask("PATCH", path, json={"payload": {**event, "name": "twice"}})
    desk.site.post({**event, "name": "first"})

    assert desk.outcomes(ids=[letter["letterId"]], dryRun=True) == ["duplicate"]
    assert desk.outcomes(ids=[letter["letterId"]]) == ["duplicate"]
    assert desk.site.names() == ["first"]
    assert desk.list(0) == []


def test_an_event_without_an_id_gets_the_same_one_in_each_replay(desk):
    """What was stored before the letter could be removed is known again."""
    event = {"type": "track"}
    desk.site.post(event)
    [letter] = desk.list(1)
    desk.ask("PATCH", f"/{letter['letterId']}", json={"payload": {**event, "name": "once"}})
    keep = desk.site.sql("select * from dead_letters")
    outcomes = desk.outcomes(filter={})
    names = [name for name, _ in keep[0].items() if name not in ("letter_id", "is_acknowledged")]
    columns = ", ".join(names)
    places = ", ".join(f"${number + 2}" for number in range(len(names)))
    desk.site.sql(  # as if the replay had died before its end
        f"insert into dead_letters (letter_id, {columns}) overriding system value "
        f"values ($1, {places})",
        *(keep[0][name] for name in ["letter_id", *names]),
    )

    assert outcomes + desk.outcomes(filter={}) == ["stored", "duplicate"]
    assert desk.site.names() == ["once"]


def test_what_is_not_whole_can_be_written_anew_and_is_not_sent_before(desk):
    """A replay never stores something other than what was sent, or what an operator wrote."""
    desk.site.ask(
        *("POST", "/api/v1/events"),
        content=b'{"batch":[{"type":"track","name":"n","properties":{"a":1e999}}]}',
        headers={"x-api-key": desk.site.keys["ingest"], "Content-Type": "application/json"},
    )
    [letter] = desk.list(1)
    assert (letter["reason"], letter["isWhole"]) == ("NUMBER_OUT_OF_RANGE", False)
    assert desk.outcomes(filter={}) == ["incomplete"]

    desk.ask("PATCH", f"/{letter['letterId']}", json={"payload": good("anew")})
    assert desk.outcomes(filter={}) == ["stored"]
    assert desk.site.names() == ["anew"]


def test_a_replay_goes_on_where_the_last_one_ended(desk):
    """Letters that fail again do not stand in the way of those behind them."""
    desk.site.post(*(bad() for _ in range(5)))
    desk.list(5)
    seen, cursor = [], None
    for _ in range(3):
        answer = desk.replay(filter={}, limit=2, **({"cursor": cursor} if cursor else {}))
        seen += [verdict["letterId"] for verdict in answer["verdicts"]]
        cursor = answer["nextCursor"]

    assert cursor is None
    assert seen == sorted(set(seen))
    assert len(seen) == 5


def test_what_the_store_refused_can_be_sent_again(desk):
    """It passed every check, and got its id from us."""

    class Refusing:
        async def append(self, rows: Any) -> list[int]:
            raise RowsRefused("no")

    site = desk.site
    event = {key: value for key, value in good("late").items() if key != "messageId"}
    writer = site.services.writer
    kept_store, writer._store = writer._store, Refusing()
    try:
        assert site.post(event).status_code == 400
    finally:
        writer._store = kept_store
    [letter] = desk.list(1)

    assert (letter["stage"], letter["reason"]) == ("store", "INTERNAL_INVALID")
    [verdict] = desk.replay(filter={})["verdicts"]
    assert (verdict["outcome"], verdict["messageId"]) == ("stored", letter["messageId"])


def test_an_event_that_a_schema_refused_is_stored_once_the_schema_lets_it(desk, eventually):
    """A replay goes through the same stages, so a corrected plan is enough."""
    site = desk.site
    site.sql('update projects set settings = \'{"schemas": {"mode": "reject"}}\'')
    headers = {"x-api-key": site.keys["admin"]}

    def register(kind: str) -> None:
        answer = site.ask(
            *("PUT", "/api/v1/schemas/planned"), headers=headers, json={"schema": {"a": kind}}
        )
        assert answer.status_code < 300, answer.text

    register("string")
    port = site.beside()
    assert site.post(good("planned"), port=port).status_code == 400
    [letter] = desk.list(1)
    assert (letter["stage"], letter["reason"]) == ("schema", "SCHEMA_VIOLATION")
    register("number")
    eventually(lambda: desk.outcomes(filter={}, dryRun=True) == ["stored"])
    outcomes = desk.outcomes(filter={})
    site.sql("update projects set settings = '{}'")

    assert outcomes == ["stored"]
    assert site.names() == ["planned"]


def test_privacy_holds_for_letters_too(new_site, eventually):
    """What a project does not want stored is not kept because its event was refused."""
    site = new_site()
    site.sql(
        """update projects set settings =
        '{"privacy": {"denyProperties": ["ssn"], "scrub": ["email"], "ip": "drop"}}'"""
    )
    desk = Desk(site, eventually)
    site.post(
        bad(
            properties={"ssn": "078-05-1120", "mail": "a@b.example"},
            context={"ip": "203.0.113.9", "page": {"url": "https://x.example/?token=topsecret"}},
        )
    )
    site.ask(
        *("POST", "/api/v1/events"),
        content=b'{"batch": [{"ssn": "078-05-1120"',
        headers={"x-api-key": site.keys["ingest"], "Content-Type": "application/json"},
    )
    desk.list(2)
    [row] = site.sql("select string_agg(payload, ' ') as payloads from dead_letters")

    for secret in ("078-05-1120", "a@b.example", "203.0.113.9", "topsecret"):
        assert secret not in row["payloads"]


def test_who_looks_after_one_project_sees_no_letter_of_another(desk):
    """Nor does it change, remove or replay one; its existence is not told."""
    other = {scope: desk.site.new_key([scope], "theirs") for scope in ("ingest", "admin")}
    desk.site.post(bad(), key=other["ingest"])
    [letter] = desk.list(1, key=other["admin"])
    path = f"/{letter['letterId']}"

    assert desk.ask("GET", path, status=404)["code"] == "NOT_FOUND"
    assert desk.ask("PATCH", path, status=404, json={"payload": good()})["code"] == "NOT_FOUND"
    assert desk.ask("DELETE", path, status=404)["code"] == "NOT_FOUND"
    assert desk.outcomes(ids=[letter["letterId"]]) == []
    assert desk.ask("GET", params={"projectId": letter["projectId"]}, status=404)
    assert desk.replay(404, filter={}, projectId=letter["projectId"])["code"] == "NOT_FOUND"
    assert desk.ask("GET", path, key=other["admin"])["revision"] == 0


def test_the_installation_looks_after_all_projects(desk):
    """A key of the project `default` names the one that it means."""
    installation = desk.site.new_key(["admin"], "default")
    desk.site.post(bad())
    [letter] = desk.list(1)

    assert desk.ask("GET", key=installation)["deadLetters"] == []
    asked = desk.ask("GET", key=installation, params={"projectId": letter["projectId"]})
    assert [found["letterId"] for found in asked["deadLetters"]] == [letter["letterId"]]
    desk.ask("DELETE", f"/{letter['letterId']}", key=installation)
    assert desk.list(0) == []


@pytest.mark.parametrize("scope", ["ingest", "read"])
def test_only_the_scope_admin_may(desk, scope):
    """Payloads are for nobody else."""
    for method, path in [("GET", ""), ("GET", "/1"), ("PATCH", "/1"), ("DELETE", "/1")]:
        assert desk.ask(method, path, key=scope, status=403)["code"] == "INSUFFICIENT_SCOPE"
    assert desk.ask("POST", "/replay", key=scope, status=403)["code"] == "INSUFFICIENT_SCOPE"


@pytest.mark.parametrize("letter_id", ["0", "99999", "x", "-1", "9" * 30])
def test_a_letter_that_is_not_there_is_not_found(desk, letter_id):
    """Whatever stands in its place."""
    assert desk.ask("GET", f"/{letter_id}", status=404)["code"] == "NOT_FOUND"
    assert desk.ask("DELETE", f"/{letter_id}", status=404)["code"] == "NOT_FOUND"


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"[]", b"{}", b'{"payload": 1}', b'{"payload": {}, "name": 1}', b"\xff"),
        *(b'{"payload": {"a": NaN}}', b'{"payload": {"a": 1e999}}', b'{"payload": ' + b"[" * 9_999),
        b'{"payload": {"a": "' + b"x" * 110_000 + b'"}}',
    ],
)
def test_an_edit_that_is_no_event_is_refused(desk, body):
    """Nothing is changed."""
    desk.site.post(bad())
    [letter] = desk.list(1)
    error = desk.ask("PATCH", f"/{letter['letterId']}", status=400, content=body)

    assert error["code"] == "INVALID_QUERY"
    assert desk.ask("GET", f"/{letter['letterId']}")["revision"] == 0


def test_an_edit_keeps_every_number_as_it_was_written(desk):
    """One that can't be stored is refused by the replay, not changed on the way."""
    desk.site.post(bad())
    [letter] = desk.list(1)
    body = (
        b'{"payload": {"type": "track", "name": "n", "properties": {"a": 123456789012345678901}}}'
    )
    desk.ask("PATCH", f"/{letter['letterId']}", content=body)

    [verdict] = desk.replay(filter={})["verdicts"]
    assert (verdict["outcome"], verdict["code"]) == ("rejected", "NUMBER_OUT_OF_RANGE")


def test_what_a_consumer_could_not_apply_is_not_edited(desk):
    """Its event is stored as it is, and names its project: it must not be made to name another."""
    desk.site.post(bad())
    [letter] = desk.list(1)
    desk.site.sql("update dead_letters set stage = 'consumer:daily_counts'")

    error = desk.ask("PATCH", f"/{letter['letterId']}", status=409, json={"payload": good()})
    assert error["code"] == "CONFLICT"


@pytest.mark.parametrize(
    "document",
    [
        *({}, {"ids": []}, {"ids": ["1"]}, {"ids": [1], "filter": {}}, {"filter": []}),
        *({"filter": {"color": "red"}}, {"filter": {}, "dryRun": 1}, {"filter": {}, "limit": 501}),
        *({"ids": [2**63]}, {"filter": {"name": 1}}, {"filter": {}, "cursor": 7}, {"all": True}),
    ],
)
def test_a_replay_that_is_not_clear_is_refused(desk, document):
    """Rather nothing than something that was not meant."""
    assert desk.replay(400, **document)["code"] == "INVALID_QUERY"


def test_while_postgres_is_away_rejections_are_answered_all_the_same(desk):
    """Noting is no part of the answer, and letters survive a short outage in memory."""
    site = desk.site
    with site.without_postgres(site.keys["ingest"]):
        assert site.post(bad()).status_code == 400
        headers = {"x-api-key": site.keys["admin"]}
        refused = site.ask("GET", PATH, headers=headers)

    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "STORE_UNAVAILABLE"
    desk.list(1)


def test_letters_are_bounded_even_if_no_worker_runs(new_site, eventually):
    """Nobody fills the disk with nonsense."""
    site = new_site(dead_letter_max_per_project=300)
    kept = PostgresDeadLetters(site.services.dead_letters._database)

    def count() -> int:
        total: int = site.sql("select count(*) as total from dead_letters")[0]["total"]
        return total

    for _ in range(3):
        site.post(*(bad() for _ in range(250)))
    eventually(lambda: site.sql("select 1 from dead_letters where letter_id >= 750"))
    eventually(lambda: count() <= 300 + 250)
    site.run(kept.bound([site.sql("select project_id from dead_letters limit 1")[0][0]], 300))

    assert count() == 300
