"""API keys: what one looks like, what is kept of it, and how long a revoked one lives on."""

from __future__ import annotations

import ast
import asyncio
import hashlib
import hmac
import re
import secrets
import time
import zlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from statistics import mean, variance

import pytest

import analytics_collector
from analytics_collector.errors import StoreUnavailable
from analytics_collector.keys import (
    CACHE_S,
    Keys,
    digest,
    generate_key,
    is_well_formed,
    pepper_id,
)
from analytics_collector.model import ApiKey

SOURCE = Path(analytics_collector.__file__).parent
SECRET = "a secret of the server"
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class Store:
    """A key store in memory that counts how often it is asked."""

    def __init__(self, *keys: str, expires_at: datetime | None = None) -> None:
        self.keys = {
            digest(SECRET, key.encode()): ApiKey(
                n, 1, frozenset({"ingest"}), expires_at, pepper=pepper_id(SECRET)
            )
            for n, key in enumerate(keys)
        }
        self.asked: list[bytes] = []
        self.fault: Exception | None = None

    async def find_key(self, digests: Sequence[bytes]) -> ApiKey | None:
        self.asked += digests
        if self.fault is not None:
            raise self.fault
        return next((self.keys[digest] for digest in digests if digest in self.keys), None)

    async def keep_digest(self, key_id: int, digest: bytes, pepper: str) -> None:
        if self.fault is not None:
            raise self.fault
        old = next(known for known, key in self.keys.items() if key.key_id == key_id)
        self.keys[digest] = replace(self.keys.pop(old), pepper=pepper)


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_key_has_the_form_that_secret_scanners_know():
    """`ak_live_`, 43 characters of chance, 6 of CRC-32; anybody can check it."""
    for _ in range(200):
        key = generate_key()

        assert re.fullmatch(r"ak_live_[0-9A-Za-z]{49}", key)
        checksum = 0
        for character in key[-6:]:
            checksum = checksum * 62 + ALPHABET.index(character)
        assert checksum == zlib.crc32(key[:-6].encode())
        assert is_well_formed(key.encode())


def test_no_two_keys_are_alike_in_any_part():
    """Chance reaches from the first character of the secret part to the last."""
    keys = [generate_key() for _ in range(300)]

    assert len(set(keys)) == len(keys)
    for place in range(9, 51):
        assert len({key[place] for key in keys}) > 40


def test_a_mistyped_key_is_refused_without_asking_the_store():
    """One wrong or two swapped characters cost no query."""
    key = generate_key()
    store = Store(key)
    keys = Keys(store, SECRET)
    wrong = [
        (key[:place] + other + key[place + 1 :]).encode()
        for place in range(len(key))
        for other in "0aZ_"
        if key[place] != other
    ]
    wrong += [
        (key[:n] + key[n + 1] + key[n] + key[n + 2 :]).encode()
        for n in range(len(key) - 1)
        if key[n] != key[n + 1]
    ]

    assert {asyncio.run(keys.find(attempt)) for attempt in wrong} == {None}
    assert store.asked == []


@pytest.mark.parametrize(
    "attempt",
    [
        lambda key: b"",
        lambda key: b" ",
        lambda key: key[:-1],
        lambda key: key[1:],
        lambda key: key + b"0",
        lambda key: b" " + key,
        lambda key: key.upper(),
        lambda key: key.lower(),
        lambda key: key.replace(b"ak_live_", b"ak_test_"),
        lambda key: key[:-1] + "é".encode("latin-1"),
        lambda key: b"ak_live_" + b"\xff" * 49,
        lambda key: b"' or '1'='1' --",
        lambda key: b"ak_live_' or digest is not null or '1'='1000000000000000",
        lambda key: b"\0" * 57,
        lambda key: b"k" * 60 * 1024,
        lambda key: generate_key().encode(),
    ],
    ids=[
        "empty",
        "blank",
        "prefix",
        "suffix",
        "longer",
        "blank-before",
        "upper",
        "lower",
        "test",
        "non-ascii",
        "bytes",
        "sql",
        "sql-of-the-length",
        "nul",
        "60-KB",
        "unknown",
    ],
)
def test_what_is_no_key_finds_nothing_and_raises_nothing(attempt):
    """Anything may stand in a header; the answer is None and never a fault."""
    key = generate_key()

    found = asyncio.run(Keys(Store(key), SECRET).find(attempt(key.encode())))

    assert found is None


def test_a_known_key_is_found():
    """The owner of a key gets its project and scopes."""
    key = generate_key()
    store = Store(key)

    found = asyncio.run(Keys(store, SECRET).find(key.encode()))

    assert found is not None
    assert found.scopes == {"ingest"}


def test_the_store_sees_a_mac_and_not_the_key():
    """Who reads the database learns no key, nor can it be guessed without the secret."""
    key = generate_key()
    store = Store(key)

    asyncio.run(Keys(store, SECRET).find(key.encode()))

    expected = hmac.new(SECRET.encode(), key.encode(), hashlib.sha256).digest()
    assert store.asked == [expected]


def test_a_key_of_another_servers_secret_is_unknown():
    """A stolen table of digests is of no use with another secret."""
    key = generate_key()

    assert asyncio.run(Keys(Store(key), "another secret").find(key.encode())) is None


def test_a_key_is_looked_up_once_in_a_while():
    """Requests with one key cost one query every few seconds, not one each; so do unknown ones."""
    known, unknown = generate_key(), generate_key()
    store, clock = Store(known), Clock()
    keys = Keys(store, SECRET, clock)

    async def scenario() -> None:
        for _ in range(10):
            await keys.find(known.encode())
            await keys.find(unknown.encode())

    asyncio.run(scenario())

    assert len(store.asked) == 2


def test_a_revoked_key_is_refused_within_five_seconds():
    """However busy the key is, its memory ends after `CACHE_S`."""
    key = generate_key()
    store, clock = Store(key), Clock()
    keys = Keys(store, SECRET, clock)

    async def scenario() -> list[bool]:
        answers = [await keys.find(key.encode()) is not None]
        store.keys.clear()
        for _ in range(5):
            clock.now += CACHE_S / 4
            answers.append(await keys.find(key.encode()) is not None)
        return answers

    assert CACHE_S < 5
    assert asyncio.run(scenario()) == [True, True, True, True, False, False]


def test_a_new_key_works_within_five_seconds_of_a_failed_try():
    """That a key was unknown is not remembered for longer than that one was known."""
    key = generate_key()
    store, clock = Store(), Clock()
    keys = Keys(store, SECRET, clock)

    async def scenario() -> ApiKey | None:
        assert await keys.find(key.encode()) is None
        store.keys = Store(key).keys
        clock.now += CACHE_S
        return await keys.find(key.encode())

    assert asyncio.run(scenario()) is not None


def test_a_key_that_expires_is_refused_at_that_moment():
    """The date on a key holds to the second, remembered or not."""
    key = generate_key()
    past = datetime.now(UTC) - timedelta(milliseconds=1)
    future = datetime.now(UTC) + timedelta(hours=1)

    assert asyncio.run(Keys(Store(key, expires_at=past), SECRET).find(key.encode())) is None
    assert asyncio.run(Keys(Store(key, expires_at=future), SECRET).find(key.encode())) is not None


def test_a_store_that_does_not_answer_is_not_an_unknown_key():
    """While Postgres is away a good key is told 503, not 401, and works right after."""
    key = generate_key()
    store = Store(key)
    keys = Keys(store, SECRET)

    async def scenario() -> ApiKey | None:
        store.fault = StoreUnavailable("away")
        with pytest.raises(StoreUnavailable):
            await keys.find(key.encode())
        store.fault = None
        return await keys.find(key.encode())

    assert asyncio.run(scenario()) is not None


def test_a_flood_of_unknown_keys_fills_no_memory():
    """Whoever invents keys by the ten thousand costs a bounded memory."""
    keys = Keys(Store(), SECRET)
    largest = 0

    async def flood() -> None:
        nonlocal largest
        for _ in range(12_000):
            await keys.find(generate_key().encode())
            largest = max(largest, len(keys._cache))  # nothing public tells its size

    asyncio.run(flood())

    assert 1_000 < largest <= 10_000


OLD_SECRET = "the secret of last year"


def moved(store: Store) -> str | None:
    """Return under which pepper the only key of *store* is kept."""
    (key,) = store.keys.values()
    return key.pepper


async def settle() -> None:
    """Let what was begun in the background come to its end."""
    for _ in range(3):
        await asyncio.sleep(0)


class OldStore(Store):
    """A store in which everything is under the secret of last year."""

    def __init__(self, *keys: str) -> None:
        super().__init__()
        self.keys = {
            digest(OLD_SECRET, key.encode()): ApiKey(
                n, 1, frozenset({"ingest"}), None, pepper=pepper_id(OLD_SECRET)
            )
            for n, key in enumerate(keys)
        }


def test_a_key_under_an_older_secret_is_found_and_moved_to_the_current_one():
    """A secret is changed without one request refused, and the old one goes out of use."""
    key = generate_key()
    store = OldStore(key)

    async def use(*previous: str) -> ApiKey | None:
        found = await Keys(store, SECRET, previous=previous).find(key.encode())
        await settle()
        return found

    assert asyncio.run(use()) is None
    assert asyncio.run(use("an even older one", OLD_SECRET)) is not None
    assert moved(store) == pepper_id(SECRET)
    assert list(store.keys) == [digest(SECRET, key.encode())]
    assert asyncio.run(use()) is not None


def test_a_key_that_was_not_used_while_its_secret_was_accepted_is_refused_after():
    """What was left under a secret that is no more opens nothing."""
    used, unused = generate_key(), generate_key()
    store = OldStore(used, unused)

    async def rotate() -> list[ApiKey | None]:
        await Keys(store, SECRET, previous=[OLD_SECRET]).find(used.encode())
        await settle()
        after = Keys(store, SECRET)
        return [await after.find(used.encode()), await after.find(unused.encode())]

    found, refused = asyncio.run(rotate())
    assert found is not None
    assert refused is None


def test_two_servers_with_the_secrets_the_other_way_round_refuse_nobody():
    """While a new secret is rolled out some servers have it first and some have it second."""
    key = generate_key()
    store, clock = OldStore(key), Clock()

    async def roll_out() -> list[ApiKey | None]:
        before = Keys(store, OLD_SECRET, clock, previous=[SECRET])
        after = Keys(store, SECRET, clock, previous=[OLD_SECRET])
        answers = []
        for _ in range(4):
            for keys in (before, after):
                answers.append(await keys.find(key.encode()))
                await settle()
            clock.now += CACHE_S
        return answers

    assert None not in asyncio.run(roll_out())


def test_a_key_that_could_not_be_moved_works_and_is_moved_later():
    """Moving is for later: that it fails is no reason to refuse a request."""
    key = generate_key()
    store, clock = OldStore(key), Clock()
    keys = Keys(store, SECRET, clock, previous=[OLD_SECRET])

    async def use() -> None:
        found = await keys.find(key.encode())
        store.fault = StoreUnavailable("read only")
        await settle()
        assert found is not None
        assert moved(store) == pepper_id(OLD_SECRET)
        store.fault = None
        clock.now += CACHE_S
        assert await keys.find(key.encode()) is not None
        await settle()

    asyncio.run(use())

    assert moved(store) == pepper_id(SECRET)


def test_the_id_of_a_secret_does_not_lead_back_to_it():
    """It may be listed and logged: it is a MAC, the same everywhere, and unlike any digest."""
    key = generate_key()

    assert re.fullmatch("[0-9a-f]{8}", pepper_id(SECRET))
    assert pepper_id(SECRET) != pepper_id(OLD_SECRET)
    assert pepper_id(SECRET) not in hashlib.sha256(SECRET.encode()).hexdigest()
    assert not digest(SECRET, key.encode()).hex().startswith(pepper_id(SECRET))


def test_guesses_that_come_near_look_like_any_other():
    """What is looked up is a MAC: one that shares all but the end of a key shares nothing of it."""
    key = generate_key().encode()
    right = digest(SECRET, key)

    for shared in range(len(key)):
        near = digest(SECRET, key[:shared] + bytes([key[shared] ^ 1]) + key[shared + 1 :])
        assert near[:4] != right[:4]


def test_the_check_sum_is_compared_in_constant_time(monkeypatch):
    """The one comparison of what was sent with what is expected does not stop early."""
    compared = []

    def compare(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return a == b

    monkeypatch.setattr(hmac, "compare_digest", compare)
    key = generate_key().encode()

    assert is_well_formed(key)
    assert compared == [(key[-6:], key[-6:])]


KEY_MATERIAL = {"key", "value", "digest", "key_digest", "secret", "checksum", "body", "_secret"}


@pytest.mark.parametrize(
    "module",
    [
        "keys.py",
        "http/auth.py",
        "adapters/postgres/administration.py",
        "adapters/postgres/key_store.py",
        "http/admin.py",
        "cli/keys.py",
    ],
)
def test_secrets_are_never_compared_with_an_operator(module):
    """`==` and `in` stop at the first difference, and the time tells where that was."""
    tree = ast.parse((SOURCE / module).read_text(encoding="utf-8"))
    compared = [
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare)
        and any(isinstance(op, ast.Eq | ast.NotEq | ast.In | ast.NotIn) for op in node.ops)
        for operand in (node.left, *node.comparators)
        if (name := getattr(operand, "id", getattr(operand, "attr", None))) in KEY_MATERIAL
    ]

    assert compared == []


# Words for what must not be compared, and where one of them means something else.
SECRET_WORDS = {
    *("key", "api_key", "digest", "digests", "key_digest", "secret", "_secret"),
    *("secret_previous", "checksum", "pepper", "_pepper"),
}
HARMLESS = {
    ("adapters/migrate.py", "checksum"),  # of a file that everybody has
    ("adapters/postgres/schemas.py", "digest"),  # of a schema
    ("cli/schemas.py", "digest"),
    ("doctor/host.py", "secret"),  # the operator's own, on their own machine
    ("doctor/host.py", "secret_previous"),
    ("keys.py", "pepper"),  # the public name of a secret
    ("keys.py", "_pepper"),
    ("logs.py", "key"),  # the name of a member
    ("remembered_keys.py", "digest"),  # a MAC: to know it leads nowhere
    ("schemas/explain.py", "key"),
}


def test_no_module_compares_what_is_secret_with_an_operator():
    """All of the sources, with a short list of what only has the name of a secret (SEC-06)."""
    found = {
        (str(path.relative_to(SOURCE)), name)
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Compare)
        and any(isinstance(op, ast.Eq | ast.NotEq | ast.In | ast.NotIn) for op in node.ops)
        for operand in (node.left, *node.comparators)
        if (name := _name_of(operand)) in SECRET_WORDS
    }

    assert found == HARMLESS


def _name_of(operand: ast.expr) -> str | None:
    """Return the name of a value, also of a part of it or of what a method makes of it."""
    while isinstance(operand, ast.Subscript | ast.Call):
        if isinstance(operand, ast.Subscript):
            operand = operand.value
        elif isinstance(operand.func, ast.Attribute):
            operand = operand.func.value
        else:
            return None
    return getattr(operand, "id", getattr(operand, "attr", None))


def test_a_key_is_drawn_from_the_generator_for_secrets(monkeypatch):
    """Its chance is 32 bytes of `secrets`, all of them and nothing else (SEC-06)."""
    asked = []

    def token_bytes(count: int) -> bytes:
        asked.append(count)
        return (61).to_bytes(count)

    monkeypatch.setattr(secrets, "token_bytes", token_bytes)
    key = generate_key()

    assert asked == [32]
    assert key[:-6] == "ak_live_" + "0" * 42 + "z"


def guess(right: str, shared: int) -> bytes:
    """Return a new well-formed key of which the first *shared* characters are those of *right*."""
    body = right[:shared] + generate_key()[shared:-6]
    number, check = zlib.crc32(body.encode()), ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        check = ALPHABET[digit] + check
    return f"{body}{check}".encode()


def welch_t(some: list[int], others: list[int]) -> float:
    """Return Welch's t of two samples without what is above the 90th percentile of both.

    What lies there was interrupted; the same bound for both keeps them comparable.
    """
    limit = sorted(some + others)[(len(some) + len(others)) * 9 // 10]
    some, others = ([value for value in each if value <= limit] for each in (some, others))
    error = (variance(some) / len(some) + variance(others) / len(others)) ** 0.5
    return (mean(some) - mean(others)) / error


def t_of_lookups() -> float:
    """Return t of the processor time for keys that begin right and for those that do not."""
    right = generate_key()
    keys = Keys(Store(right), SECRET)
    times: dict[int, list[int]] = {40: [], 8: []}
    # By chance now the one first and now the other, so that neither finds a better memory.
    order = [shared for shared in times for _ in range(2_000)]
    Random(7).shuffle(order)
    tries = [(shared, guess(right, shared)) for shared in order]

    async def measure() -> None:
        assert await keys.peek(right.encode()) is not None
        for shared, key in tries:
            started = time.process_time_ns()
            await keys.peek(key)
            times[shared].append(time.process_time_ns() - started)

    asyncio.run(measure())
    return welch_t(times[40], times[8])


def test_the_time_of_a_look_up_does_not_tell_how_much_of_a_key_is_right():
    """Of 4,000 guesses, those that share 40 characters with a key take no longer (SEC-07)."""
    seen: list[float] = []
    while not seen or (abs(seen[-1]) >= 4 and len(seen) < 3):
        seen.append(t_of_lookups())
    print(f"t {seen}")

    assert abs(seen[-1]) < 4, seen


def test_no_module_uses_the_predictable_random_numbers():
    """Keys and ids come from the operating system's generator, never from `random`."""
    users = [
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Import) and any(alias.name == "random" for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and node.module == "random")
    ]

    assert users == []
