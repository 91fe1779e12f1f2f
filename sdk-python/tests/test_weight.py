"""What the SDK costs a program that imports it, and one whose collector is away."""

from pathlib import Path

import pytest

MAX_MODULES = 170  # those of bare Python, some 30, among them
MAX_RSS_MIB = 48


def test_an_import_is_light(run_program):
    """What delivery needs comes with the first event."""
    program = run_program("""
        import sys
        print(len(sys.modules), "httpx" in sys.modules, "tenacity" in sys.modules)
    """)

    modules, *heavy = program.stdout.split()
    assert heavy == ["False", "False"]
    assert int(modules) <= MAX_MODULES


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc of Linux")
def test_a_full_queue_fits_into_48_mib(run_program, closed_port):
    """The whole program's memory, with 10,000 events of a usual size in it."""
    program = run_program(
        """
        analytics.init(batch_size=500, flush_interval_s=3600, spool_max_bytes=0)
        properties = {"order_id": "o-4711", "amount": 129.9, "currency": "EUR", "plan": "pro"}
        taken = 0
        for number in range(10_100):
            taken += analytics.track("paid", properties, user_id=f"user-{number}")
        with open("/proc/self/status") as status:
            rss_kib = int(status.read().partition("VmRSS:")[2].split()[0])
        print(taken, rss_kib)
        """,
        ANALYTICS_API_URL=f"http://127.0.0.1:{closed_port}",
    )

    assert "Traceback" not in program.stderr
    taken, rss_kib = map(int, program.stdout.split())
    assert taken == 10_000
    assert rss_kib <= MAX_RSS_MIB * 1024
