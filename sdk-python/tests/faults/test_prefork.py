"""Servers that fork: every worker delivers its own events, once, and none hangs."""

import importlib.util
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import pytest

from analytics_sdk.process import Unforkable, uwsgi_advice

WORKERS = 4
EVENTS_A_REQUEST = 25
APPLICATION = f"""
    import os
    import threading
    import analytics_sdk as analytics

    client = analytics.Client()
    if "TRACK_EARLY" in os.environ:
        client.track("early")

    def application(environ, start_response):
        for number in range({EVENTS_A_REQUEST}):
            client.track(f"{{environ['PATH_INFO']}}-{{number}}")
        # Time enough for another worker to take the next request.
        threading.Event().wait(0.02)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [str(os.getpid()).encode()]
"""
GUNICORN = [
    *(sys.executable, "-m", "gunicorn", "--bind", "127.0.0.1:0", "--workers", str(WORKERS)),
    *("--worker-tmp-dir", "/dev/shm", "--no-control-socket", "application:application"),
]
UWSGI = [
    *(sys.executable, "-c", "import pyuwsgi, sys; pyuwsgi.run(sys.argv[1:])"),
    *("--http-socket", "127.0.0.1:0", "--module", "application", "--master", "--need-app"),
    *("--processes", "2", "--die-on-term"),
]


@pytest.fixture
def ask_all_workers(fetch, eventually):
    """Send requests, several at a time, until each worker has answered; return their names."""

    def ask(server, workers):
        url = server.url(eventually)
        asked, answered = [], set()

        def one(number):
            answered.add(fetch(f"{url}/{number}"))
            asked.append(f"/{number}")

        with ThreadPoolExecutor(2 * workers) as pool:
            for start in range(0, 400, 2 * workers):
                list(pool.map(one, range(start, start + 2 * workers)))
                if len(answered) == workers:
                    break
        assert len(answered) == workers, server.log
        return [f"{path}-{number}" for path in asked for number in range(EVENTS_A_REQUEST)]

    return ask


@pytest.fixture
def stop_at_rest(eventually):
    """Stop uWSGI when it has done with all requests: a worker that is busy ends without atexit."""

    def stop(server, names):
        requests = len(names) // EVENTS_A_REQUEST
        eventually(lambda: server.log.count("=> generated") == requests)
        server.stop()

    return stop


def needs(module):
    return pytest.mark.skipif(
        importlib.util.find_spec(module) is None, reason=f"{module} is not installed"
    )


@needs("gunicorn")
@pytest.mark.parametrize(
    ("options", "is_early"),
    [([], False), (["--preload"], False), (["--preload", "--threads", "4"], True)],
    ids=["", "preload", "preload, threads, and an event before the fork"],
)
def test_gunicorn(serve, ask_all_workers, collector, options, is_early):
    """With an application that is loaded in each worker, or once, before the fork."""
    early = {"TRACK_EARLY": "1"} if is_early else {}
    server = serve(*GUNICORN, *options, application=APPLICATION, **early)
    names = ask_all_workers(server, WORKERS)
    code = server.stop()

    delivered = [name for name in collector.names if name != "early"]
    assert sorted(delivered) == sorted(names), server.log
    assert collector.names.count("early") == is_early
    assert code == 0
    assert "Traceback" not in server.log


@needs("gunicorn")
def test_each_process_of_gunicorn_has_one_segment_of_its_own(
    serve, ask_all_workers, make_client, collector, closed_port, spool_dir
):
    """Also the one that forked them, which tracked before; the next client delivers them all."""
    server = serve(
        *GUNICORN,
        "--preload",
        application=APPLICATION,
        TRACK_EARLY="1",
        ANALYTICS_DURABLE="1",
        ANALYTICS_API_URL=f"http://127.0.0.1:{closed_port}",
        ANALYTICS_SHUTDOWN_TIMEOUT_S="0",
    )
    names = ask_all_workers(server, WORKERS)
    server.stop()
    pids = re.findall(r"(?:Listening at: .* \(|worker with pid: )(\d+)", server.log)
    owners = [path.name.split("-")[1] for path in spool_dir.glob("*/*.seg")]

    assert len(pids) == 1 + WORKERS
    assert sorted(owners) == sorted(pids)
    client = make_client()
    assert client.recover(20)
    assert sorted(collector.names) == sorted(["early", *names])
    assert client.stats().dropped == {}


@needs("pyuwsgi")
@pytest.mark.parametrize("option", ["--lazy-apps", "--py-call-uwsgi-fork-hooks"])
def test_uwsgi_with_the_options_that_we_ask_for(
    serve, ask_all_workers, stop_at_rest, collector, option
):
    """Also if an event was tracked before the fork; and then there is nothing to warn of."""
    server = serve(*UWSGI, option, application=APPLICATION, TRACK_EARLY="1")
    names = ask_all_workers(server, 2)
    stop_at_rest(server, names)

    delivered = [name for name in collector.names if name != "early"]
    assert sorted(delivered) == sorted(names), server.log
    assert "uWSGI needs" not in server.log


@needs("pyuwsgi")
def test_uwsgi_without_them_is_warned_of(serve, ask_all_workers, stop_at_rest, collector):
    """As long as nothing was tracked before the fork it works all the same."""
    server = serve(*UWSGI, application=APPLICATION)
    names = ask_all_workers(server, 2)
    stop_at_rest(server, names)

    assert sorted(collector.names) == sorted(names), server.log
    assert "uWSGI needs lazy-apps or py-call-uwsgi-fork-hooks" in server.log


UWSGI_OPTIONS = {
    "old, with threads, one process": ((2, 0, 26), {"threads": b"2"}, []),
    "old, one process": ((2, 0, 26), {}, ["enable-threads"]),
    "old, switched off": ((2, 0, 26), {"enable-threads": b"false"}, ["enable-threads"]),
    "new, one process": ((2, 0, 27), {}, []),
    "new, forking": ((2, 0, 27), {"processes": b"4"}, ["lazy-apps"]),
    "new, forking with hooks": ((2, 0, 27), {"master": True, "py-call-uwsgi-fork-hooks": True}, []),
    "old, forking": ((2, 0, 20), {"workers": b"4"}, ["enable-threads", "lazy-apps"]),
}


@pytest.mark.parametrize("case", UWSGI_OPTIONS)
def test_advice_is_for_the_uwsgi_at_hand(monkeypatch, case):
    """Also for older ones than are installed here; nobody is told what is right already."""
    version, options, wanted = UWSGI_OPTIONS[case]
    uwsgi = ModuleType("uwsgi")
    uwsgi.version_info, uwsgi.opt = (*version, 0, b""), options
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
    advice = uwsgi_advice() or ""

    assert [word for word in ("enable-threads", "lazy-apps") if word in advice] == wanted


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_each_way_to_start_a_process_of_multiprocessing(run_script, collector, method):
    """A pool of four, whose processes are ended by the pool: what they tracked is delivered."""
    program = run_script(
        f"""
        import multiprocessing
        import analytics_sdk as analytics

        def work(who):
            analytics.init()
            return [analytics.track(f"{{who}}-{{number}}") for number in range(25)]

        if __name__ == "__main__":
            context = multiprocessing.get_context({method!r})
            with context.Pool(4) as pool:
                assert all(map(all, pool.map(work, range(8), chunksize=1)))
                pool.close()
                pool.join()
        """
    )

    assert program.returncode == 0, program.stderr
    assert sorted(collector.names) == sorted(
        f"{who}-{number}" for who in range(8) for number in range(25)
    )


def test_a_fork_in_a_thread(run_program, collector):
    """Its child has one thread, which was not the main one, and delivers at its end."""
    program = run_program("""
        client = analytics.Client()
        client.track("parent")
        codes = []

        def fork():
            child = os.fork()
            if child == 0:
                for number in range(100):
                    client.track(f"child-{number}")
                os._exit(0 if client.shutdown(20) else 3)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

        thread = threading.Thread(target=fork)
        thread.start()
        thread.join()
        print(codes)
    """)

    assert program.stdout.strip() == "[0]", program.stderr
    assert sorted(collector.names) == sorted(
        ["parent", *(f"child-{number}" for number in range(100))]
    )


def test_forks_while_many_threads_track(run_program, collector):
    """Whatever any of them holds at that moment, no child hangs and no event is lost or doubled."""
    program = run_program("""
        client = analytics.Client(max_queue_size=1_000_000)
        stop = threading.Event()
        tracked = []

        def chatter(who):
            number = 0
            while not stop.wait(0.0005):
                number += 1
                tracked.append(client.track(f"parent-{who}-{number}"))

        threads = [threading.Thread(target=chatter, args=(who,)) for who in range(6)]
        for thread in threads:
            thread.start()
        children = []
        for who in range(12):
            child = os.fork()
            if child == 0:
                signal.alarm(30)
                taken = client.track(f"child-{who}")
                os._exit(0 if taken and client.flush(20) else 3)
            children.append(child)
            stop.wait(0.01)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        stop.set()
        for thread in threads:
            thread.join()
        print(set(codes), client.flush(20), sum(tracked) == client.stats().delivered)
    """)

    assert program.stdout.split() == ["{0}", "True", "True"], program.stderr
    assert len(collector.names) == len(set(collector.names))
    assert {name for name in collector.names if name.startswith("child")} == {
        f"child-{who}" for who in range(12)
    }


def test_forks_wait_only_once_for_work_that_never_ends():
    """Such as an import whose thread was lost in a fork of uWSGI."""
    unforkable = Unforkable()
    unforkable.longest_wait_s = 2.0
    unforkable.__enter__()
    began_at = time.monotonic()
    unforkable.before_fork()
    unforkable.after_fork_in_parent()
    waited_s = time.monotonic() - began_at
    unforkable.before_fork()
    unforkable.after_fork_in_parent()

    assert waited_s >= 2.0
    assert time.monotonic() - began_at - waited_s < 2.0
