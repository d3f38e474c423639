"""Many rows in one statement: each column is one parameter, an array that ``unnest`` takes apart.

psycopg's ``executemany`` sends a statement per row in libpq's pipeline mode, and when a deadline
or a stop cancels it there, both sides may wait for each other. One statement is one round trip, is
carried out or refused as a whole, and ends when it is told to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def unnest(types: str) -> str:
    """The expression that makes rows of arrays again.

    Args:
        types: of the columns, as ``text, bigint``.
    """
    return f"unnest({', '.join(f'%s::{name.strip()}[]' for name in types.split(','))})"


def columns(rows: Iterable[Sequence[object]]) -> list[list[object]]:
    """The parameters of ``unnest``, for at least one row; all rows are of one length.

    Raises:
        ValueError: they are not.
    """
    return [list(column) for column in zip(*rows, strict=True)]
