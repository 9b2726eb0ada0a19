"""Token buckets: a burst, then a steady rate for each client, in a table that no number of clients makes larger."""

import os
import time

import pytest

from service.access_control.rate_limits import RateLimits, make_rate_limits
from service.errors import RateLimited


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.ns = 10**18

    def forward(self, seconds: float) -> None:
        self.ns += round(seconds * 1e9)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic_ns", lambda: clock.ns)
    return clock


def taken(limits: RateLimits, tries: int, address: str = "192.0.2.1", owner: str | None = None) -> int:
    """Return how many of so many requests get a token."""
    count = 0
    for _ in range(tries):
        try:
            limits.take(owner, address)
        except RateLimited:
            continue
        count += 1
    return count


def test_a_burst_is_followed_by_the_steady_rate(clock: Clock) -> None:
    limits = RateLimits(2, burst=5)
    assert taken(limits, 10) == 5
    clock.forward(0.49)
    assert taken(limits, 10) == 0
    clock.forward(0.02)
    assert taken(limits, 10) == 1
    clock.forward(1.5)
    assert taken(limits, 10) == 3
    clock.forward(1000)
    assert taken(limits, 10) == 5  # a bucket never holds more than it holds


@pytest.mark.parametrize(("per_s", "burst"), [(0.5, 1), (1, 1), (1.5, 2), (20, 20)])
def test_the_default_burst_is_what_comes_in_a_second(clock: Clock, per_s: float, burst: int) -> None:
    assert taken(RateLimits(per_s), 100) == burst


def test_a_refusal_names_the_seconds_until_the_next_request_is_taken(clock: Clock) -> None:
    limits = RateLimits(0.1, burst=1)
    limits.take(None, "192.0.2.1")
    clock.forward(2.5)
    with pytest.raises(RateLimited) as refused:
        limits.take(None, "192.0.2.1")
    assert refused.value.retry_after_s == 8
    clock.forward(8)
    limits.take(None, "192.0.2.1")


def test_refused_requests_do_not_make_the_wait_longer(clock: Clock) -> None:
    limits = RateLimits(1, burst=1)
    assert taken(limits, 1000) == 1
    clock.forward(1)
    assert taken(limits, 1) == 1


def test_each_client_has_its_own_bucket(clock: Clock) -> None:
    limits = RateLimits(1, burst=2)
    assert taken(limits, 5, "192.0.2.1") == taken(limits, 5, "192.0.2.2") == 2
    assert taken(limits, 5, "192.0.2.1", owner="anna") == 2  # the key counts, whatever the address
    assert taken(limits, 5, "192.0.2.9", owner="anna") == 0
    assert taken(limits, 5, "192.0.2.1", owner="192.0.2.1") == 2  # a name that looks like an address is none


def test_addresses_of_one_ipv6_network_share_a_bucket(clock: Clock) -> None:
    limits = RateLimits(1, burst=1)
    assert taken(limits, 1, "2001:db8:1:2::1") == 1
    assert taken(limits, 1, "2001:db8:1:2:ffff::9") == 0
    assert taken(limits, 1, "2001:db8:1:3::1") == 1


def test_an_ipv4_address_in_the_form_of_ipv6_is_the_same_client(clock: Clock) -> None:
    limits = RateLimits(1, burst=1)
    assert taken(limits, 1, "192.0.2.1") == 1
    assert taken(limits, 1, "::ffff:192.0.2.1") == 0
    assert taken(limits, 1, "::ffff:192.0.2.2") == 1


def test_a_full_table_forgets_the_client_that_is_closest_to_a_full_bucket(clock: Clock) -> None:
    limits = RateLimits(1, burst=2, clients=8)
    assert taken(limits, 2, "192.0.2.1") == 2  # the fullest use
    for number in range(2, 10):
        assert taken(limits, 1, f"192.0.2.{number}") == 1
    assert taken(limits, 2, "192.0.2.1") == 0


def test_any_number_of_clients_fits_and_the_table_stays_as_it_is(clock: Clock) -> None:
    limits = RateLimits(1, burst=1)
    size = limits._numbers.nbytes
    assert size == 1024 * 1024
    assert all(taken(limits, 1, f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}") for n in range(70_000))
    assert limits._numbers.nbytes == size


def test_processes_share_the_buckets() -> None:
    limits = RateLimits(0.001, burst=3)
    pid = os.fork()
    if pid == 0:
        os._exit(taken(limits, 2))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2
    assert taken(limits, 5) == 1


def test_a_client_without_an_address_has_a_bucket_too(clock: Clock) -> None:
    limits = RateLimits(1, burst=1)
    limits.take(None, None)
    with pytest.raises(RateLimited):
        limits.take(None, None)


def test_limits_that_make_no_sense_are_refused() -> None:
    for per_s, burst in ((0.0, 1), (-1.0, 1), (1.0, 0)):
        with pytest.raises(ValueError, match="must be positive"):
            RateLimits(per_s, burst)
    assert make_rate_limits(None, 5) is None
