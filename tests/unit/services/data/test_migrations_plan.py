"""Which migrations are left to do, and which databases are left alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from services.data.errors import MigrationChangedError, SchemaNewerError
from services.data.migrations import Applied, Migration, load, pending

KNOWN = tuple(Migration(n, f"step{n}", f"SELECT {n}") for n in (1, 2, 3))


def _applied(*numbers: int) -> tuple[Applied, ...]:
    return tuple(Applied(n, f"step{n}", Migration(n, "", f"SELECT {n}").checksum) for n in numbers)


@pytest.mark.parametrize(("applied", "left"), [((), 3), ((1,), 2), ((1, 2), 1), ((1, 2, 3), 0)])
def test_the_rest_is_pending_in_order(applied: tuple[int, ...], left: int) -> None:
    """What the database has is skipped, what follows is applied."""
    steps = pending(KNOWN, _applied(*applied))

    assert [step.version for step in steps] == [1, 2, 3][3 - left :]


def test_newer_schema_is_refused_with_both_numbers() -> None:
    """An older program never touches a newer database."""
    with pytest.raises(SchemaNewerError, match=r"version 4 .*up to 3") as caught:
        pending(KNOWN, (*_applied(1, 2, 3), Applied(4, "future", "00")))

    assert caught.value.fields["schema"] == 4


def test_changed_migration_is_refused_by_name() -> None:
    """A file that was changed after it had been applied is named."""
    applied = (*_applied(1), Applied(2, "step2", "ab" * 32))

    with pytest.raises(MigrationChangedError, match="0002_step2"):
        pending(KNOWN, applied)


def test_gap_is_refused() -> None:
    """A database that skipped a migration is not what any program left behind."""
    with pytest.raises(MigrationChangedError, match="never had migration 0002 but has 0003"):
        pending(KNOWN, _applied(1, 3))


def test_our_own_migrations_are_numbered_and_leave_transactions_to_the_program() -> None:
    """A script that commits would tear itself from its record."""
    steps = load()

    assert [step.version for step in steps] == list(range(1, len(steps) + 1))
    for step in steps:
        assert not re.search(r"\b(BEGIN|COMMIT|ROLLBACK)\s*;", step.script, re.IGNORECASE)


@pytest.mark.parametrize("name", ["1_short.sql", "0002_gap.sql", "0001_Upper.sql"])
def test_wrong_names_are_our_own_fault(tmp_path: Path, name: str) -> None:
    """The numbers begin with 0001 and have no gap."""
    (tmp_path / name).write_text("SELECT 1")

    with pytest.raises(ValueError, match=r"no name of a migration|not numbered"):
        load(tmp_path)
