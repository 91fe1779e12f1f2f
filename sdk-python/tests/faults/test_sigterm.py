"""SIGTERM with `handle_sigterm`: events are delivered, and the signal does what it always did."""

import os
import signal
import subprocess
import sys
import time

import pytest

TRACK = """
client = analytics.Client(handle_sigterm=True)
for number in range(25):
    client.track(f"{number}")
"""
TERMINATE = """
os.kill(os.getpid(), signal.SIGTERM)
print("still here", flush=True)
client.track("after")
"""
ALL = [f"{number}" for number in range(25)]


@pytest.fixture
def run(run_program, patiently):
    """Run a program that delivers all, however busy the machine is."""

    def run(source, **settings):
        return run_program(source, **{**patiently, **settings})

    return run


def test_events_are_delivered_and_the_exit_status_is_the_signals(run, collector):
    """As a supervisor expects it: killed by SIGTERM."""
    program = run(TRACK + TERMINATE)

    assert program.returncode == -signal.SIGTERM, program.stderr
    assert program.stdout == ""
    assert collector.names == ALL


def test_all_clients_share_the_time(run_program, black_hole):
    """Who runs programs waits for some seconds, and then kills."""
    began = time.monotonic()
    program = run_program(
        f"""
        for _ in range(6):
            client = analytics.Client(
                handle_sigterm=True, shutdown_timeout_s=3, api_url="{black_hole}"
            )
            client.track("late")
            globals().setdefault("clients", []).append(client)
        os.kill(os.getpid(), signal.SIGTERM)
        """
    )

    assert program.returncode == -signal.SIGTERM, program.stderr
    # One after the other they would take 18 s.
    assert time.monotonic() - began < 12


def test_without_the_setting_the_signal_is_not_touched(run):
    """A library that takes signals unasked breaks programs."""
    program = run("""
        client = analytics.Client()
        client.track("one")
        print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
    """)

    assert program.stdout.split() == ["True"], program.stderr


def test_a_handler_of_the_program_runs_after_us(run, collector):
    """And goes on as it likes: what it tracks is taken, and delivered at the end."""
    program = run(
        'signal.signal(signal.SIGTERM, lambda *_: print("handled", client.track("handler")))'
        + TRACK
        + TERMINATE
    )

    assert program.returncode == 0, program.stderr
    assert program.stdout.splitlines() == ["handled True", "still here"]
    assert collector.names == [*ALL, "handler", "after"]


def test_a_handler_that_ends_the_process_at_once_loses_nothing(run, collector):
    """Not even by os._exit()."""
    program = run("signal.signal(signal.SIGTERM, lambda *_: os._exit(7))" + TRACK + TERMINATE)

    assert program.returncode == 7, program.stderr
    assert collector.names == ALL


def test_a_signal_that_is_ignored_stays_so(run, collector):
    """The program goes on."""
    program = run("signal.signal(signal.SIGTERM, signal.SIG_IGN)" + TRACK + TERMINATE)

    assert program.returncode == 0, program.stderr
    assert program.stdout.splitlines() == ["still here"]
    assert collector.names == [*ALL, "after"]


def test_the_end_is_not_kept_for_long(run_program, collector, reply):
    """A collector that hangs does not keep a supervisor waiting."""
    collector.always(reply.hang)
    track = TRACK.replace("handle_sigterm", "shutdown_timeout_s=0.3, handle_sigterm")
    program = run_program(track + "client.flush(0.3)\nprint(time.monotonic())" + TERMINATE)
    ended_at = time.monotonic()

    assert program.returncode == -signal.SIGTERM, program.stderr
    # 0.3 s and 0.5 s more are promised; the rest is for a busy machine: a request alone has 10 s.
    assert ended_at - float(program.stdout) < 8


def test_the_signal_may_come_in_the_middle_of_anything(run, collector):
    """Of a track(), of a flush(), of a second SIGTERM: no deadlock, and the status is the same."""
    program = run(
        """
        client = analytics.Client(handle_sigterm=True, max_queue_size=1_000_000)
        def kill_soon():
            threading.Event().wait(0.3)
            for _ in range(3):
                os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=kill_soon, daemon=True).start()
        while True:
            client.track("one")
            client.flush(0.01)
        """,
        timeout_s=60,
    )

    assert program.returncode == -signal.SIGTERM, program.stderr
    assert "Traceback" not in program.stderr


IN_THE_MIDDLE = """
client = analytics.Client(durable=True, shutdown_timeout_s=60, handle_sigterm=HANDLED)
client.track("before")
write = os.write
def write_and_interrupt(fd, content):
    os.write = write
    written = write(fd, content)
    signal.raise_signal(signal.SIGTERM)
    return written
os.write = write_and_interrupt
answer = client.track("middle")
"""


def test_it_does_not_wait_for_the_call_that_it_interrupts(run, collector):
    """The thread that delivers needs what that call holds, so the call ends first."""
    program = run(
        IN_THE_MIDDLE.replace("HANDLED", "True") + "threading.Event().wait()", timeout_s=20
    )

    assert program.returncode == -signal.SIGTERM, program.stderr
    assert collector.names == ["before", "middle"]


def test_a_handler_of_the_programs_that_shuts_down_does_not_wait_either(run, collector):
    """It hears that not all is delivered; the exit does the rest."""
    program = run(
        "signal.signal(signal.SIGTERM, lambda *_: print(client.flush(60), client.shutdown(60)))"
        + IN_THE_MIDDLE.replace("HANDLED", "False")
        + "print(answer)",
        timeout_s=20,
    )

    assert program.stdout.split() == ["False", "False", "True"], program.stderr
    assert collector.names == ["before", "middle"]


def test_a_child_that_is_terminated_delivers_too(run, collector):
    """`Process.terminate()` sends SIGTERM, and a forked child has our handler."""
    program = run(
        """
        import multiprocessing
        context = multiprocessing.get_context("fork")
        client = analytics.Client(handle_sigterm=True)

        def work(ready):
            client.track("child")
            ready.set()
            # By steps: a signal that comes just before a wait does not cut it short.
            for _ in range(300):
                threading.Event().wait(0.1)

        ready = context.Event()
        process = context.Process(target=work, args=(ready,))
        process.start()
        ready.wait(20)
        process.terminate()
        process.join(20)
        print(process.exitcode)
        """
    )

    assert program.stdout.split() == [f"-{signal.SIGTERM.value}"], program.stderr
    assert collector.names == ["child"]


def test_outside_the_main_thread_it_is_told_that_it_can_not_be_had(run, collector):
    """Python lets no other thread set handlers; the client works without."""
    program = run("""
        def start():
            global client
            client = analytics.Client(handle_sigterm=True)
            print(client.track("one"))

        thread = threading.Thread(target=start)
        thread.start()
        thread.join()
    """)

    assert program.stdout.split() == ["True"]
    assert "handle_sigterm" in program.stderr
    assert collector.names == ["one"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
def test_the_first_process_of_a_container_goes_on(run_script, collector):
    """The kernel lets no signal without a handler end it, so it has to be able to track."""
    unshare = ("unshare", "--pid", "--fork")
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs root that may make namespaces")
    program = run_script(
        "import os, signal\nimport analytics_sdk as analytics\nprint(os.getpid())\n"
        + TRACK
        + TERMINATE,
        command=(*unshare, sys.executable, "-u"),
    )

    assert program.returncode == 0, program.stderr
    assert program.stdout.splitlines() == ["1", "still here"]
    assert collector.names == [*ALL, "after"]
