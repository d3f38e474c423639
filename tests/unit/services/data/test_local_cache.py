"""The cache in memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.data.local_cache import ENTRY_OVERHEAD_BYTES, LocalCache

SOME = 4 * ENTRY_OVERHEAD_BYTES


def test_value_is_there_until_it_ends() -> None:
    """At its end it is gone, and no longer counted."""
    cache = LocalCache(entries_max=4, bytes_max=SOME)
    cache.set("a", b"1", ttl_s=10, now_s=0)

    assert cache.get("a", 9.9) == b"1"
    assert cache.get("a", 10.0) is None
    assert cache.statistics().entries == 0


def test_what_was_used_longest_ago_gives_way() -> None:
    """Reading counts as use."""
    cache = LocalCache(entries_max=2, bytes_max=SOME)
    cache.set("a", b"1", ttl_s=10, now_s=0)
    cache.set("b", b"2", ttl_s=10, now_s=0)
    cache.get("a", 1)

    cache.set("c", b"3", ttl_s=10, now_s=1)

    assert [cache.get(key, 1) for key in "abc"] == [b"1", None, b"3"]
    assert cache.statistics().evictions == 1


def test_value_over_the_whole_bound_is_not_kept_and_evicts_nothing() -> None:
    """It replaces an earlier value of its key by nothing."""
    cache = LocalCache(entries_max=4, bytes_max=SOME)
    cache.set("a", b"1", ttl_s=10, now_s=0)
    cache.set("b", b"2", ttl_s=10, now_s=0)

    cache.set("b", b"x" * SOME, ttl_s=10, now_s=0)

    assert cache.get("a", 1) == b"1"
    assert cache.get("b", 1) is None


def test_value_that_has_ended_may_be_kept_as_a_stale_one() -> None:
    """It is no fresh one any more, and gone after its second time."""
    cache = LocalCache(entries_max=4, bytes_max=SOME)
    cache.set("a", b"1", ttl_s=10, stale_s=5, now_s=0)

    assert cache.get("a", 10) is None
    assert cache.get_stale("a", 14.9) == b"1"
    assert cache.get_stale("a", 15) is None
    assert cache.statistics().entries == 0


def test_prefix_is_forgotten_as_a_whole() -> None:
    """And nothing beside it."""
    cache = LocalCache(entries_max=4, bytes_max=SOME)
    for key in ("s:a", "s:b", "n:s:a"):
        cache.set(key, b"1", ttl_s=10, now_s=0)

    cache.delete_prefix("s:")

    assert [key for key, _value, _left in cache.items(1)] == ["n:s:a"]


def test_small_entries_are_counted_with_what_is_around_them() -> None:
    """Many empty values must not take more memory than the bound says."""
    cache = LocalCache(entries_max=10_000, bytes_max=SOME)
    for number in range(100):
        cache.set(f"{number}", b"", ttl_s=10, now_s=0)

    assert cache.statistics().entries == 3


def test_deleting_tells_whether_there_was_something() -> None:
    """Once yes, then no."""
    cache = LocalCache(entries_max=4, bytes_max=SOME)
    cache.set("a", b"1", ttl_s=10, now_s=0)

    assert cache.delete("a")
    assert not cache.delete("a")


BOUND = 2 * ENTRY_OVERHEAD_BYTES + 24  # room for two, seldom for three
_STEPS = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.binary(max_size=12), st.floats(0.1, 5), st.booleans()),
    max_size=60,
)


@given(_STEPS)
def test_bounds_hold_and_live_values_are_the_last_ones_set(
    steps: list[tuple[str, bytes, float, bool]],
) -> None:
    """Never more entries or bytes than allowed, never an older value than the last one set."""
    cache = LocalCache(entries_max=3, bytes_max=BOUND)
    last: dict[str, bytes] = {}

    for number, (key, value, ttl_s, is_delete) in enumerate(steps):
        if is_delete:
            cache.delete(key)
            last.pop(key, None)
        else:
            cache.set(key, value, ttl_s=ttl_s, now_s=number)
            last[key] = value

        held = list(cache.items(number))
        statistics = cache.statistics()
        assert statistics.entries <= 3
        assert statistics.size_bytes <= BOUND
        assert sum(len(k) + len(v) for k, v, _ in held) <= statistics.size_bytes
        assert all(last[k] == v and remaining > 0 for k, v, remaining in held)
