"""The command line, as a process or in ours, judged by what it prints and its exit code."""

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import pytest

from analytics_sdk import Client
from analytics_sdk.cli import COMMANDS, main
from analytics_sdk.cli.arguments import make_parser, member, timestamp
from analytics_sdk.cli.console import EPILOG, EXIT_CODES, Failure
from analytics_sdk.version import __version__

KEY = "ak_live_abcdSECRETSECRETSECRET"
COMMAND = (sys.executable, "-W", "error", "-m", "analytics_sdk")
ID = "0193b5f0-0000-7000-8000-000000000001"
EVERY_COMMAND = [
    ("track",),
    ("identify",),
    ("doctor",),
    ("spool", "status"),
    ("spool", "flush"),
    ("spool", "purge"),
    ("codegen",),
]


@pytest.fixture
def environment(collector, tmp_path):
    """What the command finds in its environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANALYTICS_")}
    return {
        **kept,
        "ANALYTICS_API_KEY": KEY,
        "ANALYTICS_API_URL": collector.url,
        "ANALYTICS_SPOOL_DIR": str(tmp_path / "spool"),
    }


@pytest.fixture
def run(environment):
    """Run a command to its end; it never shows a traceback or the key, whatever happens."""

    def run(*words, stdin=b"", **variables):
        done = subprocess.run(
            [*COMMAND, *map(str, words)],
            input=stdin,
            env={**environment, **variables},
            capture_output=True,
            timeout=60,
            check=False,
        )
        done.stdout, done.stderr = done.stdout.decode(), done.stderr.decode()
        told = done.stdout + done.stderr
        assert "Traceback" not in told
        assert "SECRET" not in told
        return done

    return run


@pytest.fixture
def run_here(environment, capsys):
    """Run a command like `run`, in this process, which takes a hundredth of the time."""

    def run_here(*words, stdin=b"", **variables):
        capsys.readouterr()
        given = io.TextIOWrapper(io.BytesIO(stdin))
        with (
            mock.patch.dict(os.environ, {**environment, **variables}, clear=True),
            mock.patch.object(sys, "stdin", given),
        ):
            code = main([*map(str, words)])
        done = subprocess.CompletedProcess(words, code, *capsys.readouterr())
        assert "SECRET" not in done.stdout + done.stderr
        return done

    return run_here


@pytest.fixture
def run_json(run_here):
    """Run a command with --json, and return its exit code and the one object it prints."""

    def run_json(*words, **settings):
        done = run_here(*words, "--json", **settings)
        assert done.stdout.count("\n") == 1
        document = json.loads(done.stdout)
        assert document["exitCode"] == done.returncode
        assert EXIT_CODES[document["status"]] == done.returncode
        assert done.stderr == ""
        return done.returncode, document

    return run_json


@pytest.fixture
def here(environment, monkeypatch, capsys):
    """Run a command in this process, which takes a hundredth of the time."""
    for name in {*environment, *os.environ}:
        if name.startswith("ANALYTICS_"):
            monkeypatch.delenv(name, raising=False)
            if name in environment:
                monkeypatch.setenv(name, environment[name])

    def here(*words):
        code = main(words)
        return (code, *capsys.readouterr())

    return here


@pytest.fixture
def leave(tmp_path, closed_port):
    """Leave events on disk, as a program does that ends and could not deliver them."""

    def leave(*names, api_key=KEY):
        address = f"http://127.0.0.1:{closed_port}"
        client = Client(api_key, address, spool_dir=tmp_path / "spool")
        taken = [client.track(name) for name in names]
        assert all(taken)
        client.shutdown(0)
        assert client.stats().spooled == len(names)

    return leave


def only_event(collector):
    (event,) = collector.stored
    return event


# track and identify


def test_track_says_what_was_delivered(run, collector):
    """The id is what one looks for in the collector."""
    done = run("track", "signed_up", "--user-id", "u-1")

    assert done.returncode == 0
    assert done.stdout == f"delivered: {only_event(collector)['messageId']}\n"
    assert only_event(collector)["name"] == "signed_up"
    assert only_event(collector)["userId"] == "u-1"


def test_track_prints_one_object_for_programs(run_json, collector):
    """With --json there is nothing to parse but JSON."""
    code, document = run_json("track", "signed_up")

    assert code == 0
    assert document == {
        "status": "delivered",
        "exitCode": 0,
        "message": f"delivered: {document['messageId']}",
        "messageId": only_event(collector)["messageId"],
        "reasons": [],
        "duplicate": False,
    }


def test_every_option_of_an_event_is_on_the_wire(run_here, collector):
    """What the SDK's method takes, the command takes."""
    options = {
        "--anonymous-id": "a-1",
        "--session-id": "s-1",
        "--user-id": "u-1",
        "--message-id": ID,
        "--timestamp": "2026-11-20T10:00:31.5+02:00",
    }
    words = [word for option in options.items() for word in option]
    run_here("track", "paid", *words)

    event = only_event(collector)
    assert (event["anonymousId"], event["sessionId"], event["userId"]) == ("a-1", "s-1", "u-1")
    assert event["messageId"] == ID
    assert event["timestamp"] == "2026-11-20T08:00:31.500000Z"


def test_a_value_is_json_if_it_can_be_else_text(run_here, collector):
    """So numbers are numbers without a fuss, and quotes make text of them."""
    properties = ("amount=42.5", "plan=pro", "yes=true", 'code="007"', "zip=01234", "list=[1,2]")
    run_here("track", "paid", *(word for each in properties for word in ("--property", each)))

    assert only_event(collector)["properties"] == {
        "amount": 42.5,
        "plan": "pro",
        "yes": True,
        "code": "007",
        "zip": "01234",
        "list": [1, 2],
    }


@pytest.mark.parametrize("text", ["NaN", "-Infinity", "1e400", "[1,", "{'a': 1}", "[" * 100_000])
def test_what_is_no_json_is_text(text):
    """NaN is a name like any other, and so is what only Python takes for JSON."""
    assert member(f"v={text}") == ("v", text)


def test_an_equals_sign_may_stand_in_a_value():
    """The first one ends the name."""
    assert member("query=a=b") == ("query", "a=b")


def test_properties_come_as_an_object_too_and_single_ones_win(run_here, collector):
    """A base from a program, and a correction by hand."""
    run_here(
        "track", "paid", "--properties", '{"amount": 1, "plan": "free"}', "--property", "plan=pro"
    )

    assert only_event(collector)["properties"] == {"amount": 1, "plan": "pro"}


def test_properties_can_be_piped(run, collector):
    """Anything that writes JSON can be tracked."""
    run("track", "paid", "--properties", "-", stdin='{"city": "Zürich"}'.encode())

    assert only_event(collector)["properties"] == {"city": "Zürich"}


def test_identify_sends_the_traits(run_json, collector):
    """The user is the argument."""
    words = ("--trait", "plan=pro", "--trait", "seats=3", "--anonymous-id", "a-1")
    code, document = run_json("identify", "u-1", *words)

    event = only_event(collector)
    assert (code, document["status"]) == (0, "delivered")
    assert (event["type"], event["userId"], event["anonymousId"]) == ("identify", "u-1", "a-1")
    assert event["traits"] == {"plan": "pro", "seats": 3}


def test_sampling_does_not_keep_back_what_is_sent_by_hand(run_here, collector):
    """Who types the command means this event."""
    run_here("track", "paid", ANALYTICS_SAMPLE_RATE="0")

    assert collector.names == ["paid"]


def test_an_event_that_is_refused_for_good_says_why(run_json, run_here, collector, reply):
    """Code and advice are the collector's."""
    collector.always(reply.accept(0))
    code, document = run_json("track", "paid")
    done = run_here("track", "paid")

    assert (code, document["status"]) == (EXIT_CODES["rejected"], "rejected")
    assert (document["code"], document["advice"]) == ("MISSING_NAME", "no name")
    assert "MISSING_NAME: no name" in done.stderr


def test_what_a_collector_says_can_not_command_the_terminal(run_here, collector, reply):
    """An escape sequence arrives as a question mark."""
    verdict = {"index": 0, "code": "BAD", "message": "\x1b[2Jgone"}
    collector.always(reply.status(400, {"rejected": [verdict]}))
    done = run_here("track", "paid")

    assert "\x1b" not in done.stderr
    assert "?[2Jgone" in done.stderr


def test_a_duplicate_is_told(run_json, collector, reply):
    """The event is there, but was before."""
    collector.always(reply.accept(duplicates=1))
    code, document = run_json("track", "paid", "--message-id", ID)

    assert code == 0
    assert document["duplicate"] is True


def test_without_a_collector_the_event_is_kept_and_the_next_command_delivers_it(
    run_json, run, collector, closed_port
):
    """Exit code 3: not there yet, and not lost."""
    address = f"http://127.0.0.1:{closed_port}"
    code, document = run_json("track", "first", "--api-url", address, "--timeout", "3")
    flushed = run("spool", "flush")

    assert (code, document["status"]) == (EXIT_CODES["spooled"], "spooled")
    assert document["reasons"] == ["no_answer"]
    assert address in document["message"]
    assert flushed.returncode == 0
    assert collector.names == ["first"]


def test_what_others_left_on_disk_does_not_change_what_is_told(run_json, leave, collector, reply):
    """The client delivers that too; the command is about its own event."""
    leave(*(f"left {number}" for number in range(600)))

    def hang_on_the_last(handler, request):
        names = [event["name"] for event in request.events]
        (reply.hang if "left 599" in names else reply.accept())(handler, request)

    collector.always(hang_on_the_last)
    code, document = run_json("track", "own", "--timeout", "20")

    assert (code, document["status"]) == (0, "delivered")
    assert "own" in collector.names


def test_without_a_collector_and_a_spool_the_event_is_lost_and_that_is_told(
    run_json, tmp_path, closed_port
):
    """Nobody may believe that it was kept."""
    (tmp_path / "file").write_text("")
    address = f"http://127.0.0.1:{closed_port}"
    words = ("--api-url", address, "--timeout", "0.2", "--spool-dir", tmp_path / "file" / "spool")
    code, document = run_json("track", "paid", *words)

    assert (code, document["status"]) == (EXIT_CODES["failed"], "failed")
    assert document["message"].startswith("lost: ")
    assert "spool_failed" in document["reasons"]


def test_an_unwritable_spool_does_not_keep_an_event_from_a_collector(run_here, collector, tmp_path):
    """The disk is only for what can't be delivered."""
    (tmp_path / "file").write_text("")
    done = run_here("track", "paid", "--spool-dir", tmp_path / "file" / "spool")

    assert done.returncode == 0
    assert collector.names == ["paid"]


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_told_at_once(run_json, collector, reply, status):
    """To wait would not help: the SDK asks again in a minute."""
    collector.always(reply.status(status, {"code": "AUTH_FAILED"}))
    started = time.monotonic()
    code, document = run_json("track", "paid", "--timeout", "55")

    assert time.monotonic() - started < 40
    assert code == EXIT_CODES["spooled"]
    assert document["reasons"] == ["auth_failed"]
    assert f"status: {status}" in document["message"]
    assert len(collector.requests) == 1


def test_a_sdk_that_is_switched_off_is_told(run_json, collector):
    """Else one would look for the event in vain."""
    code, document = run_json("track", "paid", ANALYTICS_ENABLED="false")

    assert (code, document["code"]) == (EXIT_CODES["failed"], "disabled")
    assert "ANALYTICS_ENABLED" in document["message"]
    assert collector.requests == []


def test_a_durable_event_without_a_spool_is_told(run_json, collector, tmp_path):
    """It is not sent: it could not be kept as was asked for."""
    (tmp_path / "file").write_text("")
    variables = {"ANALYTICS_DURABLE": "true", "ANALYTICS_SPOOL_DIR": str(tmp_path / "file" / "s")}
    code, document = run_json("track", "paid", **variables)

    assert (code, document["code"]) == (EXIT_CODES["failed"], "spool_failed")
    assert "turned away" in document["message"]
    assert collector.requests == []


# Misuse


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("nonsense",),
        ("track",),
        ("track", "a", "b"),
        ("track", ""),
        ("track", "n" * 256),
        ("track", "a", "--property", "plan"),
        ("track", "a", "--property", "=pro"),
        ("track", "a", "--user", "u-1"),
        ("track", "a", "--properties", "[1]"),
        ("track", "a", "--properties", '{"a": NaN}'),
        ("track", "a", "--properties", "[" * 100_000),
        ("track", "a", "--timestamp", "yesterday"),
        ("track", "a", "--timestamp", "1969-01-01T00:00:00Z"),
        ("track", "a", "--message-id", "1"),
        ("track", "a", "--user-id", "u" * 256),
        ("track", "a", "--timeout", "0"),
        ("track", "a", "--timeout", "nan"),
        ("track", "a", "--api-url", "localhost:8000"),
        ("track", "a", "--api-key", "with a space"),
        ("identify",),
        ("identify", ""),
        ("spool",),
        ("spool", "burn"),
        ("spool", "purge", "--older-than", "30"),
        ("codegen", "schemas.json"),
        ("track", "a", KEY),
    ],
    ids=lambda words: " ".join(words)[:40] or "nothing",
)
def test_misuse_is_one_sentence_and_exit_code_2(here, collector, words):
    """For people and, as for every other outcome, for programs."""
    code, out, error = here(*words)
    same_code, document, nothing = here(*words, "--json")

    assert code == same_code == json.loads(document)["exitCode"] == EXIT_CODES["misused"]
    assert error == f"analytics-sdk: {json.loads(document)['message']}\n"
    assert out == nothing == ""
    assert "SECRET" not in document + error
    assert collector.requests == []


def test_misuse_of_the_real_command_is_no_traceback(run, run_json):
    """What the tests above see of the function is what a shell sees of the process."""
    done = run("track", "a", "--property", KEY)
    code, document = run_json("track", "a", "--property", KEY)

    assert done.returncode == code == EXIT_CODES["misused"]
    assert done.stderr == f"analytics-sdk: {document['message']}\n"


@pytest.mark.parametrize("stdin", [b"", b"\xff{}", b"7"])
def test_what_is_piped_and_is_no_object_is_misuse(run_json, stdin):
    """Bytes that are no UTF-8 too."""
    code, document = run_json("track", "a", "--properties", "-", stdin=stdin)

    assert (code, document["status"]) == (2, "misused")


def test_every_wrong_setting_is_told_at_once(run_json):
    """The environment is an argument like any other."""
    variables = {"ANALYTICS_API_KEY": "", "ANALYTICS_MAX_QUEUE_SIZE": "many"}
    code, document = run_json("track", "a", **variables)

    assert code == EXIT_CODES["misused"]
    assert "api_key" in document["message"]
    assert "max_queue_size" in document["message"]


@pytest.mark.parametrize("words", [("--api-url", "here"), ("track", "a", "--property", "plan")])
def test_json_may_stand_before_the_command(run_here, words):
    """Common options stand where one likes."""
    done = run_here("--json", *(words if words[0] == "track" else (*words, "track", "a")))

    assert json.loads(done.stdout)["exitCode"] == done.returncode == 2


def test_an_option_behind_the_command_wins_and_none_takes_one_back():
    """Both places are the same option."""
    before = make_parser().parse_args(["--api-key", "k", "--json", "spool", "status"])
    both = make_parser().parse_args(["--api-key", "k", "spool", "--api-key", "l", "status"])

    assert (before.api_key, before.json, before.command) == ("k", True, "spool status")
    assert both.api_key == "l"


def test_what_looks_like_an_option_can_be_a_name(run_here, collector):
    """Behind -- everything is an argument, --json too."""
    done = run_here("track", "--", "--json")

    assert done.stdout.startswith("delivered: ")
    assert collector.names == ["--json"]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2026-11-20T10:00:31Z", "2026-11-20T10:00:31+00:00"),
        ("2026-11-20T10:00:31.12z", "2026-11-20T10:00:31.120000+00:00"),
        ("2026-11-20 10:00:31.123456789+02:00", "2026-11-20T10:00:31.123456+02:00"),
        ("2026-11-20T10:00", "2026-11-20T10:00:00"),
    ],
)
def test_times_are_read_alike_by_every_python(text, meant):
    """Python 3.10 alone reads only some of them."""
    assert timestamp(text).isoformat() == meant


# Help


@pytest.mark.parametrize("command", [(), *EVERY_COMMAND], ids=" ".join)
def test_help_tells_the_exit_codes_and_an_example(capsys, command):
    """It is the manual."""
    with pytest.raises(SystemExit) as end:
        main([*command, "--help"])
    out = capsys.readouterr().out

    assert end.value.code == 0
    assert EPILOG.strip() in out
    assert command == () or f"  analytics-sdk {' '.join(command)}" in out


def test_help_of_the_real_command_ends_with_0(run):
    """In a pipe it stays without colours, whatever Python."""
    done = run("--help")

    assert done.returncode == 0
    assert "codegen" in done.stdout
    assert "\x1b" not in done.stdout


def test_the_exit_codes_that_are_told_are_those_that_are_used():
    """No more and no less."""
    told = {int(code) for code in re.findall(r"^  (\d+) ", EPILOG, re.MULTILINE)}

    assert told == set(EXIT_CODES.values())


def test_the_version_is_told(run):
    """So that a report has it."""
    assert run("--version").stdout == f"{__version__}\n"


def test_every_command_has_a_function():
    """The parser and the table of commands are of one mind."""
    with pytest.raises(Failure, match="spool"):
        make_parser().parse_args(["spool"])
    assert set(COMMANDS) == {" ".join(command) for command in EVERY_COMMAND}


# Interruptions


@pytest.fixture
def start(environment):
    """Start a command that a test interrupts."""
    started = []
    # Where the tests run in the background Ctrl-C is ignored, and children inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def start(*words, stdout=subprocess.PIPE):
        process = subprocess.Popen(
            [*COMMAND, *words], env=environment, stdout=stdout, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield start
    signal.signal(signal.SIGINT, before)
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_control_c_ends_it_in_order_and_keeps_the_event(
    start, run_json, collector, reply, eventually
):
    """Nobody who is impatient loses an event."""
    collector.script(reply.hang)
    process = start("track", "paid", "--timeout", "50")
    eventually(lambda: collector.requests, 30)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=30)
    _, spooled = run_json("spool", "status")

    assert process.returncode == EXIT_CODES["interrupted"]
    assert error.startswith("analytics-sdk: kept on disk")
    assert out == ""
    assert spooled["events"] == 1


def test_control_c_in_the_middle_of_a_flush_is_no_error(start, leave, collector, reply, eventually):
    """What was not delivered stays where it is."""
    leave("first")
    collector.script(reply.hang)
    process = start("spool", "flush", "--timeout", "50", "--json")
    eventually(lambda: collector.requests, 30)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=30)

    assert process.returncode == EXIT_CODES["interrupted"]
    assert json.loads(out)["status"] == "interrupted"
    assert error == ""


def test_a_signal_to_end_keeps_the_event(start, run_json, collector, reply, eventually):
    """A time limit of whoever started the command costs nothing either."""
    collector.script(reply.hang)
    process = start("track", "paid", "--timeout", "50")
    eventually(lambda: collector.requests, 30)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    _, spooled = run_json("spool", "status")

    assert process.returncode == -signal.SIGTERM
    assert spooled["events"] == 1


def test_a_reader_that_leaves_early_is_no_error(start):
    """As `analytics-sdk doctor | head -1` does it."""
    reader, writer = os.pipe()
    os.close(reader)
    process = start("doctor", stdout=writer)
    os.close(writer)
    _, error = process.communicate(timeout=60)

    assert process.returncode == EXIT_CODES["failed"]
    assert error == ""


# spool


def test_status_of_nothing_is_nothing(run_json, tmp_path):
    """And makes nothing."""
    code, document = run_json("spool", "status")

    assert code == 0
    assert (document["events"], document["folders"]) == (0, [])
    assert not (tmp_path / "spool").exists()


def test_status_tells_what_waits_for_the_key(run_here, run_json, leave, closed_port):
    """How many, since when, for whom; the key of another project does not count."""
    leave("first")
    leave("second")
    leave("other", api_key="ak_live_other")
    done = run_here("spool", "status")
    code, document = run_json("spool", "status")

    (folder,) = document["folders"]
    assert code == 0
    assert document["events"] == folder["events"] == 2
    assert folder["keyPrefix"] == KEY[:12]
    assert folder["apiUrl"] == f"http://127.0.0.1:{closed_port}"
    assert folder["heldSegments"] == 0
    assert folder["oldestAt"].endswith("+00:00")
    assert folder["path"] in done.stdout
    assert "2 events" in done.stdout


def test_status_without_a_key_tells_of_all(run_json, leave):
    """A machine may have programs of several projects."""
    leave("first")
    leave("other", api_key="ak_live_other")
    _, document = run_json("spool", "status", ANALYTICS_API_KEY="", ANALYTICS_API_URL="")

    assert document["events"] == 2
    assert len(document["folders"]) == 2


def test_flush_delivers_what_ended_programs_left(run_json, leave, collector):
    """In order, and with nothing left behind."""
    leave("first")
    leave("second")
    code, document = run_json("spool", "flush")
    _, after = run_json("spool", "status")

    assert (code, document["status"], document["delivered"]) == (0, "ok", 2)
    assert collector.names == ["first", "second"]
    assert after["events"] == 0


def test_flush_of_nothing_is_done_at_once(run_json, collector):
    """Nothing is sent."""
    code, document = run_json("spool", "flush", "--timeout", "50")

    assert (code, document["delivered"]) == (0, 0)
    assert collector.requests == []


def test_flush_fails_while_events_remain(run_json, leave, closed_port):
    """With the reason; they wait for the next time."""
    leave("first")
    address = f"http://127.0.0.1:{closed_port}"
    code, document = run_json("spool", "flush", "--api-url", address, "--timeout", "3")
    _, after = run_json("spool", "status")

    assert (code, document["reasons"]) == (EXIT_CODES["failed"], ["no_answer"])
    assert after["events"] == 1


def test_flush_works_where_tracking_is_switched_off(run_json, leave, collector):
    """To type it is to want it."""
    leave("first")
    variables = {"ANALYTICS_ENABLED": "false", "ANALYTICS_SPOOL_MAX_BYTES": "0"}
    code, _ = run_json("spool", "flush", **variables)

    assert code == 0
    assert collector.names == ["first"]


def test_flush_can_deliver_what_was_kept_for_another_key(run_json, leave, collector):
    """After a key was replaced, say. Only what is asked for goes with the new one."""
    leave("first", api_key="ak_live_old")
    leave("second", api_key="ak_live_other")
    _, before = run_json("spool", "status", ANALYTICS_API_KEY="")
    old = next(each for each in before["folders"] if each["keyPrefix"] == "ak_live_old")
    code, document = run_json("spool", "flush", "--from", old["path"])

    assert (code, document["delivered"]) == (0, 1)
    assert collector.names == ["first"]
    assert collector.requests[0].headers["x-api-key"] == KEY


def test_flush_takes_nothing_from_a_folder_that_is_none_of_a_spool(run_json, tmp_path):
    """A mistyped path makes nothing."""
    code, document = run_json("spool", "flush", "--from", tmp_path / "nowhere")

    assert code == EXIT_CODES["misused"]
    assert "nowhere" in document["message"]
    assert not (tmp_path / "nowhere").exists()


def test_purge_deletes_nothing_unasked(run_json, leave):
    """A script has to say that it means it."""
    leave("first")
    code, document = run_json("spool", "purge")
    _, after = run_json("spool", "status")

    assert code == EXIT_CODES["misused"]
    assert "--yes" in document["message"]
    assert after["events"] == 1


def test_purge_deletes_what_is_left_for_the_key(run_json, leave):
    """And no other project's."""
    leave("first")
    leave("other", api_key="ak_live_other")
    code, document = run_json("spool", "purge", "--yes")
    _, after = run_json("spool", "status", ANALYTICS_API_KEY="")

    assert (code, document["events"]) == (0, 1)
    assert after["events"] == 1


def test_purge_leaves_what_is_younger(run_json, leave):
    """--older-than is the age from which on events go."""
    leave("first")
    _, document = run_json("spool", "purge", "--older-than", "1h", "--yes")
    _, after = run_json("spool", "status")

    assert document["events"] == 0
    assert after["events"] == 1


@pytest.mark.parametrize(("answer", "code", "left"), [("y", 0, 0), ("n", 1, 1), ("", 1, 1)])
def test_purge_asks_whoever_sits_there(environment, run_json, leave, answer, code, left):
    """Only a yes is a yes."""
    leave("first")
    keyboard, terminal = pty.openpty()
    os.write(keyboard, f"{answer}\n".encode())
    done = subprocess.run(
        [*COMMAND, "spool", "purge", "--json"],
        stdin=terminal,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(keyboard)
    os.close(terminal)
    _, after = run_json("spool", "status")

    assert done.returncode == code
    assert "1 events" in done.stderr
    assert json.loads(done.stdout)["exitCode"] == code
    assert after["events"] == left


# codegen


@pytest.fixture
def schemas(tmp_path):
    path = tmp_path / "schemas.json"
    amount = {"type": "object", "properties": {"amount": {"type": "number"}}}
    path.write_text(json.dumps({"events": {"paid": amount}}))
    return path


def test_codegen_writes_what_python_can_compile(run_json, schemas, tmp_path):
    """And says whether there was something to change."""
    output = tmp_path / "events.py"
    code, first = run_json("codegen", schemas, "-o", output)
    _, second = run_json("codegen", schemas, "-o", output)

    assert code == 0
    assert (first["changed"], second["changed"]) == (True, False)
    compile(output.read_text(), str(output), "exec")
    assert "paid" in output.read_text()


def test_codegen_checks_without_writing(run_json, schemas, tmp_path):
    """In CI a file that was forgotten is an error."""
    output = tmp_path / "events.py"
    missing, _ = run_json("codegen", schemas, "-o", output, "--check")
    assert not output.exists()
    run_json("codegen", schemas, "-o", output)
    current, _ = run_json("codegen", schemas, "-o", output, "--check")
    output.write_text("by hand")
    changed, document = run_json("codegen", schemas, "-o", output, "--check")

    assert (missing, current, changed) == (1, 0, 1)
    assert "out of date" in document["message"]
    assert "-by hand" in document["difference"]
    assert output.read_text() == "by hand"


@pytest.mark.parametrize("text", [None, "{", "[]"])
def test_codegen_of_what_is_no_schema_says_so(run_json, tmp_path, text):
    """With the name of the file."""
    source = tmp_path / "schemas.json"
    if text is not None:
        source.write_text(text)
    code, document = run_json("codegen", source, "-o", tmp_path / "events.py")

    assert code == EXIT_CODES["failed"]
    assert source.name in document["message"]
    assert not (tmp_path / "events.py").exists()


def test_codegen_does_not_write_over_what_is_no_text(run_json, schemas, tmp_path):
    """A slip of the keyboard costs no picture."""
    output = tmp_path / "logo.png"
    output.write_bytes(b"\x89PNG\xff")
    code, document = run_json("codegen", schemas, "-o", output)

    assert code == EXIT_CODES["failed"]
    assert "logo.png" in document["message"]
    assert output.read_bytes() == b"\x89PNG\xff"


def test_codegen_into_a_folder_that_is_not_there_says_so(run_json, schemas, tmp_path):
    """What the system says is enough."""
    code, document = run_json("codegen", schemas, "-o", Path(tmp_path, "nowhere", "events.py"))

    assert code == EXIT_CODES["failed"]
    assert "nowhere" in document["message"]
