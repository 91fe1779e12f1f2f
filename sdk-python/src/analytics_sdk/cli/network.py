"""Follow the way of a delivery to the collector and judge each step: name, port, TLS, answers.

Stores nothing there: an empty batch shows whether the key is accepted, and is refused behind that.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

from analytics_sdk._limits import MIN_CLOCK_SKEW_S
from analytics_sdk.batch import pack
from analytics_sdk.cli import probe
from analytics_sdk.cli.check import Check, reason_of, skipped
from analytics_sdk.config import Config
from analytics_sdk.transport import PATH

CHECKS: Final = ("dns", "tcp", "tls", "collector", "access", "clock")
GATEWAY_STATUSES: Final = (502, 503, 504)

CERTIFICATE_WARNING: Final = timedelta(days=14)
# OpenSSL's numbers for what is wrong with a certificate, as far as there is something to do.
NOT_YET_VALID, EXPIRED, NAME_DIFFERS, ADDRESS_DIFFERS = 9, 10, 62, 64
CERTIFICATE_ADVICE: Final = {
    NOT_YET_VALID: "Set the clock of this machine.",
    EXPIRED: "Renew the server's certificate; if it is new, set the clock of this machine.",
    NAME_DIFFERS: "Write a name that the certificate is for into api_url.",
    ADDRESS_DIFFERS: "Write a name that the certificate is for into api_url.",
}
OWN_AUTHORITY: Final = (
    "If the server's certificate comes from an authority of your own, set SSL_CERT_FILE to the "
    "file with that authority's certificate."
)
WRONG_PATH: Final = f"Correct api_url: it is the address before {PATH}."

REFUSALS: Final = {
    401: (
        "failed",
        "the collector does not know the key",
        "Copy your project's key on this collector again. If it is revoked or expired: "
        "`analytics-collector keys create --scope ingest` makes a new one.",
    ),
    402: (
        "failed",
        "the project has stored all the events that it may in this month",
        "The events wait. Raise the quota, or they go in the next month.",
    ),
    403: ("failed", "the key may not send events", "Use a key with the scope `ingest`."),
    404: ("failed", f"nobody takes events at POST {PATH}", WRONG_PATH),
    405: ("failed", f"nobody takes events at POST {PATH}", WRONG_PATH),
    429: (
        "warning",
        "the key is accepted, but sends too much at the moment",
        "The events wait as long as Retry-After says. If this lasts, raise the limit.",
    ),
}
AWAY: Final = ("warning", "the collector can't tell at the moment", "Look at its log.")


def check_network(settings: Config, timeout_s: float) -> Iterator[Check]:
    """Yield the checks of the way, as far as it leads; a step takes *timeout_s* at most."""
    if not (settings.api_url and settings.api_key):
        yield from (skipped(name, "there is no api_url or no api_key") for name in CHECKS)
        return
    left = list(CHECKS)
    for check in _steps(settings, timeout_s):
        left.remove(check.name)
        yield check
        if check.status == "failed" and check.name != "access":
            break
    yield from (skipped(name, "a step before failed") for name in left)


def _steps(settings: Config, timeout_s: float) -> Iterator[Check]:
    try:
        hop = probe.first_hop(settings.api_url)
    except ValueError as error:
        message = f"the proxy of the environment can't be understood: {error}"
        yield Check("dns", "failed", message, "Correct HTTP_PROXY, HTTPS_PROXY or ALL_PROXY.")
        return
    host = urlsplit(settings.api_url).hostname
    named, otherwise = str(hop), ""
    if hop.is_proxy:
        named, otherwise = f"the proxy {hop}", f" NO_PROXY={host} goes past the proxy."
    try:
        addresses = probe.look_up(hop.host, timeout_s)
    except probe.ERRORS as error:
        message = f"{hop.host} is not found: {reason_of(error)}"
        advice = f"Correct the name, or the DNS of this machine.{otherwise}"
        yield Check("dns", "failed", message, advice)
        return
    facts = {"addresses": addresses, "proxy": str(hop) if hop.is_proxy else None}
    yield Check("dns", "ok", f"{named} is at {', '.join(addresses)}", facts=facts)
    try:
        probe.connect(hop, timeout_s)
    except probe.ERRORS as error:
        message = f"{named} takes no connections: {reason_of(error)}"
        advice = f"Start the collector, correct the port, or open the firewall.{otherwise}"
        yield Check("tcp", "failed", message, advice)
        return
    yield Check("tcp", "ok", f"{named} takes connections")
    yield check_tls(settings.api_url, hop, addresses, timeout_s)
    yield from _check_answers(settings, timeout_s)


def check_tls(api_url: str, hop: probe.Hop, addresses: list[str], timeout_s: float) -> Check:
    """Judge TLS, or that there is none."""
    if api_url.startswith("https:"):
        if hop.is_proxy:
            return skipped("tls", "it begins behind the proxy; the next step needs it")
        return _check_certificate(hop, timeout_s)
    if not hop.is_proxy and any(map(_is_public, addresses)):
        message = "key and events cross the internet in clear"
        return Check("tls", "warning", message, "Use https:// in api_url.")
    return skipped("tls", "api_url has http://")


def _check_certificate(hop: probe.Hop, timeout_s: float) -> Check:
    try:
        handshake = probe.shake_hands(hop, timeout_s)
    except ssl.SSLCertVerificationError as error:
        message = f"the certificate of {hop} can't be trusted: {error.verify_message}"
        advice = CERTIFICATE_ADVICE.get(error.verify_code, OWN_AUTHORITY)
        return Check("tls", "failed", message, advice)
    except probe.ERRORS as error:
        message = f"{hop} does not speak TLS: {reason_of(error)}"
        advice = "Correct the port, or write http:// if the collector has no TLS."
        return Check("tls", "failed", message, advice)
    left = handshake.expires_at - datetime.now(timezone.utc)
    message = f"{handshake.version}, the certificate is good for {left.days} days"
    facts = {"version": handshake.version, "expiresAt": handshake.expires_at.isoformat()}
    if left < CERTIFICATE_WARNING:
        return Check("tls", "warning", message, "Renew the server's certificate.", facts)
    return Check("tls", "ok", message, facts=facts)


def _is_public(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_global


def _check_answers(settings: Config, timeout_s: float) -> Iterator[Check]:
    try:
        health = probe.ask("GET", f"{settings.api_url}/health", timeout_s, {})
    except probe.ERRORS as error:
        message = f"a request gets no answer: {reason_of(error)}"
        advice = "Look at what listens there; if that speaks TLS, write https:// into api_url."
        yield Check("collector", "failed", message, advice)
        return
    yield judge_health(health)
    headers = {"x-api-key": settings.api_key, "Content-Type": "application/json"}
    try:
        nothing = pack((), datetime.now(timezone.utc)).content
        reply = probe.ask("POST", settings.api_url + PATH, timeout_s, headers, nothing)
    except probe.ERRORS as error:
        message = f"POST {PATH} gets no answer: {reason_of(error)}"
        yield Check("access", "failed", message, "Look at the collector's log.")
        return
    yield judge_access(reply)
    yield judge_clock(reply)


def judge_health(reply: probe.Reply) -> Check:
    """Tell from the answer to GET /health whether a collector is there, and how it is."""
    version = reply.document.get("version")
    facts = {"httpStatus": reply.status, "version": version}
    match reply.document.get("status"):
        case "ok":
            return Check("collector", "ok", f"collector {version} is well", facts=facts)
        case "degraded":
            message = f"collector {version} takes events, but something it needs is away"
            advice = "Look at its log and its Redis; the events are safe, only later."
            return Check("collector", "warning", message, advice, facts)
        case "unavailable":
            message = f"collector {version} can't reach its database"
            advice = "Look at its log and its Postgres; the events wait meanwhile."
            return Check("collector", "warning", message, advice, facts)
    if (stranger := _stranger("collector", reply)) is not None:
        return stranger
    message = f"it does not tell how it is ({reply.status} for GET /health)"
    advice = f"Nothing, if something in between lets only POST {PATH} pass."
    return Check("collector", "warning", message, advice, facts)


def judge_access(reply: probe.Reply) -> Check:
    """Tell from the answer to an empty batch whether events with the key would be taken."""
    status, code = reply.status, reply.document.get("code")
    facts = {"httpStatus": status, "code": code}
    accepted = Check("access", "ok", "the key is accepted", facts=facts)
    if status == 202 and type(reply.document.get("eventCount")) is int:
        return accepted
    if (code is None or status < 400) and status not in (404, 405):
        message = f"this is no answer of a collector ({status})"
        return _stranger("access", reply) or Check("access", "failed", message, WRONG_PATH, facts)
    # The key is looked at first: any other complaint means that it was good.
    refusal = AWAY if status >= 500 else REFUSALS.get(status)
    if refusal is None:
        return accepted
    word, message, advice = refusal
    answered = f"{status}, {code}" if code else f"{status}"
    return Check("access", word, f"{message} ({answered})", advice, facts)


def _stranger(name: str, reply: probe.Reply) -> Check | None:
    """Return what is wrong if the answer is surely that of something else than a collector."""
    kind = reply.headers.get("content-type", "no content").partition(";")[0]
    match reply.status:
        case status if 300 <= status < 400:
            where = reply.headers.get("location", "nowhere")
            message = f"api_url redirects to {where}, and no redirect is followed"
            advice = "Write the address of the collector itself into api_url."
        case 407:
            message = "the proxy wants a login"
            advice = "Put it into HTTP_PROXY or HTTPS_PROXY: http://user:password@host:port."
        case _ if reply.document:
            return None
        case status if status in GATEWAY_STATUSES:
            message = "a proxy answers that what is behind it is away"
            advice = "Start the collector there."
        case 401 | 403:
            message = "something before the collector wants a login"
            advice = f"Let POST {PATH} pass without one: the key is the login."
        case status if status < 300:
            message = "something answers that is no collector"
            advice = (
                "Open api_url in a browser: this may be the login page of a network, or the port "
                "of another server."
            )
        case _:
            return None
    return Check(
        name, "failed", f"{message} ({reply.status}, {kind})", advice, {"httpStatus": reply.status}
    )


def judge_clock(reply: probe.Reply) -> Check:
    """Compare our clock with the date of an answer."""
    try:
        theirs = parsedate_to_datetime(reply.headers.get("date", ""))
    except (TypeError, ValueError, IndexError):
        return skipped("clock", "the answer has no date")
    if theirs.tzinfo is None:
        theirs = theirs.replace(tzinfo=timezone.utc)
    # A date has whole seconds: on average it is half a second late.
    ahead_s = (reply.asked_at - theirs).total_seconds() - 0.5
    facts = {"aheadS": round(ahead_s, 1)}
    if abs(ahead_s) <= MIN_CLOCK_SKEW_S:
        return Check("clock", "ok", "this clock and the collector's agree", facts=facts)
    where = "ahead of" if ahead_s > 0 else "behind"
    message = f"this clock is {abs(ahead_s):.0f} s {where} the collector's"
    advice = "Set the clock (NTP). Meanwhile the collector corrects the times of events."
    return Check("clock", "warning", message, advice, facts)
