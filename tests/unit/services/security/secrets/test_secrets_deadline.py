"""Deadlines of blocking calls."""

from __future__ import annotations

import asyncio
import threading

import pytest

from services.security.secrets.deadline import LEFT_BEHIND_MAX, Bounded
from services.security.secrets.errors import ProviderUnavailableError, SecretMissingError


def fail() -> None:
    """What a provider does that has no such secret."""
    raise SecretMissingError("gone")


def test_results_and_errors_come_back() -> None:
    """In both ways of calling."""
    bounded = Bounded("vault")

    assert bounded.run(lambda: 7, 5.0) == 7
    assert asyncio.run(bounded.call(lambda: 8, 5.0)) == 8
    with pytest.raises(SecretMissingError):
        bounded.run(fail, 5.0)
    with pytest.raises(SecretMissingError):
        asyncio.run(bounded.call(fail, 5.0))


def test_a_call_that_hangs_is_left_behind_and_few_may_be() -> None:
    """The caller gets an error in time; with too many hanging, the next one at once."""
    bounded, release = Bounded("vault"), threading.Event()
    for _ in range(LEFT_BEHIND_MAX):
        with pytest.raises(ProviderUnavailableError, match="did not answer in 0"):
            bounded.run(release.wait, 0.001)

    with pytest.raises(ProviderUnavailableError, match="earlier calls"):
        bounded.run(lambda: 7, 5.0)
    with pytest.raises(ProviderUnavailableError, match="earlier calls"):
        asyncio.run(bounded.call(lambda: 7, 5.0))

    release.set()
    for thread in threading.enumerate():
        if thread.name == "secrets-vault":
            thread.join(5.0)
    assert bounded.run(lambda: 7, 5.0) == 7
