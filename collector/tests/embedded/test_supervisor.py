"""The supervisor with small children that cost nothing to start."""

import os
import signal
from pathlib import Path

import pytest

from analytics_collector.embedded import ChildSpec, Supervisor
from analytics_collector.embedded.process import Child, ChildFailed, LeftoverRunning

_DIARY = """
trap 'echo "$0 down" >> "$DIARY"; exit 0' TERM
echo "$0 up" >> "$DIARY"
while :; do sleep 0.02; done
"""


class Diary:
    """A file in which children write when they start and stop."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def lines(self) -> list[str]:
        return self.path.read_text().splitlines() if self.path.exists() else []

    def child(self, name: str) -> ChildSpec:
        return ChildSpec(
            name,
            ["sh", "-c", _DIARY, name],
            env={"PATH": os.environ["PATH"], "DIARY": str(self.path)},
            ready=lambda: f"{name} up" in self.lines,
        )


@pytest.fixture
def diary(tmp_path):
    return Diary(tmp_path / "diary")


def test_children_stop_in_the_opposite_order_of_their_start(diary):
    """What comes first is needed by what comes later."""
    supervisor = Supervisor([diary.child("first"), diary.child("second"), diary.child("third")])
    supervisor.start()
    supervisor.stop()

    up, down = ["first up", "second up", "third up"], ["third down", "second down", "first down"]
    assert diary.lines == up + down


def test_a_child_that_does_not_come_up_stops_the_start(diary):
    """All or nothing, and the error names the child and how it ended."""
    supervisor = Supervisor([diary.child("good"), ChildSpec("bad", ["false"], ready=lambda: False)])
    with pytest.raises(ChildFailed, match="bad exited with 1 before it was ready"):
        supervisor.start()

    assert diary.lines == ["good up", "good down"]


def test_a_child_that_is_never_ready_stops_the_start():
    """The wait has an end."""
    slow = ChildSpec("slow", ["sleep", "100"], ready=lambda: False, ready_timeout_s=0.1)

    with pytest.raises(ChildFailed, match=r"slow was not ready within 0\.1 s"):
        Supervisor([slow]).start()


def test_a_program_that_is_not_there_is_an_error_of_ours():
    """Not a bare OSError from the depths."""
    with pytest.raises(ChildFailed, match="ghost could not be started"):
        Supervisor([ChildSpec("ghost", ["/nowhere/ghost"])]).start()


def test_a_child_that_always_dies_is_given_up(diary):
    """Ten failures within a minute are enough; the others are stopped in order."""
    dying = ChildSpec("dying", ["sh", "-c", "exit 3"])
    supervisor = Supervisor([diary.child("good"), dying], longest_backoff_s=0.01)
    supervisor.start()
    with pytest.raises(ChildFailed, match=r"dying failed 10 times in 60 s \(last: 3\)"):
        supervisor.run_until_signal()

    assert diary.lines == ["good up", "good down"]


def test_a_signal_ends_the_run_and_the_handlers_of_the_caller_come_back(diary):
    """Only while it runs are the signals ours; the exit code is 0."""
    before = signal.getsignal(signal.SIGTERM)
    # Its first life ends at once. Its second begins in the loop, and asks for the end.
    script = f'[ -e "$0" ] && kill -TERM {os.getpid()}; touch "$0"'
    asks = ChildSpec("asks", ["sh", "-c", script, f"{diary.path}.second"])
    supervisor = Supervisor([diary.child("good"), asks])
    supervisor.start()

    assert supervisor.run_until_signal() == 0
    assert signal.getsignal(signal.SIGTERM) is before
    assert diary.lines == ["good up", "good down"]


def test_a_child_that_ignores_the_signal_is_killed_when_time_is_up(tmp_path, eventually):
    """Its process group goes with it."""
    ready = tmp_path / "ready"
    script = f"trap '' TERM; touch {ready}; sleep 100"
    child = Child(ChildSpec("deaf", ["sh", "-c", script], stop_timeout_s=0.1))
    child.start()
    eventually(ready.exists)
    child.stop()

    assert child.exit_code == -signal.SIGKILL


def test_a_child_is_not_started_while_offspring_of_the_last_run_holds_its_lock(
    tmp_path, eventually
):
    """The lock is inherited, so it is free only when the last of the family is gone."""
    log = tmp_path / "log"
    argv = ["sh", "-c", "sleep 100 & echo $!"]
    child = Child(ChildSpec("family", argv, lock_path=tmp_path / "lock", log_path=log))
    child.start()
    eventually(lambda: not child.is_running)
    with pytest.raises(LeftoverRunning, match="family of an earlier run"):
        child.start(leftover_timeout_s=0.1)
    os.kill(int(log.read_text()), signal.SIGKILL)
    child.start()
    eventually(lambda: not child.is_running)

    os.kill(int(log.read_text().split()[1]), signal.SIGKILL)
