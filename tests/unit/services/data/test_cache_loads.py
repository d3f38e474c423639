"""Who loads a key: one at a time, and nobody who is too late."""

from __future__ import annotations

from services.data.cache_loads import LOADS_MAX, Loads


def test_one_caller_loads_the_others_do_not() -> None:
    """Until it has ended."""
    loads = Loads("r")
    token = loads.begin("a", lease_s=5, now_s=0)

    assert token is not None
    assert loads.begin("a", lease_s=5, now_s=4.9) is None
    assert loads.left_s("a", 4.0) == 1.0
    assert loads.begin("b", lease_s=5, now_s=0) is not None
    assert loads.end("a", token)
    assert loads.begin("a", lease_s=5, now_s=1) is not None


def test_loader_that_is_late_is_still_taken_while_nobody_else_loads() -> None:
    """What it has is the newest that there is."""
    loads = Loads("r")
    token = loads.begin("a", lease_s=5, now_s=0)

    assert token is not None
    assert loads.active(6) == 0
    assert loads.end("a", token)
    assert not loads.end("a", token)


def test_loader_whose_lease_another_took_stores_nothing() -> None:
    """The number of the lease is the fence."""
    loads = Loads("r")
    first = loads.begin("a", lease_s=5, now_s=0)
    second = loads.begin("a", lease_s=5, now_s=5)

    assert first is not None
    assert second is not None
    assert not loads.end("a", first)
    assert loads.end("a", second)


def test_what_is_set_or_deleted_meanwhile_ends_the_load() -> None:
    """The value that is on its way is from before."""
    loads = Loads("r")
    token = loads.begin("a", lease_s=5, now_s=0)
    loads.revoke("a")

    assert token is not None
    assert not loads.end("a", token)


def test_token_of_an_earlier_process_is_none_of_ours() -> None:
    """Its numbers began at the same one."""
    old, new = Loads("r1"), Loads("r2")
    token = old.begin("a", lease_s=5, now_s=0)
    new.begin("a", lease_s=5, now_s=0)

    assert token is not None
    assert not new.end("a", token)


def test_loads_are_bounded_and_those_that_ended_make_room() -> None:
    """A caller without room loads by itself."""
    loads = Loads("r")
    for number in range(LOADS_MAX):
        loads.begin(str(number), lease_s=5 if number else 1, now_s=0)

    assert loads.begin("x", lease_s=5, now_s=0.5) is None
    assert loads.begin("x", lease_s=5, now_s=1.5) is not None
