"""What is kept of an IP address. Pure."""

from __future__ import annotations

import hmac
from datetime import datetime
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, Literal

IpHandling = Literal["full", "truncate", "hash", "drop"]

_MAX_CHARS: Final = 64
_KEPT_BITS: Final = {4: 24, 6: 48}
_HASH_CHARS: Final = 32


@lru_cache(maxsize=8192)
def parse_address(value: str) -> IPv4Address | IPv6Address | None:
    """Return the address that *value* means, with a port or brackets or without, or None."""
    host = value.strip()
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        address = ip_address(host)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def kept_address(value: str, handling: IpHandling, secret: bytes, at: datetime) -> str | None:
    """Return what *handling* keeps of the address *value*; None is nothing.

    `truncate` keeps the network, /24 or /48, and nothing of what is no address. `hash` keeps an
    HMAC under a key of the day of *at*, in UTC: the same address is the same within the day and
    cannot be followed from one day to the next. Whoever has the *secret* can find the address by
    trying all there are.
    """
    if handling == "full":
        return value
    if handling == "drop" or len(value) > _MAX_CHARS:
        return None
    return _network(value) if handling == "truncate" else _hashed(value, secret, at.toordinal())


@lru_cache(maxsize=8192)
def _network(value: str) -> str | None:
    address = parse_address(value)
    if address is None:
        return None
    cut = address.max_prefixlen - _KEPT_BITS[address.version]
    return str(type(address)(int(address) >> cut << cut))


@lru_cache(maxsize=8192)
def _hashed(value: str, secret: bytes, day: int) -> str:
    daily_key = hmac.digest(secret, b"ip address of day %d" % day, "sha256")
    text = str(parse_address(value) or value)
    return "hmac:" + hmac.digest(daily_key, text.encode(), "sha256").hex()[:_HASH_CHARS]
