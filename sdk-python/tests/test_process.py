"""Fork, signals, and the end of a process; each in a process of its own."""

import time

import pytest

# Every lock that can be reached from the client, as a hostile moment would find them.
LOCKS = """
KINDS = (type(threading.Lock()), type(threading.RLock()))

def locks_of(thing, seen):
    if id(thing) in seen or isinstance(thing, (type, threading.Thread)):
        return
    seen[id(thing)] = thing
    if isinstance(thing, KINDS):
        yield thing
        return
    inner = list(getattr(thing, "__dict__", {}).values())
    inner += [getattr(thing, name, None) for name in getattr(type(thing), "__slots__", ())]
    if isinstance(thing, (list, tuple, dict)):
        inner += list(thing.values() if isinstance(thing, dict) else thing)
    for each in inner:
        if isinstance(each, (*KINDS, list, tuple, dict)) or hasattr(each, "__dict__"):
            yield from locks_of(each, seen)

def wait_for(child, seconds=30):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        threading.Event().wait(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "DEADLOCK"
"""


@pytest.fixture
def run_with_locks(run_program):
    """Run a program that knows the locks of a client."""

    def run(source, **settings):
        import textwrap

        return run_program(LOCKS + textwrap.dedent(source), **settings)

    return run


def test_parent_and_child_deliver_their_own_events_once(run_with_locks, collector):
    """What waited at the fork belongs to the parent."""
    program = run_with_locks("""
        client = analytics.Client(flush_interval_s=3600)
        for number in range(5):
            client.track(f"before-{number}")
        child = os.fork()
        if child == 0:
            print("child", client.stats().taken, client.stats().queued)
            client.track("child")
            flushed = client.flush()
            print("child", flushed, client.stats().taken, client.stats().delivered, flush=True)
            os._exit(0)
        print(wait_for(child))
        client.track("parent")
        print("parent", client.flush(), client.stats().taken, client.stats().delivered)
    """)

    assert program.stdout.split("\n")[:4] == [
        "child 0 0",
        "child True 1 1",
        "0",
        "parent True 6 6",
    ], program.stderr
    assert sorted(collector.names) == [
        *(f"before-{number}" for number in range(5)),
        "child",
        "parent",
    ]
    assert program.stderr == "" or "DeprecationWarning" in program.stderr


@pytest.mark.parametrize("pause_s", [0, 0.02, 0.05, 0.1])
def test_a_fork_waits_for_an_import(run_with_locks, collector, pause_s):
    """A child can't finish what a thread of its parent had half imported."""
    program = run_with_locks(f"""
        client = analytics.Client(flush_interval_s=0.01)
        client.track("parent")
        threading.Event().wait({pause_s})
        child = os.fork()
        if child == 0:
            client.track("child")
            os._exit(0 if client.flush() else 3)
        print(wait_for(child))
    """)

    assert program.stdout.split() == ["0"], program.stderr
    assert sorted(collector.names) == ["child", "parent"]


def test_a_fork_while_others_hold_every_lock(run_with_locks, collector):
    """The child replaces the locks, it does not take them."""
    program = run_with_locks("""
        client = analytics.Client()
        client.track("parent")
        client.flush()
        held, free = [], threading.Event()

        def hold(lock):
            # The bell is let go to ring, so it is held as long as nobody rings.
            held.append(lock.acquire(timeout=1) or isinstance(lock, KINDS[0]))
            free.wait()

        locks = list(locks_of(client, {}))
        for lock in locks:
            threading.Thread(target=hold, args=(lock,), daemon=True).start()
        while len(held) < len(locks):
            threading.Event().wait(0.01)
        child = os.fork()
        if child == 0:
            ok = client.track("child") and client.flush() and client.stats().delivered == 1
            os._exit(0 if ok else 3)
        print(all(held), len(locks) > 0, wait_for(child, 4))
        os._exit(0)
    """)

    assert program.stdout.split() == ["True", "True", "0"], program.stderr
    assert collector.names == ["parent", "child"]


def test_a_child_of_a_fork_that_python_did_not_see(run_program, collector):
    """Such as uWSGI, which forks in C; the process id tells."""
    program = run_program("""
        import ctypes
        client = analytics.Client()
        client.track("parent")
        client.flush()
        # Until the thread is idle: such a fork copies whatever locks CPython itself holds.
        threading.Event().wait(0.3)
        child = ctypes.PyDLL(None).fork()
        if child == 0:
            ok = client.track("child") and client.flush() and client.stats().taken == 1
            os._exit(0 if ok else 3)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """)

    assert program.stdout.split() == ["0"], program.stderr
    assert collector.names == ["parent", "child"]


@pytest.mark.parametrize("fork", ["os.fork", "ctypes.PyDLL(None).fork"])
def test_parent_and_child_never_give_the_same_message_id(run_program, collector, fork):
    """Random bytes that were asked for in advance are not used twice."""
    program = run_program(f"""
        import ctypes
        client = analytics.Client()
        client.track("before")
        client.flush()
        # Until the thread is idle: a fork in C copies whatever locks CPython itself holds.
        threading.Event().wait(0.3)
        child = {fork}()
        for _ in range(40):
            client.track("after")
        flushed = client.flush()
        if child == 0:
            os._exit(0 if flushed else 3)
        print(flushed, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """)

    assert program.stdout.split() == ["True", "0"], program.stderr
    tails = [event["messageId"][15:] for event in collector.stored]
    assert len(tails) == len(set(tails)) == 81


def test_a_forked_process_of_multiprocessing_delivers_at_its_end(run_program, collector):
    """It ends without atexit, so that is not what we rely on."""
    program = run_program("""
        import multiprocessing
        analytics.init()
        analytics.track("parent")

        def work(who):
            for number in range(25):
                analytics.track(f"{who}-{number}")

        context = multiprocessing.get_context("fork")
        processes = [context.Process(target=work, args=(who,)) for who in range(3)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    """)

    assert program.returncode == 0, program.stderr
    assert len(collector.names) == len(set(collector.names)) == 76


def test_a_client_made_before_the_fork_and_used_after_it(run_program, collector):
    """As gunicorn with preload: no thread in the parent, four workers."""
    program = run_program(
        """
        client = analytics.Client()
        children = []
        for who in range(4):
            child = os.fork()
            if child == 0:
                for number in range(100):
                    client.track(f"{who}-{number}")
                sys.exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)
    """,
        ANALYTICS_SHUTDOWN_TIMEOUT_S="20",
    )

    assert program.returncode == 0, program.stderr
    assert len(collector.names) == len(set(collector.names)) == 400


def test_a_signal_handler_may_track_in_the_middle_of_a_track(run_with_locks, collector):
    """Whatever lock the interrupted code holds."""
    program = run_with_locks("""
        signal.alarm(60)
        client = analytics.Client()
        client.track("first")
        client.flush()
        answers = []
        signal.signal(signal.SIGUSR1, lambda *_: answers.append(client.track("from the handler")))
        held = [lock.acquire(blocking=False) for lock in locks_of(client, {})]
        signal.raise_signal(signal.SIGUSR1)
        print(answers, any(held), flush=True)
        os._exit(0)
    """)

    assert program.stdout.split() == ["[True]", "True"], program.stderr


def test_a_storm_of_signals_loses_no_event(run_program, collector):
    """A handler that tracks, a thousand times a second, and the counts are right."""
    program = run_program("""
        client = analytics.Client(max_queue_size=1_000_000)
        handled = []
        signal.signal(signal.SIGALRM, lambda *_: handled.append(client.track("handler")))
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        tracked = [client.track("main") for _ in range(5_000)]
        signal.setitimer(signal.ITIMER_REAL, 0)
        flushed = client.flush(20)
        stats = client.stats()
        expected = len(tracked) + len(handled)
        print(flushed, all(tracked), all(handled), stats.taken == stats.delivered == expected)
    """)

    assert program.stdout.split() == ["True"] * 4, program.stderr
    assert len(collector.names) >= 5_000


@pytest.mark.parametrize(
    "ending", ["", "sys.exit(3)", "raise ValueError", "signal.raise_signal(signal.SIGINT)"]
)
def test_an_orderly_end_delivers_everything(run_program, collector, ending):
    """Without a flush, however short the program was."""
    program = run_program(f"""
        analytics.init()
        for number in range(25):
            analytics.track(f"{{number}}")
        {ending}
    """)

    assert collector.names == [f"{number}" for number in range(25)], program.stderr
    assert "analytics_sdk" not in program.stderr


@pytest.mark.parametrize("fault", ["hang", "status", "drip_header", "refuse", "no_such_host"])
def test_an_end_is_not_kept_for_long(run_program, collector, reply, closed_port, fault):
    """By nothing that a collector or a network can do."""
    address = {
        "refuse": f"http://127.0.0.1:{closed_port}",
        "no_such_host": "http://collector.invalid",
    }
    always = {"status": reply.status(503), "hang": reply.hang, "drip_header": reply.drip_header}
    collector.always(always.get(fault))
    program = run_program(
        """
        client = analytics.Client(shutdown_timeout_s=0.5)
        client.track("one")
        client.flush(0.3)
        print(time.monotonic())
        """,
        ANALYTICS_API_URL=address.get(fault, collector.url),
    )
    ended_at = time.monotonic()

    began_at = float(program.stdout)
    assert program.returncode == 0, program.stderr
    # 0.5 s and 0.5 s more are promised; the rest is for a busy machine: a request alone has 10 s.
    assert ended_at - began_at < 8
    assert "Traceback" not in program.stderr


def test_an_end_in_the_middle_of_a_name_lookup(run_program):
    """No timeout stops a lookup, so the thread that does it is left behind."""
    program = run_program("""
        import socket
        entered = threading.Event()

        def black_hole(*arguments, **settings):
            entered.set()
            threading.Event().wait(60)

        socket.getaddrinfo = black_hole
        client = analytics.Client(shutdown_timeout_s=0.3)
        client.track("one")
        flushed = client.flush(0.1)
        entered.wait(20)
        began = time.monotonic()
        client.shutdown()
        print(flushed, client.stats().spooled, time.monotonic() - began < 20)
    """)

    assert program.stdout.strip() == "False 1 True", program.stderr


def test_tracking_at_the_very_end_is_harmless(run_program, collector):
    """From atexit, from __del__, after our own end: an answer, never a traceback."""
    program = run_program("""
        import atexit

        class Last:
            def __del__(self):
                client.track("from __del__")

        def track_late():
            print(client.track("late") in (True, False))

        atexit.register(track_late)
        client = analytics.Client()
        last = Last()
        other = analytics.Client()
        atexit.register(lambda: print(other.track("first use at exit") in (True, False)))
        client.track("one")
        atexit.register(lambda: print(client.track("before our end")))
    """)

    assert program.returncode == 0
    assert program.stdout.split() == ["True"] * 3, program.stderr
    assert "Traceback" not in program.stderr
    assert collector.names[:1] == ["one"]
    assert "before our end" in collector.names


def test_a_daemon_thread_may_track_until_the_end(run_program, collector):
    """The interpreter ends under it, without a crash."""
    program = run_program("""
        client = analytics.Client()

        def chatter():
            while True:
                client.track("chatter")

        threading.Thread(target=chatter, daemon=True).start()
        client.track("one")
        client.flush(5)
    """)

    assert program.returncode == 0, program.stderr
    assert "Traceback" not in program.stderr
