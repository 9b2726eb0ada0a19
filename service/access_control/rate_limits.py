"""Rate limits by client: one token bucket for each API key, or for each address where no key is needed.

A bucket is one number, the time at which it is full again (the generic cell rate algorithm), so the buckets of all
clients are a table of fixed size in memory that all worker processes share. A full table forgets the bucket that is
closest to full. A race between two processes may let one request too many through, which is harmless.
"""

import hashlib
import ipaddress
import math
import mmap
import os
import struct
import time

from service.errors import RateLimited

_CLIENTS = 65_536
_WAYS = 8  # buckets that a client may have; the others of its set belong to other clients
_NUMBERS = 2  # of a bucket: the client's fingerprint, and when the bucket is full again
_NUMBER_BYTES = 8
_IPV6_PREFIX = 64  # bits; one customer of a provider has at least so many addresses
_LONGEST_RETRY_AFTER_S = 3600


class RateLimits:
    """The token buckets of all clients. Create it before the workers are forked."""

    def __init__(self, per_s: float, burst: int | None = None, *, clients: int = _CLIENTS) -> None:
        """`burst` is the size of a bucket in requests; None: those of one second, at least one.

        Raises ValueError for limits that are not positive.
        """
        size = max(1, math.ceil(per_s)) if burst is None else burst
        if per_s <= 0 or size < 1 or clients < _WAYS:
            raise ValueError(f"per_s {per_s} and burst {size} must be positive, and clients {clients} at least {_WAYS}")
        self._interval_ns = max(1, round(1e9 / per_s))
        self._allowance_ns = (size - 1) * self._interval_ns
        self._sets = clients // _WAYS
        self._salt = os.urandom(16)  # so that no client can choose the set of another
        self._numbers = memoryview(mmap.mmap(-1, self._sets * _WAYS * _NUMBERS * _NUMBER_BYTES)).cast("q")

    def take(self, owner: str | None, address: str | None) -> None:
        """Take a token from the bucket of an API key's owner, or of an address. Raises RateLimited."""
        now = time.monotonic_ns()
        place = self._place(_fingerprint(owner, address, self._salt), now)
        full_at = max(self._numbers[place + 1], now)
        if full_at - now > self._allowance_ns:
            seconds = math.ceil((full_at - now - self._allowance_ns) / 1e9)
            raise RateLimited(
                "This client has sent more requests than its rate limit allows; send fewer, or wait.",
                retry_after_s=min(seconds, _LONGEST_RETRY_AFTER_S),
            )
        self._numbers[place + 1] = full_at + self._interval_ns

    def _place(self, fingerprint: int, now: int) -> int:
        """Return the index of a client's bucket; a client without one gets that which is closest to full."""
        start = fingerprint % self._sets * _WAYS * _NUMBERS
        places = range(start, start + _WAYS * _NUMBERS, _NUMBERS)
        for place in places:
            if self._numbers[place] == fingerprint:
                return place
        place = min(places, key=lambda one: self._numbers[one + 1])
        self._numbers[place], self._numbers[place + 1] = fingerprint, now
        return place


def make_rate_limits(per_s: float | None, burst: int | None) -> RateLimits | None:
    """Return new rate limits; None if there are none."""
    return None if per_s is None else RateLimits(per_s, burst)


def _fingerprint(owner: str | None, address: str | None, salt: bytes) -> int:
    name = f"key {owner}" if owner is not None else f"address {_network(address)}"
    (number,) = struct.unpack("q", hashlib.blake2b(name.encode(), digest_size=_NUMBER_BYTES, key=salt).digest())
    return int(number)


def _network(address: str | None) -> str | None:
    """Return the address whose bucket is used: of IPv6 the network of one customer."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((int(parsed), _IPV6_PREFIX), strict=False))
