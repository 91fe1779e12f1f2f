"""The doctor, run as a process on networks, collectors and disks that have something."""

import contextlib
import datetime
import email.utils
import http.server
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from unittest import mock

import pytest

from analytics_sdk import folders
from analytics_sdk.cli import doctor, main, network, probe

# Of a collector that nobody runs: the last six characters are the check sum.
KEY = "ak_live_bpFuTFCht8EQLslViVXxY6I0Sy0rxavwjsGVAhEXdfw3K75fq"
COMMAND = (sys.executable, "-W", "error", "-m", "analytics_sdk", "doctor")
CHECKS = ["versions", "settings", "key", *network.CHECKS, "spool"]
NOW = datetime.datetime(2026, 11, 20, 10, tzinfo=datetime.timezone.utc)
PORTAL = (200, "<html>Welcome to our hotel</html>", {"Content-Type": "text/html"})


class Checks(dict):
    """The checks by name, and how the command ended."""

    def __init__(self, done):
        self.code, self.text = done.returncode, done.stdout + done.stderr
        self.document = json.loads(done.stdout)
        super().__init__((check["name"], check) for check in self.document["checks"])

    def statuses(self, *names):
        return [self[name]["status"] for name in names]


@pytest.fixture
def environment(tmp_path):
    """Return what the doctor finds in its environment, with *variables* in it."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("ANALYTICS_") and "proxy" not in name.lower()
    }
    spool = {"ANALYTICS_SPOOL_DIR": str(tmp_path / "spool")}

    def environment(url, variables):
        return {**clean, "ANALYTICS_API_KEY": KEY, "ANALYTICS_API_URL": url, **spool, **variables}

    return environment


@pytest.fixture
def run(environment):
    """Run the doctor on an address, and return how it ended and what it printed."""

    def run(url, *words, **variables):
        return subprocess.run(
            [*COMMAND, *words],
            env=environment(url, variables),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def here(environment, capsys):
    """Run it in this process, which takes a hundredth of the time."""

    def here(url, *words, **variables):
        capsys.readouterr()
        with mock.patch.dict(os.environ, environment(url, variables), clear=True):
            code = main(["doctor", *words])
        return subprocess.CompletedProcess(words, code, *capsys.readouterr())

    return here


@pytest.fixture
def examine(here):
    """Let the doctor tell a program, and return the checks."""

    def examine(url, *words, how=here, **variables):
        done = how(url, "--json", *words, **variables)
        assert "Traceback" not in done.stdout + done.stderr
        assert KEY[12:] not in done.stdout + done.stderr
        checks = Checks(done)
        assert list(checks) == CHECKS
        assert checks.document["exitCode"] == checks.code
        for check in checks.values():
            assert (check["advice"] is not None) == (check["status"] in ("warning", "failed"))
        return checks

    return examine


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def answer(self):
        server = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        server.asked.append((self.command, self.path, body, dict(self.headers)))
        status, content, headers = server.answers.get(self.command, PORTAL)
        content = content if isinstance(content, str) else json.dumps(content)
        self.send_response_only(status)
        dated = {"Date": email.utils.formatdate(time.time() + server.ahead_s, usegmt=True)}
        for name, value in {**dated, "Content-Length": len(content), **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(content.encode())

    do_GET = do_POST = do_CONNECT = answer  # noqa: N815


class Web(http.server.ThreadingHTTPServer):
    """A web server that answers a method as it is told; untold it is the portal of a hotel."""

    daemon_threads = True

    def __init__(self, answers, context=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.asked, self.ahead_s = answers, [], 0
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.port = self.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def handle_error(self, request, client_address):
        assert isinstance(sys.exc_info()[1], OSError)


@pytest.fixture
def serve():
    """Start web servers that end with the test."""
    with contextlib.ExitStack() as stack:

        def serve(answers, context=None):
            web = Web(answers, context)
            thread = threading.Thread(target=web.serve_forever, args=(0.02,))
            thread.start()
            stack.callback(thread.join)
            stack.callback(web.server_close)
            stack.callback(web.shutdown)
            return web

        yield serve


def healthy(status=400, code="EMPTY_BATCH"):
    """Answer as a collector does, to an empty batch with this refusal."""
    return {
        "GET": (200, {"status": "ok", "version": "9.9"}, {}),
        "POST": (status, {"error": "...", "code": code, "requestId": "r"}, {}),
    }


@pytest.mark.parametrize("how", ["here", "run"])
def test_all_is_well_where_all_is_well(examine, serve, request, how):
    """Every check is made, and the exit code says so."""
    checks = examine(serve(healthy()).url, how=request.getfixturevalue(how))

    assert (checks.code, checks.document["status"]) == (0, "ok")
    assert checks.document["message"] == "all is well"
    assert checks.statuses(*CHECKS) == ["ok"] * 5 + ["skipped"] + ["ok"] * 4
    assert "collector 9.9" in checks["collector"]["message"]


def test_people_get_a_line_a_check_and_the_advice_below(run, serve):
    """Failed or not, in the order in which they are made."""
    done = run(serve(healthy(401, "AUTH_FAILED")).url)

    lines = done.stdout.splitlines()
    assert [line.split()[1] for line in lines if not line.startswith(" ")] == CHECKS
    place = next(at for at, line in enumerate(lines) if line.startswith("failed   access"))
    assert lines[place + 1].lstrip().startswith("-> Copy your project's key")
    assert done.stderr == "analytics-sdk: 1 failed\n"
    assert done.returncode == 1


def test_nothing_is_sent_that_a_collector_could_store(examine, collector, reply):
    """The key is tried with an empty batch."""
    collector.always(reply.status(400, {"code": "EMPTY_BATCH", "error": "..."}))
    checks = examine(collector.url)

    assert checks["access"]["status"] == "ok"
    assert [request.events for request in collector.requests] == [[]]
    assert collector.requests[0].headers["x-api-key"] == KEY


def test_the_key_goes_to_the_address_of_events_and_nowhere_else(examine, serve):
    """Who only tells how it is, need not know it."""
    web = serve(healthy())
    examine(web.url)

    assert [(method, path, KEY in str(headers)) for method, path, _, headers in web.asked] == [
        ("GET", "/health", False),
        ("POST", "/api/v1/events", True),
    ]


@pytest.mark.parametrize(
    ("status", "code", "word"),
    [
        (401, "AUTH_FAILED", "revoked"),
        (402, "QUOTA_EXCEEDED", "quota"),
        (403, "INSUFFICIENT_SCOPE", "scope `ingest`"),
    ],
)
def test_a_key_that_is_not_accepted_fails(examine, collector, reply, status, code, word):
    """Wrong key or wrong scope: two causes, two advices."""
    collector.always(reply.status(status, {"code": code, "error": "..."}))
    checks = examine(collector.url)

    assert checks.code == 1
    assert checks["access"]["status"] == "failed"
    assert checks["access"]["facts"] == {"httpStatus": status, "code": code}
    assert word in checks["access"]["advice"]


@pytest.mark.parametrize("name", ["ak_live_short", KEY[:-1] + "x", "pk_test_" + KEY[8:]])
def test_a_key_that_can_not_be_right_is_told_before_it_is_tried(examine, serve, name):
    """Cut short, mistyped, or that of something else."""
    checks = examine(serve(healthy()).url, ANALYTICS_API_KEY=name)

    assert checks["key"]["status"] == "warning"
    assert checks.code == 0


def test_the_key_of_a_collector_has_the_form_of_a_key():
    """The doctor computes the check sum as the collector does."""
    assert doctor.is_well_formed(KEY)
    assert not doctor.is_well_formed(KEY.swapcase())


def test_a_short_key_is_not_shown_whole():
    """Twelve characters of a key of twelve would be all of it."""
    assert doctor.shown_key(KEY) == "ak_live_bpFu..."
    assert doctor.shown_key("secret") == "sec..."


def test_nobody_at_the_port_fails(examine, closed_port):
    """What needs a connection is not looked at then."""
    checks = examine(f"http://127.0.0.1:{closed_port}")

    assert checks.code == 1
    assert checks.statuses("dns", "tcp", "collector", "access", "clock") == [
        "ok",
        "failed",
        "skipped",
        "skipped",
        "skipped",
    ]
    assert "refused" in checks["tcp"]["message"]


def test_a_name_that_is_not_found_fails(examine):
    """With the name in the message."""
    checks = examine("http://collector.invalid")

    assert checks["dns"]["status"] == "failed"
    assert "collector.invalid" in checks["dns"]["message"]


def test_a_name_that_no_host_can_have_fails(examine):
    """An error of Python's own codec is an answer too."""
    checks = examine(f"http://{'a' * 70}.example")

    assert checks["dns"]["status"] == "failed"


def test_a_server_that_says_nothing_is_waited_for_as_long_as_is_said(examine):
    """--timeout holds for every step."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        checks = examine(f"http://127.0.0.1:{silent.getsockname()[1]}", "--timeout", "0.3")

    assert time.monotonic() - started < 10
    assert checks.statuses("tcp", "collector", "access") == ["ok", "failed", "skipped"]
    assert (
        "0.3 s" in checks["collector"]["message"] or "timed out" in checks["collector"]["message"]
    )


def test_a_server_that_drips_is_waited_for_no_longer(examine, collector, reply):
    """A byte now and then keeps every read short, and the whole for ever."""
    collector.always(reply.drip_header)
    started = time.monotonic()
    checks = examine(collector.url, "--timeout", "0.5")

    assert time.monotonic() - started < 10
    assert checks["access"]["status"] == "failed"


def test_a_server_that_speaks_no_http_fails(examine):
    """As a database does, say."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk():
            for _ in range(2):
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.sendall(b"220 mail.example ESMTP\r\n")

        thread = threading.Thread(target=talk)
        thread.start()
        checks = examine(f"http://127.0.0.1:{listener.getsockname()[1]}")
        thread.join()

    assert checks["collector"]["status"] == "failed"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (PORTAL, ("no collector", "login page of a network")),
        ((302, "", {"Location": "https://elsewhere.example/"}), ("elsewhere", "itself")),
        ((502, "<h1>Bad Gateway</h1>", {"Content-Type": "text/html"}), ("away", "Start")),
        ((401, "<h1>Login</h1>", {"Content-Type": "text/html"}), ("login", "without one")),
    ],
    ids=["portal", "redirect", "gateway", "login"],
)
def test_something_else_than_a_collector_is_recognised(examine, serve, answer, words):
    """A captive portal answers everything, and never saw an event. It gets no key."""
    web = serve({"GET": answer, "POST": answer})
    checks = examine(web.url)

    assert checks.code == 1
    assert checks["collector"]["status"] == "failed"
    assert words[0] in checks["collector"]["message"]
    assert words[1] in checks["collector"]["advice"]
    assert checks["access"]["status"] == "skipped"
    assert KEY not in str(web.asked)


def test_a_collector_of_which_only_the_address_of_events_is_public_will_do(examine, serve):
    """A warning says that its health is unknown."""
    missing = (404, "not here", {"Content-Type": "text/plain"})
    checks = examine(serve({**healthy(), "GET": missing}).url)

    assert checks.code == 0
    assert checks.statuses("collector", "access", "clock") == ["warning", "ok", "ok"]


@pytest.mark.parametrize("ahead_s", [7200, -7200])
def test_a_clock_that_is_wrong_is_told(examine, serve, ahead_s):
    """By how much, and which way."""
    web = serve(healthy())
    web.ahead_s = -ahead_s
    checks = examine(web.url)

    assert checks.code == 0
    assert checks["clock"]["status"] == "warning"
    assert checks["clock"]["facts"]["aheadS"] == pytest.approx(ahead_s, abs=10)
    assert ("ahead of" if ahead_s > 0 else "behind") in checks["clock"]["message"]


# Settings


def test_each_setting_is_told_with_its_origin(examine, serve, tmp_path):
    """What an option says wins over the environment."""
    url = serve(healthy()).url
    words = ("--spool-dir", str(tmp_path / "other"))
    checks = examine(url, *words, ANALYTICS_BATCH_SIZE="99", ANALYTICS_DENY_KEYS="b,a")

    settings = checks["settings"]["facts"]["settings"]
    assert settings["batch_size"] == {"value": 99, "origin": "environment"}
    assert settings["timeout_s"] == {"value": 10.0, "origin": "default"}
    assert settings["spool_dir"] == {"value": str(tmp_path / "other"), "origin": "option"}
    assert settings["deny_keys"] == {"value": ["a", "b"], "origin": "environment"}
    assert settings["api_url"] == {"value": url, "origin": "environment"}
    assert settings["api_key"] == {"value": f"{KEY[:12]}...", "origin": "environment"}


def test_wrong_settings_fail_all_at_once(examine):
    """Nothing can be looked at without them, but for what is installed."""
    checks = examine("", ANALYTICS_BATCH_SIZE="0")

    assert checks.code == 1
    assert len(checks["settings"]["facts"]["mistakes"]) == 2
    assert checks.statuses(*CHECKS) == ["ok", "failed"] + ["skipped"] * 8


@pytest.mark.parametrize(
    ("variable", "value"),
    [("ENABLED", "false"), ("SAMPLE_RATE", "0.5"), ("DEBUG", "true")],
)
def test_settings_that_keep_events_back_are_told(examine, serve, variable, value):
    """They are right, and perhaps forgotten."""
    checks = examine(serve(healthy()).url, **{f"ANALYTICS_{variable}": value})

    assert checks.code == 0
    assert checks["settings"]["status"] == "warning"
    assert variable.lower() in checks["settings"]["message"]


def test_a_switched_off_sdk_needs_neither_key_nor_address(examine):
    """There is nothing to look at then."""
    checks = examine("", ANALYTICS_ENABLED="false", ANALYTICS_API_KEY="")

    assert checks.code == 0
    assert set(checks.statuses("key", *network.CHECKS)) == {"skipped"}


# Proxies


def test_a_proxy_of_the_environment_is_where_the_way_goes_first(examine, serve, closed_port):
    """It is found out of order, not the collector."""
    url = serve(healthy()).url
    checks = examine(url, HTTP_PROXY="", http_proxy=f"http://127.0.0.1:{closed_port}")

    assert checks["tcp"]["status"] == "failed"
    assert f"the proxy 127.0.0.1:{closed_port}" in checks["tcp"]["message"]
    assert "NO_PROXY=127.0.0.1" in checks["tcp"]["advice"]


def test_the_way_past_a_proxy_is_taken_where_the_environment_says_so(examine, serve, closed_port):
    """As deliveries take it."""
    url = serve(healthy()).url
    variables = {"http_proxy": f"http://127.0.0.1:{closed_port}", "no_proxy": "127.0.0.1"}
    checks = examine(url, **variables)

    assert checks.code == 0
    assert checks["dns"]["facts"]["proxy"] is None


def test_a_proxy_that_wants_a_login_is_told(examine, serve):
    """407 comes from nobody else."""
    refusal = (407, "who are you?", {"Content-Type": "text/html"})
    web = serve({"GET": refusal, "POST": refusal})
    checks = examine("http://collector.example", http_proxy=web.url)

    assert checks["dns"]["facts"]["proxy"] == f"127.0.0.1:{web.port}"
    assert checks["collector"]["status"] == "failed"
    assert "HTTP_PROXY" in checks["collector"]["advice"]


def test_a_proxy_lets_the_doctor_through_to_a_collector(examine, serve):
    """The names are the proxy's business then."""
    web = serve(healthy())
    checks = examine("http://collector.invalid", http_proxy=web.url)

    assert checks.code == 0
    assert checks.statuses("dns", "tcp", "collector", "access") == ["ok"] * 4
    assert web.asked[0][1] == "http://collector.invalid/health"


def test_a_proxy_that_refuses_a_tunnel_is_told(examine, serve):
    """For https the proxy only passes bytes on, if it likes."""
    web = serve({"CONNECT": (403, "not there", {})})
    checks = examine("https://collector.example", https_proxy=web.url)

    assert checks.statuses("dns", "tcp", "tls", "collector") == ["ok", "ok", "skipped", "failed"]
    assert "403" in checks["collector"]["message"]


@pytest.mark.parametrize("proxy", ["ftp://127.0.0.1:1", "http://127.0.0.1:port"])
def test_a_proxy_that_nobody_understands_is_told(examine, serve, proxy):
    """The mistake is in the environment."""
    checks = examine(serve(healthy()).url, all_proxy=proxy)

    assert checks.code == 1
    assert "Traceback" not in checks.text


# TLS

YESTERDAY = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)
NEXT_WEEK = YESTERDAY + datetime.timedelta(days=8)


@pytest.fixture(scope="module")
def authority():
    return pytest.importorskip("trustme").CA()


@pytest.fixture
def trust(authority, tmp_path):
    """The way in which users say whom to trust."""
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return {"SSL_CERT_FILE": str(path)}


@pytest.fixture
def serve_tls(serve):
    """Start a collector that speaks TLS, and return its address."""

    def serve_tls(certificate, host="localhost"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        return f"https://{host}:{serve(healthy(), context).port}"

    return serve_tls


def test_a_good_certificate_is_good(examine, serve_tls, authority, trust):
    """And tells for how long."""
    checks = examine(serve_tls(authority.issue_cert("localhost")), **trust)

    assert checks.code == 0
    assert checks.statuses("tls", "collector", "access") == ["ok"] * 3
    assert checks["tls"]["facts"]["version"].startswith("TLSv1.")


def test_a_certificate_that_ends_soon_is_told(examine, serve_tls, authority, trust):
    """Before it is too late."""
    url = serve_tls(authority.issue_cert("localhost", not_after=NEXT_WEEK))
    checks = examine(url, **trust)

    assert checks.code == 0
    assert checks["tls"]["status"] == "warning"


@pytest.mark.parametrize(
    ("made", "advice"),
    [
        (lambda ours: ours.issue_cert("localhost", not_after=YESTERDAY), "Renew"),
        (lambda ours: ours.issue_cert("other.example"), "name"),
        (lambda ours: type(ours)().issue_cert("localhost"), "SSL_CERT_FILE"),
    ],
    ids=["expired", "other host", "unknown authority"],
)
def test_a_certificate_that_is_not_right_fails(examine, serve_tls, authority, trust, made, advice):
    """Three mistakes, three advices; the key is sent for none."""
    checks = examine(serve_tls(made(authority)), **trust)

    assert checks.code == 1
    assert checks.statuses("tls", "collector", "access") == ["failed", "skipped", "skipped"]
    assert advice in checks["tls"]["advice"]


def test_tls_to_a_plain_port_fails(examine, serve):
    """The scheme in the address is wrong."""
    checks = examine(serve(healthy()).url.replace("http:", "https:"))

    assert checks["tls"]["status"] == "failed"
    assert "http://" in checks["tls"]["advice"]


def test_plain_http_to_a_port_with_tls_fails(examine, serve_tls, authority):
    """The same the other way round."""
    checks = examine(serve_tls(authority.issue_cert("localhost")).replace("https:", "http:"))

    assert checks["collector"]["status"] == "failed"
    assert "https://" in checks["collector"]["advice"]


def test_an_address_of_the_internet_wants_tls():
    """At home and in a container network it is one's own decision."""
    hop = probe.Hop("collector.example", 80, is_proxy=False)
    public = network.check_tls("http://collector.example", hop, ["93.184.216.34"], 1)
    private = network.check_tls("http://collector.example", hop, ["10.0.0.7", "fe80::1%eth0"], 1)

    assert (public.status, private.status) == ("warning", "skipped")


# Answers, as the collector and others give them


def answered(status, content=None, **headers):
    body = json.dumps(content).encode() if content is not None else b"<html>"
    return probe.Reply(status, {name.lower(): value for name, value in headers.items()}, body, NOW)


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (answered(200, {"status": "ok", "version": "1"}), "ok"),
        (answered(200, {"status": "degraded", "version": "1"}), "warning"),
        (answered(503, {"status": "unavailable", "version": "1"}), "warning"),
        (answered(200, {"hello": "world"}), "warning"),
        (answered(404), "warning"),
        (answered(501), "warning"),
        (answered(204), "failed"),
        (answered(301, {"status": 7}), "failed"),
        (answered(200, ["ok"]), "failed"),
    ],
)
def test_health_is_judged(reply, status):
    """Only what surely is no collector is an error: the key decides."""
    assert network.judge_health(reply).status == status


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (answered(400, {"code": "EMPTY_BATCH"}), "ok"),
        (answered(400, {"code": "ANYTHING"}), "ok"),
        (answered(202, {"eventCount": 0}), "ok"),
        (answered(202, {"eventCount": True}), "failed"),
        (answered(200, {"code": "EMPTY_BATCH"}), "failed"),
        (answered(302, {"code": "EMPTY_BATCH"}), "failed"),
        (answered(401, {"code": "AUTH_FAILED"}), "failed"),
        (answered(401), "failed"),
        (answered(403, {"code": "INSUFFICIENT_SCOPE"}), "failed"),
        (answered(404), "failed"),
        (answered(405, {"code": "METHOD_NOT_ALLOWED"}), "failed"),
        (answered(407), "failed"),
        (answered(418), "failed"),
        (answered(429, {"code": "RATE_LIMITED"}), "warning"),
        (answered(503, {"code": "STORE_UNAVAILABLE"}), "warning"),
        (answered(503), "failed"),
    ],
)
def test_the_answer_to_an_empty_batch_is_judged(reply, status):
    """The key is looked at first, so any other complaint is a good sign."""
    check = network.judge_access(reply)

    assert check.status == status
    assert "None" not in check.message


@pytest.mark.parametrize(
    ("date", "status"),
    [
        ("Fri, 20 Nov 2026 10:00:00 GMT", "ok"),
        ("Fri, 20 Nov 2026 09:59:31 GMT", "ok"),
        ("Fri, 20 Nov 2026 09:59:00 GMT", "warning"),
        ("Fri, 20 Nov 2026 10:00:00 -0000", "ok"),
        ("Fri, 20 Nov 2026 10:02:00", "warning"),
        ("yesterday", "skipped"),
        ("", "skipped"),
    ],
)
def test_a_date_is_judged(date, status):
    """What nobody understands is no verdict."""
    assert network.judge_clock(answered(400, {}, Date=date)).status == status


def test_an_answer_without_a_date_is_no_verdict():
    """A server may have no clock."""
    assert network.judge_clock(answered(400, {})).status == "skipped"


# The spool


def test_a_spool_that_can_not_be_written_to_fails(examine, serve, tmp_path):
    """A file where the directory should be; even root can't write there."""
    (tmp_path / "file").write_text("")
    checks = examine(serve(healthy()).url, ANALYTICS_SPOOL_DIR=str(tmp_path / "file" / "spool"))

    assert checks.code == 1
    assert checks["spool"]["status"] == "failed"
    assert "ANALYTICS_SPOOL_DIR" in checks["spool"]["advice"]


def test_a_folder_that_others_can_read_fails(examine, serve, tmp_path):
    """The SDK would not use it."""
    folder = tmp_path / "spool" / folders.folder_name(KEY)
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    checks = examine(serve(healthy()).url)

    assert checks["spool"]["status"] == "failed"
    assert "700" in checks["spool"]["message"]


def test_looking_makes_no_folder(examine, serve, tmp_path):
    """The key may be wrong."""
    checks = examine(serve(healthy()).url)

    assert checks["spool"]["status"] == "ok"
    assert list(tmp_path.iterdir()) == []


def test_a_spool_that_is_off_is_told(examine, serve):
    """It is meant, and has a price."""
    checks = examine(serve(healthy()).url, ANALYTICS_SPOOL_MAX_BYTES="0")

    assert checks["spool"]["status"] == "warning"


def test_what_ended_programs_left_is_told(examine, serve, run_program, closed_port, tmp_path):
    """With the command that delivers it."""
    settings = {"ANALYTICS_API_KEY": KEY, "ANALYTICS_SPOOL_DIR": str(tmp_path / "spool")}
    left = run_program(
        "analytics.track('a')\nanalytics.shutdown(0)",
        **settings,
        ANALYTICS_API_URL=f"http://127.0.0.1:{closed_port}",
    )
    checks = examine(serve(healthy()).url)

    assert left.returncode == 0, left.stderr
    assert checks.code == 0
    assert checks["spool"]["status"] == "warning"
    assert checks["spool"]["facts"]["events"] == 1
    assert "spool flush" in checks["spool"]["advice"]


def waiting(tmp_path, **facts):
    facts = {"events": 1, "bytes": 200, "segments": 1, "held_segments": 1, **facts}
    age = datetime.timedelta(seconds=facts.pop("age_s", 0))
    return folders.FolderStatus(
        path=tmp_path, key_prefix="ak_live_bpFu", api_url="", oldest_at=NOW - age, **facts
    )


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        ({}, ""),
        ({"events": 0}, ""),
        ({"age_s": 600}, "10 minutes"),
        ({"age_s": 3 * 86_400}, "3 days"),
        ({"bytes": 950}, "spool_max_bytes"),
        ({"held_segments": 0}, "spool flush"),
        ({"held_segments": 0, "age_s": 28 * 86_400}, "expire after 30 days"),
    ],
)
def test_what_waits_is_judged(tmp_path, facts, word):
    """What a program has just put there is on its way."""
    check = doctor.judge_spool(waiting(tmp_path, **facts), 1000, NOW)

    assert check.status == ("warning" if word else "ok")
    assert word in check.message + check.advice
