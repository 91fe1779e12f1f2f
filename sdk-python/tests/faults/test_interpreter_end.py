"""The last moments of an interpreter; `nox -s sdk` runs them on each Python that is installed."""

import pytest


@pytest.mark.parametrize("fault", ["none", "hang"])
def test_flushing_at_the_very_end_is_harmless(run_program, collector, reply, fault):
    """From atexit, from __del__ of a global, from a daemon thread: an answer, never a traceback."""
    if fault == "hang":
        collector.always(reply.hang)
    program = run_program("""
        import atexit

        class Last:
            def __del__(self):
                client.track("from __del__")
                client.flush(0.1)
                client.stats()
                client.shutdown(0.1)

        def flush_late():
            print(client.track("late") in (True, False), client.flush(0.1) in (True, False))

        def chatter():
            while True:
                client.track("chatter")
                client.flush(0.001)

        atexit.register(flush_late)
        client = analytics.Client(shutdown_timeout_s=0.2)
        last = Last()
        client.track("one")
        threading.Thread(target=chatter, daemon=True).start()
        client.flush(0.5)
    """)

    assert program.returncode == 0, program.stderr
    assert program.stdout.split() == ["True", "True"]
    assert "Traceback" not in program.stderr
    assert "Fatal" not in program.stderr
    assert "Exception ignored" not in program.stderr


def test_a_client_of_a_thread_that_outlives_the_main_thread(run_program, collector):
    """The interpreter waits for such a thread before atexit, so all of it arrives."""
    program = run_program("""
        client = analytics.Client()
        main = threading.main_thread()

        def work():
            main.join()
            print(client.track("from a thread"), client.flush(20))

        threading.Thread(target=work).start()
        client.track("from the main thread")
    """)

    assert program.stdout.split() == ["True", "True"], program.stderr
    assert sorted(collector.names) == ["from a thread", "from the main thread"]
