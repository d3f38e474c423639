"""The cache of secrets: states over time, refreshing, and what it keeps."""

from __future__ import annotations

import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.security.secrets.cache import (
    JITTER_SHARE,
    RETRY_PAUSE_MAX_S,
    RETRY_PAUSE_S,
    SecretCache,
)
from services.security.secrets.errors import (
    ProviderUnavailableError,
    SecretDeniedError,
    SecretMissingError,
)
from services.security.secrets.model import SecretState
from services.security.secrets.provider import Secret
from services.security.secrets.reference import SecretName

NAME = SecretName("vault", "db")
AWAY = ProviderUnavailableError("away")
NOW_S = 1000.0


def cache(**changes: float) -> SecretCache:
    """A cache for one secret: refreshed after 100 s, stale for 500 s."""
    return SecretCache([NAME], **{"refresh_s": 100.0, "stale_s": 500.0, **changes})


def secret(value: str = "hush", version: str = "1", expires_s: float | None = None) -> Secret:
    """What a provider gave."""
    return Secret(value=value, version=version, expires_s=expires_s)


def test_a_value_is_kept_until_it_is_due() -> None:
    """Fresh, given back, and asked for again after the interval."""
    found = cache()
    assert found.due(NOW_S) == (NAME,)

    is_changed = found.put(NAME, secret(), now_s=NOW_S, chance=0.0)

    assert not is_changed
    assert found.value(NAME, now_s=NOW_S).value == "hush"
    assert found.view(NAME, now_s=NOW_S).state is SecretState.FRESH
    assert found.due(NOW_S + 99.9) == ()
    assert found.due(NOW_S + 100.0) == (NAME,)


@given(chance=st.floats(0, 1), life_s=st.floats(0.001, 10_000))
def test_the_next_question_comes_before_the_end(chance: float, life_s: float) -> None:
    """It is due within the interval, and by half of the life that is left."""
    found = cache()
    found.put(NAME, secret(expires_s=NOW_S + life_s), now_s=NOW_S, chance=chance)

    due_s = found.next_due_s()

    assert due_s is not None
    pause_s = due_s - NOW_S
    assert (1 - JITTER_SHARE) * min(100.0, life_s / 2) - 0.001 <= pause_s
    assert pause_s <= max(1.0, min(100.0, life_s / 2)) + 0.001


def test_a_change_is_told_once() -> None:
    """Another value is a change; another version of the same value is none."""
    found = cache()
    found.put(NAME, secret(), now_s=NOW_S, chance=0.0)

    assert not found.put(NAME, secret(version="2"), now_s=NOW_S, chance=0.0)
    assert found.put(NAME, secret("other", "3"), now_s=NOW_S + 1, chance=0.0)
    assert not found.put(NAME, secret("other", "3"), now_s=NOW_S + 2, chance=0.0)
    view = found.view(NAME, now_s=NOW_S + 2)
    assert (view.version, view.changed_s, view.confirmed_s) == ("3", NOW_S + 1, NOW_S + 2)


def test_a_stale_value_counts_for_a_bounded_time() -> None:
    """While the provider is away the last value is given, and no longer than configured."""
    found = cache()
    found.put(NAME, secret(), now_s=NOW_S, chance=0.0)
    found.fail(NAME, AWAY, now_s=NOW_S + 100, chance=0.0)

    assert found.view(NAME, now_s=NOW_S + 500).state is SecretState.STALE
    assert found.value(NAME, now_s=NOW_S + 500).value == "hush"
    assert found.view(NAME, now_s=NOW_S + 501).state is SecretState.EXPIRED
    with pytest.raises(ProviderUnavailableError, match="away"):
        found.value(NAME, now_s=NOW_S + 501)

    found.put(NAME, secret(), now_s=NOW_S + 502, chance=0.0)
    assert found.view(NAME, now_s=NOW_S + 502).state is SecretState.FRESH


def test_a_values_own_end_counts() -> None:
    """After its end a value is of no use, however fresh it is."""
    found = cache()
    found.put(NAME, secret(expires_s=NOW_S + 10), now_s=NOW_S, chance=0.0)

    assert found.value(NAME, now_s=NOW_S + 9.9).value == "hush"
    with pytest.raises(ProviderUnavailableError, match="its time is over"):
        found.value(NAME, now_s=NOW_S + 10)


def test_a_refusal_keeps_the_last_value() -> None:
    """A mistake in a policy does not stop a node that runs; it is not the same as being away."""
    found = cache()
    found.put(NAME, secret(), now_s=NOW_S, chance=0.0)
    found.fail(NAME, SecretDeniedError("denied"), now_s=NOW_S + 1, chance=0.0)

    view = found.view(NAME, now_s=NOW_S + 1)

    assert (view.state, view.reason) == (SecretState.FAILED, "denied")
    assert found.value(NAME, now_s=NOW_S + 1).value == "hush"


def test_pauses_double_up_to_a_limit() -> None:
    """A provider that is away is not asked ever faster."""
    found, pauses = cache(), []
    for _ in range(40):
        found.fail(NAME, AWAY, now_s=NOW_S, chance=0.0)
        pauses.append((found.next_due_s() or 0.0) - NOW_S)

    assert pauses[:3] == [RETRY_PAUSE_S, 2 * RETRY_PAUSE_S, 4 * RETRY_PAUSE_S]
    assert max(pauses) == RETRY_PAUSE_MAX_S


def test_what_was_never_read_says_why() -> None:
    """Before the first value there is none to fall back to."""
    found = cache()
    found.fail(NAME, AWAY, now_s=NOW_S, chance=0.0)

    assert found.view(NAME, now_s=NOW_S).state is SecretState.FAILED
    with pytest.raises(SecretMissingError, match="away"):
        found.value(NAME, now_s=NOW_S)
    with pytest.raises(SecretMissingError, match="not in the configuration"):
        found.value(SecretName("vault", "other"), now_s=NOW_S)


def test_a_fixed_value_is_asked_for_no_more() -> None:
    """What can't change is read once."""
    found = cache()
    found.put(NAME, secret(), now_s=NOW_S, chance=0.0)
    found.fix(NAME)

    assert found.due(NOW_S + 1e9) == ()
    assert found.next_due_s() is None
    assert found.view(NAME, now_s=NOW_S + 1e9).state is SecretState.FIXED


def test_no_plain_copy_is_kept() -> None:
    """No object that the cache holds has the value in it, nor does its text."""
    value = "correct-horse-battery-staple"
    found = cache()
    found.put(NAME, secret(value[:14] + value[14:]), now_s=NOW_S, chance=0.0)
    found.view(NAME, now_s=NOW_S)

    reached, seen = [found], set()
    while reached:
        it = reached.pop()
        if id(it) in seen or isinstance(it, type) or hasattr(it, "__globals__"):
            continue
        seen.add(id(it))
        assert value not in repr(it)
        assert not (isinstance(it, bytes) and value.encode() in it)
        reached += gc.get_referents(it)
