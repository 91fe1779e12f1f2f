"""The client's address, and what a client can make of it."""

from __future__ import annotations

import pytest

from analytics_collector.http.peer import client_ip, network_of

PEER = "198.51.100.9"


def scope(*forwarded: str, peer: str | None = PEER):
    headers = [(b"x-forwarded-for", value.encode("latin-1")) for value in forwarded]
    return {"client": None if peer is None else (peer, 1234), "headers": headers}


def test_without_a_proxy_of_ours_nobody_is_believed():
    """Who talks to us directly can't be somebody else (SEC-20)."""
    assert client_ip(scope("203.0.113.1"), 0) == PEER


@pytest.mark.parametrize(
    ("forwarded", "proxies", "address"),
    [
        (["203.0.113.1"], 1, "203.0.113.1"),
        # What the client itself has written stands to the left of what our proxy saw.
        (["6.6.6.6, 203.0.113.1"], 1, "203.0.113.1"),
        (["6.6.6.6", "203.0.113.1"], 1, "203.0.113.1"),
        (["203.0.113.1, 10.0.0.7"], 2, "203.0.113.1"),
        (["6.6.6.6, 203.0.113.1, 10.0.0.7"], 2, "203.0.113.1"),
        (["6.6.6.6, 6.6.6.6, 203.0.113.1,10.0.0.7"], 2, "203.0.113.1"),
    ],
)
def test_behind_proxies_the_address_is_the_one_that_the_first_of_them_saw(
    forwarded, proxies, address
):
    """A sidecar or two hops: counted from the right, where only our own proxies write (SEC-20)."""
    assert client_ip(scope(*forwarded), proxies) == address


@pytest.mark.parametrize("forwarded", [[], ["6.6.6.6"], ["6.6.6.6"]])
def test_who_comes_round_the_proxies_is_who_he_is(forwarded):
    """A list that is too short did not pass them all, so it is the client's own (SEC-20)."""
    assert client_ip(scope(*forwarded), 2) == PEER


@pytest.mark.parametrize("text", ["unknown", "", "' or 1=1 --", "1.2.3.4.5", "\xff", "a" * 5000])
def test_what_is_no_address_is_ignored(text):
    """A proxy that hides its client leaves us the proxy."""
    assert client_ip(scope(text), 1) == PEER


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("203.0.113.1:4711", "203.0.113.1"),
        ("[2001:DB8::1]:4711", "2001:db8::1"),
        ("2001:db8:0::1", "2001:db8::1"),
        ("::ffff:203.0.113.1", "203.0.113.1"),
        ("fe80::1%eth0", "fe80::1"),
    ],
)
def test_an_address_has_one_form(text, address):
    """To write the same address otherwise does not make another client."""
    assert client_ip(scope(text), 1) == address


def test_a_unix_socket_has_no_address_but_what_its_proxy_says():
    """Who may connect to the socket is trusted."""
    assert client_ip(scope(peer=None), 0) is None
    assert client_ip(scope("203.0.113.1", peer=None), 1) == "203.0.113.1"


def test_a_customer_of_ipv6_is_one_client_with_all_its_addresses():
    """A /64 is the least that anybody has, so changing the address in it changes nothing."""
    assert network_of("2001:db8:0:7:1::1") == network_of("2001:db8:0:7:ffff:2:3:4")
    assert network_of("2001:db8:0:7::1") != network_of("2001:db8:0:8::1")
    assert network_of("203.0.113.1") != network_of("203.0.113.2")
