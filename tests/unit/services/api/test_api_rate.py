"""The rate limit's arithmetic and its bounds."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.api.rate import RateLimiter, client_of


def test_a_minute_s_requests_may_come_at_once() -> None:
    """As many requests as a minute allows pass in one burst, and not one more."""
    limiter = RateLimiter(60)

    granted = [limiter.take("a", now_s=0.0).is_granted for _ in range(61)]

    assert granted == [True] * 60 + [False]


def test_refusal_says_how_long_to_wait_and_means_it() -> None:
    """A request after the named seconds passes; a second earlier it does not."""
    limiter = RateLimiter(6)
    for _ in range(6):
        limiter.take("a", now_s=0.0)

    permit = limiter.take("a", now_s=0.0)

    assert permit.retry_after_s == 10
    assert not limiter.take("a", now_s=9.0).is_granted
    assert limiter.take("a", now_s=10.0).is_granted


def test_clients_do_not_share() -> None:
    """One client's flood costs another nothing."""
    limiter = RateLimiter(1)
    limiter.take("a", now_s=0.0)

    assert not limiter.take("a", now_s=0.0).is_granted
    assert limiter.take("b", now_s=0.0).is_granted


def test_a_clock_that_runs_backwards_adds_nothing() -> None:
    """Tokens come from time that passed."""
    limiter = RateLimiter(1)
    limiter.take("a", now_s=100.0)

    assert not limiter.take("a", now_s=0.0).is_granted
    assert not limiter.take("a", now_s=100.0).is_granted


def test_table_is_bounded_and_forgets_the_longest_unseen() -> None:
    """At the limit the client unseen for longest goes; the busy one stays limited."""
    limiter = RateLimiter(1, clients_max=2)
    limiter.take("old", now_s=0.0)
    limiter.take("busy", now_s=1.0)
    limiter.take("old2", now_s=2.0)
    limiter.take("busy", now_s=3.0)
    limiter.take("new", now_s=4.0)

    assert limiter.clients() == 2
    assert not limiter.take("busy", now_s=5.0).is_granted


@given(
    limit=st.integers(1, 2000),
    steps=st.lists(st.floats(0, 30, allow_nan=False), min_size=1, max_size=200),
)
def test_never_more_than_a_burst_and_the_refill(limit: int, steps: list[float]) -> None:
    """In any run, what was granted is at most one bucket plus what has flowed in since."""
    limiter = RateLimiter(limit)
    now_s, granted = 0.0, 0

    for step_s in steps:
        now_s += step_s
        granted += limiter.take("a", now_s=now_s).is_granted

    assert granted <= math.floor(limit + now_s * limit / 60 + 1e-6)


@given(limit=st.integers(1, 2000), taken=st.integers(0, 3000))
def test_retry_after_is_enough(limit: int, taken: int) -> None:
    """Whoever waits as long as told is served."""
    limiter = RateLimiter(limit)
    for _ in range(taken):
        limiter.take("a", now_s=0.0)

    permit = limiter.take("a", now_s=0.0)

    assert limiter.take("a", now_s=float(permit.retry_after_s)).is_granted or permit.is_granted


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unix", "unix"),
    ],
)
def test_client_of(address: str, client: str) -> None:
    """An IPv6 subscriber is one client whatever address of the network is used."""
    assert client_of(address) == client
