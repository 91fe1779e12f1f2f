import asyncio
import contextvars
import gc
import threading
import weakref
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from analytics_sdk import context, in_context
from analytics_sdk.context import current


def user():
    """The user of the block that is open here."""
    scope = current.get()
    return scope and scope.user_id


def test_every_event_in_a_block_says_who_and_where(make_client, collector):
    """Properties only where the wire has them."""
    client = make_client()
    with context(
        user_id="u",
        anonymous_id="a",
        session_id="s",
        properties={"plan": "pro"},
        context={"ip": "::1"},
    ):
        client.track("bought")
        client.identify(None, {"age": 7})
    client.track("outside")
    assert client.flush()

    bought, identified, outside = collector.stored
    for event in (bought, identified):
        ids = [event[name] for name in ("userId", "anonymousId", "sessionId")]
        assert ids == ["u", "a", "s"]
        assert event["context"]["ip"] == "::1"
    assert bought["properties"] == {"plan": "pro"}
    assert identified["traits"] == {"age": 7}
    assert "properties" not in identified
    assert not {"userId", "anonymousId", "sessionId", "properties"} & set(outside)
    assert "ip" not in outside["context"]


def test_what_a_call_says_itself_wins(make_client, collector):
    """One by one."""
    client = make_client()
    ids = {"user_id": "u", "anonymous_id": "a", "session_id": "s"}
    with context(**ids, properties={"a": 1, "b": 1}, context={"ip": "::1"}):
        client.track("x", {"b": 2}, user_id="v", context={"locale": "de"})
        client.track("y", anonymous_id="b", session_id="t")
    assert client.flush()

    event, other = collector.stored
    assert (event["userId"], event["anonymousId"], event["sessionId"]) == ("v", "a", "s")
    assert (other["userId"], other["anonymousId"], other["sessionId"]) == ("u", "b", "t")
    assert event["properties"] == {"a": 1, "b": 2}
    assert event["context"].items() >= {"ip": "::1", "locale": "de"}.items()


def test_an_inner_block_adds_and_overrides():
    """And what was before comes back."""
    ids = {"user_id": "u", "anonymous_id": "a", "session_id": "s"}
    with context(**ids, properties={"a": 1, "b": 1}, context={"ip": "::1"}) as outer:
        with context(properties={"b": 2}) as inner:
            assert (inner.user_id, inner.anonymous_id, inner.session_id) == ("u", "a", "s")
            assert inner.properties == {"a": 1, "b": 2}
            assert inner.context == {"ip": "::1"}
        with context(session_id="t", context={"locale": "de"}) as inner:
            assert (inner.user_id, inner.session_id) == ("u", "t")
            assert inner.context == {"ip": "::1", "locale": "de"}
        assert current.get() is outer
        assert (outer.session_id, outer.properties) == ("s", {"a": 1, "b": 1})
        assert outer.context == {"ip": "::1"}
    assert current.get() is None


def test_a_block_that_raises_ends_too():
    """The exception is not ours."""
    with pytest.raises(ZeroDivisionError), context(user_id="u"):
        1 / 0  # noqa: B018

    assert current.get() is None


def test_a_block_may_be_changed_from_inside(make_client, collector):
    """As a middleware does that learns later who the user is."""
    client = make_client()
    with context() as scope:
        scope.user_id = "u"
        scope.properties = {"plan": "pro"}
        client.track("x")
    assert client.flush()

    assert collector.stored[0]["userId"] == "u"
    assert collector.stored[0]["properties"] == {"plan": "pro"}


def test_each_asyncio_task_has_its_own_blocks():
    """Those of the task that started it go along, and no others."""

    async def work(name, everyone_is_inside):
        assert user() == "outer"
        with context(user_id=name):
            await everyone_is_inside.wait()
            return user()

    async def main():
        # Python 3.10 makes the primitives of asyncio belong to the loop that runs.
        everyone_is_inside = asyncio.Event()
        with context(user_id="outer"):
            tasks = [asyncio.create_task(work(f"{n}", everyone_is_inside)) for n in range(5)]
        await asyncio.sleep(0)
        assert user() is None
        everyone_is_inside.set()
        return await asyncio.gather(*tasks)

    assert asyncio.run(main()) == ["0", "1", "2", "3", "4"]


def test_a_thread_sees_the_block_only_by_in_context():
    """And has forgotten it before its next work."""
    with ThreadPoolExecutor(1) as pool:
        with context(user_id="u"):
            work = in_context(user)
            assert pool.submit(user).result() is None
            assert pool.submit(work).result() == "u"
        assert pool.submit(user).result() is None
        # The block of the time when it was wrapped, not of the time when it is called.
        assert pool.submit(work).result() == "u"


def test_many_threads_may_share_one_wrapped_function():
    """At the same time, each with blocks of its own in it."""
    all_inside = threading.Barrier(4, timeout=10)

    def work(name):
        before = user()
        with context(user_id=name):
            all_inside.wait()
            return before, user()

    with ThreadPoolExecutor(4) as pool, context(user_id="u"):
        results = list(pool.map(in_context(work), "abcd"))

    assert results == [("u", "a"), ("u", "b"), ("u", "c"), ("u", "d")]


def test_a_coroutine_function_in_context_runs_in_it():
    """Not only its call."""

    @in_context
    async def outside():
        await asyncio.sleep(0)
        return user()

    with context(user_id="u"):
        inside = in_context(outside.__wrapped__)

    with context(user_id="v"):
        assert asyncio.run(outside()) is None
        assert asyncio.run(inside()) == "u"
        assert user() == "v"


def test_a_decorated_function_runs_in_a_block_of_its_own():
    """It keeps its name, arguments and result."""

    @context(user_id="u", properties={"a": 1})
    def work(number, *, more):
        """Work."""
        scope = current.get()
        return number + more, scope.user_id, scope.properties

    assert work(1, more=2) == (3, "u", {"a": 1})
    assert (work.__name__, work.__doc__) == ("work", "Work.")
    assert current.get() is None


def test_calls_of_a_decorated_function_may_overlap():
    """One of them changes its block, and ends after one that began later."""

    @context(user_id="u")
    async def work(name, begun, may_end):
        assert user() == "u"
        current.get().user_id = name
        begun.set()
        await may_end.wait()
        return user()

    async def main():
        events = [asyncio.Event() for _ in range(4)]
        first = asyncio.create_task(work("a", events[0], events[1]))
        await events[0].wait()
        second = asyncio.create_task(work("b", events[2], events[3]))
        await events[2].wait()
        events[1].set()
        names = [await first]
        events[3].set()
        return [*names, await second, user()]

    assert asyncio.run(main()) == ["a", "b", None]


@pytest.mark.parametrize("decorate", [context(user_id="u"), in_context])
def test_a_generator_function_is_not_decorated(decorate):
    """It would return at once, and run when the block is over: better said than silently wrong."""

    def numbers():
        yield 1

    async def more_numbers():
        yield 1

    for function in (numbers, more_numbers):
        with pytest.raises(TypeError, match="generator"):
            decorate(function)


def test_one_object_may_be_the_block_of_two_threads():
    """Which end in the order in which they began."""
    block = context(user_id="u")
    first_inside, second_inside, first_ended = (threading.Event() for _ in range(3))

    def first():
        with block:
            first_inside.set()
            assert second_inside.wait(10)
        first_ended.set()
        return user()

    def second():
        assert first_inside.wait(10)
        with block:
            second_inside.set()
            assert first_ended.wait(10)
            inside = user()
        return inside, user()

    with ThreadPoolExecutor(2) as pool:
        results = [pool.submit(work) for work in (first, second)]

        assert [result.result() for result in results] == [None, ("u", None)]


def test_one_object_may_be_a_block_inside_itself():
    """Twice begun, twice ended."""
    block = context(properties={"a": 1})
    with block as outer:
        with block:
            pass
        assert current.get() is outer

    assert current.get() is None


def test_a_block_that_ends_after_one_that_began_later_takes_it_along():
    """A generator may be finished at any time; nobody's user stays behind."""

    def generator():
        with context(user_id="generator"):
            yield

    numbers = generator()
    next(numbers)
    with context(user_id="later"):
        numbers.close()
        assert user() is None

    assert user() is None


def test_a_block_may_end_in_another_task():
    """There it was never open, so nothing happens, and nothing raises."""
    block = context(user_id="u")
    contextvars.copy_context().run(block.__enter__)
    with context(user_id="v"):
        block.__exit__(None, None, None)
        assert user() == "v"


def test_a_coroutine_may_be_closed_in_another_task():
    """As the garbage collector does."""

    async def work():
        await asyncio.Event().wait()

    async def main():
        with context(user_id="u"):
            coroutine = in_context(work)()
        contextvars.copy_context().run(coroutine.send, None)
        with context(user_id="v"):
            coroutine.close()
            return user()

    assert asyncio.run(main()) == "v"


def test_a_block_that_is_over_is_not_held_on_to():
    """Tasks that start tasks inside blocks would make a chain of them."""

    def find_user():
        return "u"

    with context(user_id=find_user), context(user_id="v"):
        task = contextvars.copy_context()
    gone = weakref.ref(find_user)
    del find_user
    gc.collect()

    assert task[current].user_id == "v"
    assert gone() is None


def test_the_user_may_be_found_when_an_event_needs_it(make_client, collector):
    """Not before, and each time anew: a request learns late who is logged in."""
    client = make_client()
    found = iter(["u", "v"])
    with context(user_id=lambda: next(found)):
        client.track("a")
        client.track("b", user_id="w")
        client.track("c")
    assert next(found, None) is None
    assert client.flush()

    assert [event["userId"] for event in collector.stored] == ["u", "w", "v"]


@pytest.mark.parametrize("find", [lambda: 1 / 0, lambda: None], ids=["raises", "none"])
def test_a_user_who_is_not_found_is_nobody(make_client, collector, find):
    """The event goes all the same."""
    client = make_client()
    with context(user_id=find, session_id="s"):
        assert client.track("a")
    assert client.flush()

    assert "userId" not in collector.stored[0]
    assert collector.stored[0]["sessionId"] == "s"


def test_a_function_that_finds_the_user_may_track_itself(make_client, collector):
    """By way of a log handler, say; it is not asked again for that."""
    client = make_client()

    def find():
        client.track("looked up")
        with context(session_id="inner"):
            client.track("looked deeper")
        return "u"

    with context(user_id=find) as scope:
        client.track("a")
        assert current.get() is scope
    assert client.flush()

    told = [(event["name"], event.get("userId")) for event in collector.stored]
    assert told == [("looked up", None), ("looked deeper", None), ("a", "u")]


class HostileMapping(Mapping):
    def __iter__(self):
        raise RuntimeError("no")

    __len__ = __getitem__ = __iter__


@pytest.mark.parametrize("wrong", ["text", [1], 7], ids=repr)
def test_a_block_with_wrong_properties_does_not_raise(make_client, collector, wrong):
    """Its events are refused and counted, as those with wrong properties of their own are."""
    client = make_client()
    with context(properties=wrong):
        assert client.track("a") is False
        assert client.track("b", {"c": 1}) is False
    with context(context=wrong):
        assert client.track("a") is False

    assert client.stats().refused == {"invalid_properties": 2, "invalid_context": 1}


def test_a_block_with_hostile_properties_does_not_raise(make_client, swallowed_errors):
    """Nor does an event in it."""
    client = make_client()
    with context(properties=HostileMapping()):
        assert client.track("a") is False

    assert client.stats().refused == {"internal": 1}
