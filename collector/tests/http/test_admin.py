"""Projects and keys over HTTP: what an administrator can do, and only for its own project."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from analytics_collector.http.routes import routes
from analytics_collector.keys import generate_key

PROJECTS, KEYS = "/api/v1/admin/projects", "/api/v1/admin/keys"


def event(name="e", **members):
    return {"type": "track", "name": name, "messageId": str(uuid4()), **members}


class Admin:
    """Asks as one key does."""

    def __init__(self, site, project):
        self._site = site
        self.key = site.new_key(["admin"], project)
        found = site.sql("select project_id from projects where name = $1", project)
        self.project_id = found[0]["project_id"]

    def __call__(self, method, path, document=None, **kwargs):
        if document is not None:
            kwargs["json"] = document
        return self._site.ask(method, path, headers={"x-api-key": self.key}, **kwargs)

    def data(self, method, path, document=None, status=200):
        """Return what is answered when it is carried out."""
        answer = self(method, path, document)
        assert answer.status_code == status, answer.text
        body = answer.json()
        assert (body.keys(), body["success"], body["error"]) == (
            {"success", "data", "error"},
            True,
            None,
        )
        assert answer.headers["cache-control"] == "no-store"
        return body["data"]

    def new_key(self, **members):
        return self.data("POST", KEYS, {"scopes": ["ingest"], **members}, 201)


@pytest.fixture(scope="module")
def owner(site):
    """The installation's own administrator."""
    return Admin(site, "default")


@pytest.fixture
def mine(site):
    """The administrator of a project of its own."""
    return Admin(site, f"project {uuid4().hex}")


@pytest.fixture
def other(site):
    """The administrator of another project."""
    return Admin(site, f"project {uuid4().hex}")


def assert_refused(answer, status, code, about=""):
    body = answer.json()
    assert (answer.status_code, body["success"], body["data"]) == (status, False, None)
    assert body["error"]["code"] == code
    assert body["error"]["requestId"] == answer.headers["x-request-id"]
    assert about in body["error"]["message"]


# Projects


def test_the_installation_makes_projects_and_sees_them_all(owner, mine):
    """A new customer gets a project and its first administrator over HTTP alone."""
    name = f"customer {uuid4().hex}"

    made = owner.data(
        "POST", PROJECTS, {"name": name, "settings": {"privacy": {"ip": "drop"}}}, 201
    )
    first = owner.new_key(projectId=made["projectId"], scopes=["admin"])

    assert made["settings"] == {"privacy": {"ip": "drop"}}
    assert owner.data("GET", f"{PROJECTS}/{made['projectId']}") == made
    listed = owner.data("GET", PROJECTS)["projects"]
    assert {made["projectId"], mine.project_id} <= {project["projectId"] for project in listed}
    assert first["project"] == name
    assert owner.data("GET", f"{KEYS}?projectId={made['projectId']}")["keys"][0]["name"] == ""
    assert_refused(owner("POST", PROJECTS, {"name": name}), 409, "CONFLICT", name)


def test_a_projects_own_administrator_sees_and_makes_no_other(mine, other):
    """What is not its own is not there, and is not for it to make."""
    assert [project["projectId"] for project in mine.data("GET", PROJECTS)["projects"]] == [
        mine.project_id
    ]
    assert_refused(mine("POST", PROJECTS, {"name": "x"}), 403, "INSUFFICIENT_SCOPE", "`default`")
    assert_refused(mine("GET", f"{KEYS}?projectId={other.project_id}"), 404, "NOT_FOUND")
    named = {"scopes": ["read"], "projectId": other.project_id}
    assert_refused(mine("POST", KEYS, named), 404, "NOT_FOUND")


def test_settings_are_merged_member_by_member(mine):
    """A change of one leaves the others; null brings the default back."""
    path = f"{PROJECTS}/{mine.project_id}"
    mine.data("PATCH", path, {"settings": {"privacy": {"ip": "hash", "scrub": ["email"]}}})
    mine.data("PATCH", path, {"settings": {"limits": {"eventsPerMinute": 60}}})

    changed = mine.data("PATCH", path, {"settings": {"privacy": {"ip": None}}})

    expected = {"privacy": {"scrub": ["email"]}, "limits": {"eventsPerMinute": 60}}
    assert changed["settings"] == expected
    assert mine.data("PATCH", path, {"name": f"renamed {uuid4().hex}"})["settings"] == expected


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        ({"privacy": {"ip": "guess"}}, "settings.privacy.ip"),
        ({"limits": {"eventsPerMinute": 0}}, "settings.limits.eventsPerMinute"),
        ({"limits": 5}, "settings.limits"),
        ({"unknown": {}}, "settings"),
        ({"privacy": {"denyProperties": ["a\0b"]}}, "settings.privacy.denyProperties"),
        ([], "settings"),
        ("on", "settings"),
    ],
)
def test_wrong_settings_are_refused_with_their_place_and_change_nothing(mine, settings, place):
    """A mistake in one member is told, and nothing of the request is done."""
    path = f"{PROJECTS}/{mine.project_id}"

    answer = mine("PATCH", path, {"settings": settings, "name": "not this"})

    assert_refused(answer, 400, "INVALID_QUERY")
    assert answer.json()["error"]["field"].startswith(place)
    assert mine.data("GET", path)["settings"] == {}
    assert mine.data("GET", path)["name"] != "not this"


@pytest.mark.parametrize("depth", [40, 300, 900, 5_000])
def test_settings_that_are_nested_without_end_are_refused(mine, depth):
    """However deep a document is, the answer is no and never a fault."""
    content = '{"settings": {"privacy": {"ip": ' + "[" * depth + "]" * depth + "}}}"

    answer = mine("PATCH", f"{PROJECTS}/{mine.project_id}", content=content)

    assert_refused(answer, 400, "INVALID_QUERY")


def test_the_name_of_the_installations_project_stays_where_it_is(site, owner, mine):
    """Whoever could take the name `default` would rule over all projects."""
    for admin, name in ((mine, "default"), (owner, "elsewhere")):
        answer = admin("PATCH", f"{PROJECTS}/{admin.project_id}", {"name": name})
        assert_refused(answer, 409, "CONFLICT", "'default'")

    assert [row["project_id"] for row in site.sql("select * from projects where name = 'default'")]
    same = owner.data("PATCH", f"{PROJECTS}/{owner.project_id}", {"name": "default"})
    assert same["name"] == "default"


def test_no_project_takes_the_name_where_there_is_no_installations_project_yet(site, mine):
    """With databases of one's own there may be no project `default` at first."""
    site.sql("update projects set name = 'put aside' where name = 'default'")
    try:
        answer = mine("PATCH", f"{PROJECTS}/{mine.project_id}", {"name": "default"})
        assert_refused(answer, 409, "CONFLICT")
    finally:
        site.sql("update projects set name = 'default' where name = 'put aside'")


# Keys


def test_who_asks_long_questions_does_not_keep_keys_from_being_managed(site, mine):
    """A key that got into wrong hands can be revoked, whatever it is used for meanwhile."""
    pool = site.services.pools[-1]

    async def take_all():
        return [await pool.acquire() for _ in range(pool.get_max_size())]

    async def give_back(held):
        for connection in held:
            await pool.release(connection)

    held = site.run(take_all())
    try:
        mine.new_key()
        assert len(mine.data("GET", KEYS)["keys"]) == 2
    finally:
        site.run(give_back(held))


def test_a_new_key_is_shown_once_and_works(site, mine):
    """The answer to its making is the only one that holds it."""
    made = mine.new_key(name="web", allowedOrigins=["https://Shop.example.org:443/"])

    assert site.post(event(), key=made["key"]).status_code == 202
    assert made["allowedOrigins"] == ["https://shop.example.org"]
    assert made["scopes"] == ["ingest"]
    shown = mine.data("GET", f"{KEYS}/{made['keyId']}")
    assert shown["prefix"] == made["key"][:12]
    for path in (KEYS, f"{KEYS}/{made['keyId']}", f"{KEYS}/{made['keyId']}/usage"):
        assert made["key"][:13] not in mine("GET", path).text
        assert "digest" not in mine("GET", path).text


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({}, "scopes"),
        ({"scopes": []}, "scopes"),
        ({"scopes": ["root"]}, "scopes"),
        ({"scopes": "admin"}, "scopes"),
        ({"scopes": [["read"]]}, "scopes"),
        ({"scopes": ["read"], "name": "a\0b"}, "name"),
        ({"scopes": ["read"], "name": 5}, "name"),
        ({"scopes": ["read"], "name": "x" * 256}, "name"),
        ({"scopes": ["read"], "expiresAt": "tomorrow"}, "expiresAt"),
        ({"scopes": ["read"], "expiresAt": "2030-01-01"}, "expiresAt"),
        ({"scopes": ["read"], "expiresAt": 1900000000}, "expiresAt"),
        ({"scopes": ["read"], "expiresAt": "9999-12-31T23:59:59-23:59"}, "expiresAt"),
        ({"scopes": ["read"], "allowedOrigins": "https://a.example"}, "allowedOrigins"),
        ({"scopes": ["read"], "allowedOrigins": ["*"]}, "allowedOrigins"),
        ({"scopes": ["read"], "allowedOrigins": ["https://a.example/path"]}, "allowedOrigins"),
        ({"scopes": ["read"], "colour": "red"}, "colour"),
    ],
)
def test_a_key_that_makes_no_sense_is_refused_with_its_member(mine, document, field):
    """What is wrong is named, and no key is made."""
    answer = mine("POST", KEYS, document)

    assert_refused(answer, 400, "INVALID_QUERY")
    assert answer.json()["error"]["field"] == field
    assert len(mine.data("GET", KEYS)["keys"]) == 1


@pytest.mark.parametrize("content", [b"{", b"[]", b"null", b"\xff", b'"x"'])
def test_what_is_no_json_object_is_refused(mine, content):
    """Every body gets an answer in the envelope."""
    assert_refused(mine("POST", KEYS, content=content), 400, "INVALID_QUERY")


def test_a_body_that_is_too_large_is_refused(mine):
    """64 KiB are enough for any document here."""
    assert_refused(mine("POST", KEYS, content=b" " * 70_000), 413, "BODY_TOO_LARGE")


def test_a_rotated_key_and_its_successor_are_valid_until_the_overlap_ends(site, mine, eventually):
    """Applications change keys one by one; then the old one is refused, by the clock."""
    old = mine.new_key(name="web", scopes=["ingest", "read"], allowedOrigins=["https://a.example"])

    new = mine.data("POST", f"{KEYS}/{old['keyId']}/rotate", {"overlapSeconds": 2}, 201)

    same = ("name", "scopes", "allowedOrigins", "expiresAt", "projectId")
    assert [new[name] for name in same] == [old[name] for name in same]
    assert new["replaces"] == old["keyId"]
    assert site.post(event(), key=old["key"]).status_code == 202
    assert site.post(event(), key=new["key"]).status_code == 202
    eventually(lambda: site.post(event(), key=old["key"]).status_code == 401, timeout_s=7)
    ended = mine.data("GET", f"{KEYS}/{old['keyId']}")
    assert ended["expiresAt"] == new["oldKeyExpiresAt"]
    assert datetime.fromisoformat(ended["expiresAt"]) <= datetime.now(UTC)
    assert ended["replacedBy"] == new["keyId"]
    assert site.post(event(), key=new["key"]).status_code == 202


def test_a_key_is_replaced_once_and_only_while_it_is_valid(mine):
    """Two administrators who rotate one key at once don't end up with two successors."""
    old, revoked = mine.new_key(), mine.new_key()
    expired = mine.new_key(expiresAt="2020-01-01T00:00:00Z")
    mine.data("DELETE", f"{KEYS}/{revoked['keyId']}")
    new = mine.data("POST", f"{KEYS}/{old['keyId']}/rotate", status=201)

    for key in (old, revoked, expired):
        assert_refused(mine("POST", f"{KEYS}/{key['keyId']}/rotate"), 409, "CONFLICT")
    assert str(new["keyId"]) in mine("POST", f"{KEYS}/{old['keyId']}/rotate").text


def test_the_successor_of_a_key_that_was_to_end_ends_too(mine):
    """Who wanted keys to last 30 days gets one that lasts 30 days."""
    at = datetime.now(UTC) + timedelta(days=30)
    old = mine.new_key(expiresAt=at.isoformat())

    new = mine.data("POST", f"{KEYS}/{old['keyId']}/rotate", {"overlapSeconds": 60}, 201)

    late = datetime.fromisoformat(new["expiresAt"]) - at
    assert timedelta(0) <= late < timedelta(minutes=1)
    assert datetime.fromisoformat(new["oldKeyExpiresAt"]) < at


@pytest.mark.parametrize("overlap", [-1, 90 * 86_400 + 1, 1.5, "60", True, None])
def test_an_overlap_that_makes_no_sense_is_refused(mine, overlap):
    """From none to 90 days, in whole seconds."""
    key_id = mine.new_key()["keyId"]

    answer = mine("POST", f"{KEYS}/{key_id}/rotate", {"overlapSeconds": overlap})

    assert_refused(answer, 400, "INVALID_QUERY", "overlapSeconds")
    assert mine.data("GET", f"{KEYS}/{key_id}")["replacedBy"] is None


def test_what_is_not_named_in_a_change_of_a_key_stays(mine):
    """To say null is to say something: no end, any origin."""
    at = "2090-01-31T12:00:00.000Z"
    key = mine.new_key(name="a", allowedOrigins=["https://a.example"], expiresAt=at)
    path = f"{KEYS}/{key['keyId']}"

    def values(changed):
        return changed["name"], changed["expiresAt"], changed["allowedOrigins"]

    assert values(mine.data("PATCH", path, {})) == ("a", at, ["https://a.example"])
    assert values(mine.data("PATCH", path, {"name": "b"})) == ("b", at, ["https://a.example"])
    assert values(mine.data("PATCH", path, {"expiresAt": None}))[1:] == (
        None,
        ["https://a.example"],
    )
    assert values(mine.data("PATCH", path, {"allowedOrigins": None})) == ("b", None, None)
    assert values(mine.data("PATCH", path, {"allowedOrigins": []})) == ("b", None, [])


def test_a_key_can_be_let_expire_at_once(site, mine, eventually):
    """An end in the past is an end, for all within 5 seconds."""
    key = mine.new_key()
    assert site.post(event(), key=key["key"]).status_code == 202

    mine.data("PATCH", f"{KEYS}/{key['keyId']}", {"expiresAt": "2020-01-01T00:00:00+01:00"})

    eventually(lambda: site.post(event(), key=key["key"]).status_code == 401, timeout_s=5)


def test_a_revoked_key_is_refused_and_stays_revoked(site, mine, eventually):
    """The first word stands, and its time."""
    key = mine.new_key()
    assert site.post(event(), key=key["key"]).status_code == 202

    first = mine.data("DELETE", f"{KEYS}/{key['keyId']}")

    eventually(lambda: site.post(event(), key=key["key"]).status_code == 401, timeout_s=5)
    assert mine.data("DELETE", f"{KEYS}/{key['keyId']}") == first
    assert mine.data("GET", f"{KEYS}/{key['keyId']}")["revokedAt"] == first["revokedAt"]


def test_the_use_of_a_key_is_told_by_day(site, mine, eventually):
    """Requests, events that were acknowledged, events that were not; and when it was last used."""
    key = mine.new_key()
    known = event()
    site.post(known, event(), {"type": "track"}, key=key["key"])
    site.post(known, key=key["key"])
    site.post({"type": "x"}, key=key["key"])
    path = f"{KEYS}/{key['keyId']}/usage"

    eventually(lambda: mine.data("GET", path)["usageCount"] == 3)

    used = mine.data("GET", path)
    assert used["days"] == [
        {"day": datetime.now(UTC).date().isoformat(), "requests": 3, "events": 3, "rejected": 2}
    ]
    last = datetime.fromisoformat(used["lastUsedAt"])
    assert timedelta(0) <= datetime.now(UTC) - last < timedelta(minutes=1)
    assert_refused(mine("GET", path + "?days=0"), 400, "INVALID_QUERY", "days")


# Who may


@pytest.mark.parametrize("scope", ["ingest", "read"])
def test_only_an_admin_key_administers(site, scope):
    """A key in a web page or in a report can make no other."""
    for route in ADMIN_ROUTES:
        answer = ask_for(site, site.keys[scope], *route, 1, 1)
        assert_refused(answer, 403, "INSUFFICIENT_SCOPE", "`admin`")


def test_without_a_key_nothing_is_told(site):
    """No key, and one that nobody has, are refused alike."""
    for route in ADMIN_ROUTES:
        assert_refused(ask_for(site, None, *route, 1, 1), 401, "AUTH_FAILED")
    assert_refused(ask_for(site, generate_key(), "GET", KEYS, 1, 1), 401, "AUTH_FAILED")


ADMIN_ROUTES = [
    (method, route.path)
    for route in routes()
    if route.path.startswith("/api/v1/admin/")
    for method in sorted((route.methods or set()) - {"HEAD"})
]
# These change by themselves.
STATISTICS = {"lastUsedAt", "usageCount"}


def state_of(admin):
    """Return all that an administrator sees of its project."""
    keys = admin.data("GET", KEYS)["keys"]
    shown = [{name: key[name] for name in key.keys() - STATISTICS} for key in keys]
    return shown, admin.data("GET", f"{PROJECTS}/{admin.project_id}")


WITH_AN_ID = [
    route for route in ADMIN_ROUTES if "{project_id}" in route[1] or "{key_id}" in route[1]
]


def ask_for(site, key, method, path, project_id, key_id):
    """Ask *path* for these, with a document that it would take."""
    filled = path.replace("{project_id}", str(project_id)).replace("{key_id}", str(key_id))
    documents = {
        ("POST", PROJECTS): {"name": uuid4().hex},
        ("POST", KEYS): {"scopes": ["ingest"]},
        ("PATCH", PROJECTS + "/{project_id}"): {"name": f"taken over {uuid4().hex}"},
        ("PATCH", KEYS + "/{key_id}"): {"name": "taken over"},
    }
    headers = {} if key is None else {"x-api-key": key}
    document = documents.get((method, path))
    content = None if document is None else json.dumps(document)
    return site.ask(method, filled, headers=headers, content=content)


@pytest.mark.parametrize(("method", "path"), WITH_AN_ID, ids=[" ".join(r) for r in WITH_AN_ID])
def test_what_belongs_to_another_project_is_as_if_it_were_not_there(
    site, mine, other, method, path
):
    """Every address with an id answers a foreign one word for word as an absent one: 404."""
    theirs = other.new_key(name="theirs")
    before = state_of(other)

    foreign = ask_for(site, mine.key, method, path, other.project_id, theirs["keyId"])
    absent = ask_for(site, mine.key, method, path, 10**12, 10**12)

    assert_refused(foreign, 404, "NOT_FOUND")
    for answer in (foreign, absent):
        del answer.headers["x-request-id"], answer.headers["date"], answer.headers["content-length"]
    told = [
        answer.json()["error"]["message"].replace(str(asked), "ID")
        for answer, asked in ((foreign, theirs["keyId"]), (absent, 10**12))
    ]
    assert told[0] == told[1]
    assert (foreign.status_code, foreign.headers) == (absent.status_code, absent.headers)
    assert state_of(other) == before


@pytest.mark.parametrize("text", ["0", "-1", "x", "1" * 30, "%00", "1e3", "%D9%A1"])
@pytest.mark.parametrize(("method", "path"), WITH_AN_ID, ids=[" ".join(r) for r in WITH_AN_ID])
def test_what_is_no_id_is_not_there(site, mine, owner, method, path, text):
    """Anything may stand in an address; the answer is 404 and never a fault."""
    for admin in (mine, owner):
        assert_refused(ask_for(site, admin.key, method, path, text, text), 404, "NOT_FOUND")


def test_there_are_addresses_to_try(site):
    """The tests above go through something."""
    assert len(WITH_AN_ID) >= 7


def test_while_postgres_is_away_the_answer_says_when_to_come_again(site, mine):
    """503 with Retry-After, in the envelope, and no traceback."""
    mine.data("GET", KEYS)
    site.let_postgres_in(False)
    try:
        answer = mine("GET", KEYS)
    finally:
        site.let_postgres_in(True)

    assert_refused(answer, 503, "STORE_UNAVAILABLE")
    assert answer.json()["error"]["retryAfter"] == int(answer.headers["retry-after"]) >= 1
