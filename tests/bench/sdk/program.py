"""A program that uses one SDK: `python program.py WHAT ARGUMENTS`, both from `measure.py`.

It says what it saw in lines of JSON. It runs in the environment of the SDK, so it imports that
adapter and modules of Python, no more: what it imports counts in what is measured. (So no pathlib.)
"""

from __future__ import annotations

import importlib
import json
import mmap
import os
import signal
import sys
import time
from array import array

CALLS_WARM_UP = 100
# Ids that nobody counts.
UNCOUNTED = 10_000_000


def properties(number):
    return {
        "order_id": f"o-{number}",
        "amount": 129.9,
        "currency": "EUR",
        "quantity": 3,
        "plan": "pro",
        "is_trial": False,
    }


def say(**facts):
    print(json.dumps(facts), flush=True)


def memory_mib(field):
    """Return VmRSS (now) or VmHWM (the most so far) of this process."""
    with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(field))


def sleep():
    time.sleep(0.001)


def work():
    """Do for 0.2 ms what programs do."""
    until = time.perf_counter_ns() + 200_000
    while time.perf_counter_ns() < until:
        json.dumps(properties(0))


def costs(sdk, calls, for_s, between=None):
    """Time calls one by one, *for_s* seconds at most, and return their percentiles in µs."""
    clock, taken = time.perf_counter_ns, array("q")
    not_taken = 0
    until = time.monotonic() + for_s
    for number in range(calls):
        event = properties(number)
        started = clock()
        is_taken = sdk.track(event)
        taken.append(clock() - started)
        not_taken += not is_taken
        if between is not None:
            between()
        if time.monotonic() > until:
            break
    ordered = sorted(taken)
    return {
        "p50": ordered[len(ordered) // 2] / 1000,
        "p99": ordered[len(ordered) * 99 // 100] / 1000,
        "mean": sum(ordered) / len(ordered) / 1000,
        "max": ordered[-1] / 1000,
        "calls": len(ordered),
        "not_taken": not_taken,
    }


def _warm_up(sdk):
    for number in range(CALLS_WARM_UP):
        sdk.track(properties(UNCOUNTED + number))


def idle(sdk, calls, for_s, settle_s):
    """Measure calls while the worker waits for an answer that never comes."""
    _warm_up(sdk)
    time.sleep(settle_s)
    say(idle=costs(sdk, calls, for_s))
    os._exit(0)


def live(sdk, calls, for_s, paced_s):
    """Measure calls while the worker sends: with sleep or work between, and back to back."""
    _warm_up(sdk)
    sdk.flush()
    figures = {}
    for between in (sleep, work):
        figures[between.__name__] = costs(sdk, calls, paced_s, between)
        sdk.flush()
    say(**figures, hot=costs(sdk, calls, for_s))
    os._exit(0)


def burst(sdk, events):
    """Track *events* at once and send them, from a cold start."""
    started, cpu_started_s = time.monotonic(), time.process_time()
    for number in range(events):
        sdk.track(properties(number))
    called_s = time.monotonic() - started
    sdk.flush()
    cpu_s = time.process_time() - cpu_started_s
    say(started=started, called_s=called_s, cpu_s=cpu_s, peak_mib=memory_mib("VmHWM"))
    os._exit(0)


def memory(sdk, events):
    """Count threads before the first event, then fill the queue while nothing can be sent."""
    threads = len(os.listdir("/proc/self/task")) - 1  # noqa: PTH208
    taken = sum(sdk.track(properties(number)) for number in range(events))
    time.sleep(0.5)
    say(threads=threads, taken=taken, rss_mib=memory_mib("VmRSS"))
    os._exit(0)


def end(sdk, events):
    """Track *events*, and end like a script that never heard of `flush()`."""
    started = time.monotonic()
    taken = sum(sdk.track(properties(number)) for number in range(events))
    say(started=started, ended_at=time.monotonic(), taken=taken)


def stream(sdk, per_s, notes):
    """Track *per_s* events a second until killed; *notes* has a byte for each that was taken."""
    with open(notes, "r+b") as file:  # noqa: PTH123
        noted = mmap.mmap(file.fileno(), 0)
    say(ready=True)
    started = time.monotonic()
    for number in range(len(noted)):
        if sdk.track(properties(number)):
            noted[number] = 1
        ahead_s = started + number / per_s - time.monotonic()
        if ahead_s > 0:
            time.sleep(ahead_s)


def fork(sdk, events, is_flushing, hangs_after_s):
    """Track in a child, which then lives until stdin ends, or flushes and is gone."""
    sdk.track(properties(UNCOUNTED))
    sdk.flush()
    child = os.fork()
    if child == 0:
        for number in range(events):
            sdk.track(properties(number))
        if is_flushing:
            sdk.flush()
        else:
            say(tracked=True)
            sys.stdin.read()
        os._exit(0)
    until = time.monotonic() + (hangs_after_s if is_flushing else 3600)
    while not (has_ended := os.waitpid(child, os.WNOHANG)[0]) and time.monotonic() < until:
        time.sleep(0.02)
    if not has_ended:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    say(hangs=not has_ended)
    os._exit(0)


def poison(sdk):
    """Track an event that no JSON can carry between two good ones."""
    sdk.track(properties(0))
    sdk.track({**properties(1), "amount": float("nan")})
    sdk.track(properties(2))
    sdk.flush()
    say(flushed=True)
    os._exit(0)


def restart(sdk):
    """Be the program after a restart: it tracks, and goes on until it is told to end."""
    sdk.track(properties(UNCOUNTED))
    say(ready=True)
    sys.stdin.read()


def main():
    what, arguments = sys.argv[1], json.loads(sys.argv[2])
    if (core := arguments.pop("core")) is not None:
        os.sched_setaffinity(0, {core})
    adapter = importlib.import_module(f"adapters.{arguments.pop('adapter')}")
    sdk = adapter.Adapter(
        arguments.pop("url"),
        arguments.pop("folder"),
        arguments.pop("queue_size"),
        **arguments.pop("options"),
    )
    programs = (idle, live, burst, memory, end, stream, fork, poison, restart)
    {program.__name__: program for program in programs}[what](sdk, **arguments)


if __name__ == "__main__":
    main()
