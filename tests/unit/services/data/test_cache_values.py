"""Cached values as they are stored, the limits of requests, and messages between nodes."""

from __future__ import annotations

import json

import pytest

from services.data.cache_records import (
    KEY_LENGTH_MAX,
    VALUE_BYTES_MAX,
    GetRequest,
    Scope,
    SetRequest,
    check_get,
    check_key,
    check_set,
)
from services.data.cache_shared import changed_key
from services.data.cache_values import ABSENT, MISS, local_key, to_blob, to_load, to_reply, verdict
from services.data.errors import CacheLimitError


@pytest.mark.parametrize("value", [None, 0, "", [], {"a": b"\x00"}, "ä"])
def test_value_comes_back_and_nothing_is_told_from_none(value: object) -> None:
    """None is a value like another."""
    reply = to_reply(to_blob(SetRequest(key="k", value=value)))

    assert (reply.found, reply.value, reply.is_absent) == (True, value, False)


def test_absence_is_known_and_has_no_value() -> None:
    """Whatever stands beside it."""
    reply = to_reply(to_blob(SetRequest(key="k", value="x", is_absent=True)), is_stale=True)

    assert (reply.found, reply.value, reply.is_absent) == (False, None, True)
    assert reply.is_stale


@pytest.mark.parametrize("blob", [b"", b"\x01", b"\x01\xc1", b"\x02\x01", b"\x00\x01"])
def test_what_is_no_value_counts_as_none(blob: bytes) -> None:
    """Somebody else wrote it; a caller gets no error."""
    reply = to_reply(blob)

    assert not reply.found
    assert not reply.is_absent


def test_loader_gets_what_is_known_beside_the_order_to_load() -> None:
    """A known absence whose time has ended is nothing to rest on."""
    stale = to_load(to_reply(to_blob(SetRequest(key="k", value=1)), is_stale=True), "t")
    absent = to_load(to_reply(ABSENT, is_stale=True), "t")

    assert (stale.value, stale.is_stale, stale.load) == (1, True, "t")
    assert (absent.is_absent, absent.load) == (False, "t")


def test_each_answer_has_its_name_in_the_metrics() -> None:
    """One per get."""
    blob = to_blob(SetRequest(key="k", value=1))
    replies = [to_reply(blob), to_reply(blob, is_stale=True), to_reply(ABSENT), MISS]

    names = [verdict(reply) for reply in (*replies, to_load(MISS, "t"))]

    assert names == ["hit", "stale", "absent", "miss", "load"]


def test_scopes_do_not_meet_in_memory() -> None:
    """Whatever the keys are."""
    names = {local_key(key, scope) for key in ("k", "s:k", "n:k") for scope in Scope}

    assert len(names) == 6


def test_limits_are_inclusive() -> None:
    """What is just within them passes."""
    check_key("k" * KEY_LENGTH_MAX)
    check_get(GetRequest(key="k", load_s=60, wait_s=30))
    check_set(SetRequest(key="k", ttl_s=86_400, stale_s=86_400), VALUE_BYTES_MAX)

    with pytest.raises(CacheLimitError, match="257 characters"):
        check_key("k" * (KEY_LENGTH_MAX + 1))
    with pytest.raises(CacheLimitError, match=f"at most {VALUE_BYTES_MAX}"):
        check_set(SetRequest(key="k"), VALUE_BYTES_MAX + 1)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -1.0])
def test_numbers_that_are_no_times_are_refused(number: float) -> None:
    """NaN compares with nothing and must not pass for it."""
    with pytest.raises(CacheLimitError):
        check_get(GetRequest(key="k", load_s=number))
    with pytest.raises(CacheLimitError):
        check_set(SetRequest(key="k", ttl_s=number), 1)
    with pytest.raises(CacheLimitError):
        check_set(SetRequest(key="k", stale_s=number), 1)


@pytest.mark.parametrize(
    ("message", "key"),
    [
        (json.dumps({"key": "k", "from": "b"}).encode(), "k"),
        (json.dumps({"key": "k", "from": "a"}).encode(), None),
        (b"", None),
        (b"{", None),
        (b"[]", None),
        (b"7", None),
        (b"\xff", None),
        (json.dumps({"key": 1, "from": "b"}).encode(), None),
        (json.dumps({"from": "b"}).encode(), None),
        (3, None),
    ],
)
def test_message_names_a_key_or_is_left_alone(message: object, key: str | None) -> None:
    """Anybody with access to Redis can publish anything; our own we know."""
    assert changed_key(message, "a") == key
