"""Answers that no collector gives: to lure, to fill memory, to keep."""

import pytest

MIB = 1024 * 1024


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_nothing_reaches_the_target_of_a_redirect(
    make_client, collector, reply, raw_server, eventually, status
):
    """Another host gets neither key nor events, whatever the status says."""
    thief = raw_server(lambda server, connection: server.read(connection))
    location = f"http://127.0.0.1:{thief.port}/api/v1/events"
    collector.script(*[reply.status(status, Location=location)] * 2)
    client = make_client()
    client.track("secret-event", {"email": "someone@example.org"})
    client.flush(0.2)

    assert client.flush(20)
    assert thief.connections == 0
    assert collector.names == ["secret-event"]


@pytest.mark.parametrize("fault", ["endless", "drip_body", "bomb"])
def test_a_hostile_answer_takes_neither_memory_nor_time(run_program, collector, reply, fault):
    """Under 150 MiB in all, and each request ends by its time limit."""

    def bomb(handler, request):
        import gzip

        body = b"".join(gzip.compress(b" " * MIB) for _ in range(200))
        handler.answer(202, body, {"Content-Encoding": "gzip"})

    collector.always(bomb if fault == "bomb" else getattr(reply, fault))
    program = run_program("""
        client = analytics.Client(timeout_s=0.5, shutdown_timeout_s=0.1)
        client.track("one")
        began = time.monotonic()
        flushed = client.flush(0.2)
        while client.stats().requests < 2:
            client.flush(0.1)
            assert time.monotonic() - began < 20
        # Not ru_maxrss, which begins with that of the process that started this one.
        with open("/proc/self/status") as status:
            peak_kib = next(line.split()[1] for line in status if line.startswith("VmHWM"))
        print(flushed, int(peak_kib) // 1024)
    """)

    flushed, peak_mib = program.stdout.split()
    assert flushed == "False", program.stderr
    assert int(peak_mib) < 150
