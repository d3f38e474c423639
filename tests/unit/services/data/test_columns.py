"""Rows as columns, for one statement that takes them all."""

from __future__ import annotations

import pytest

from services.data.columns import columns, unnest


def test_columns_keep_order_and_nothing() -> None:
    """Each column is one list, in the rows' order, with None where there was None."""
    assert columns([(1, "a"), (2, None)]) == [[1, 2], ["a", None]]


def test_rows_of_different_lengths_are_refused() -> None:
    """A value that would slip into another column is a fault of the caller."""
    with pytest.raises(ValueError, match="shorter"):
        columns([(1, "a"), (2,)])


def test_each_type_is_one_parameter() -> None:
    """The expression has an array of each type."""
    assert unnest("text, double precision") == "unnest(%s::text[], %s::double precision[])"
