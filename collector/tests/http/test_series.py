"""RES-14: whatever strangers and clients call things, /metrics stays as long as it is."""

from __future__ import annotations

from uuid import uuid4

import httpx

from analytics_collector.http.routes import routes

MANY = 2_000
EVENTS_AT_ONCE = 500


def series(site):
    """Return the name and the labels of each number that is told."""
    text = site.ask("GET", "/metrics").text
    return {line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")}


def event(n):
    """An event in which everything that may be chosen is another one each time."""
    return {
        "type": "track",
        "name": f"name-{n}",
        "userId": f"user-{n}",
        "sessionId": f"session-{n}",
        "properties": {f"property-{n}": n},
        "context": {"source": f"source-{n}", "page": f"https://{n}.example/{n}", f"c-{n}": n},
        f"extra-{n}": n,
    }


def make_noise(site, client, start, count):
    """Send *count* of everything, each with names of its own."""
    ingest = {"x-api-key": site.keys["ingest"]}
    for first in range(start, start + count, EVENTS_AT_ONCE):
        batch = [event(n) for n in range(first, min(first + EVENTS_AT_ONCE, start + count))]
        batch += [{"type": f"type-{first}"}]
        client.post("/api/v1/events", json={"batch": batch[-EVENTS_AT_ONCE:]}, headers=ingest)
    for n in range(start, start + count, 4):
        own = {"user-agent": f"agent-{n}", "x-request-id": f"id-{n}", f"x-{n}": str(n)}
        client.get(f"/{uuid4().hex}/{n}", headers=own)
        client.put(f"/api/v1/events?{n}={n}", headers=own)
        client.post("/api/v1/events", content=b"[", headers={**own, "x-api-key": f"ak_live_{n}"})
        client.get(f"/api/v1/users/user-{n}/events?limit={n}", headers={**own, **ingest})


def test_the_numbers_do_not_grow_with_what_clients_send(site, eventually):
    """Names, keys, addresses, queries, headers and user agents are no labels."""
    with httpx.Client(base_url=f"http://127.0.0.1:{site.port}", timeout=20) as client:
        make_noise(site, client, 0, 8)  # now each kind of answer has been given
        kept = 'analytics_dead_letters_total{stage="validate"}'
        eventually(lambda: kept in series(site))
        before = series(site)
        make_noise(site, client, 8, MANY)
        after = series(site)

    assert len(before) < 500
    assert after - before == set()
    assert len(site.names()) > MANY - 10


def test_each_label_has_few_values(site):
    """As many as there are codes, outcomes and routes, not as many as there are events."""
    values: dict[str, set[str]] = {}
    for line in series(site):
        for pair in line.partition("{")[2].rstrip("}").split(","):
            name, _, value = pair.partition("=")
            values.setdefault(name, set()).add(value)

    assert max(map(len, values.values())) <= max(50, len(routes()))
