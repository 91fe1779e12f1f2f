"""The address of the client: of the connection, or what proxies that we trust say of it.

A proxy appends the address that it saw to `X-Forwarded-For`, so the list is true from its right
end for as many entries as there are proxies of our own; what stands before them anybody can write.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

from starlette.types import Scope

_MAX_CACHED = 4096
_IPV6_CUSTOMER_BITS = 64


def client_ip(scope: Scope, trusted_proxies: int) -> str | None:
    """Return the client's address behind *trusted_proxies* proxies of ours, in canonical form.

    None if it can't be known, as on a Unix socket without a proxy. A request that has passed
    fewer proxies than that came round them: the address of its connection counts.
    """
    peer = scope["client"]
    address = None if peer is None else _canonical(peer[0])
    if not trusted_proxies:
        return address
    hops = [
        hop
        for name, value in scope["headers"]
        if name == b"x-forwarded-for"
        for hop in value.split(b",")
    ]
    if len(hops) < trusted_proxies:
        return address
    return _canonical(hops[-trusted_proxies].decode("latin-1")) or address


def came_by_https(scope: Scope, trusted_proxies: int) -> bool:
    """Return whether the client's own connection was encrypted, as far as our proxies tell."""
    if scope["scheme"] == "https":
        return True
    return bool(trusted_proxies) and any(
        hop.strip().lower() == b"https"
        for name, value in scope["headers"]
        if name == b"x-forwarded-proto"
        for hop in value.split(b",")
    )


@lru_cache(_MAX_CACHED)
def network_of(address: str) -> str:
    """Return who is counted as one client: an IPv4 address, or the /64 of an IPv6 one.

    A customer is given at least a /64, and may change to another address in it with each request.
    """
    parsed = ip_address(address)
    if isinstance(parsed, IPv4Address):
        return address
    return str(IPv6Address(int(parsed) >> _IPV6_CUSTOMER_BITS << _IPV6_CUSTOMER_BITS)) + "/64"


@lru_cache(_MAX_CACHED)
def _canonical(text: str) -> str | None:
    """Return the address in *text*, which may carry a port as some proxies write it."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)
