"""Kill -9 in the middle of writes: what was acknowledged is there, what was refused is not."""

from __future__ import annotations

import pytest

from tests.bench.soak_data import soaking
from tests.fixtures.fix_postgres import postgres_programs

pytestmark = [pytest.mark.postgres, pytest.mark.process, pytest.mark.slow]

KILLS = 12


@pytest.mark.timeout(180)
@pytest.mark.skipif(postgres_programs() is None, reason="PostgreSQL is not installed")
def test_no_acknowledged_write_is_lost_to_random_kills() -> None:
    """A dozen kills of postmaster, backends, service and supervisor; 1000 are in the benchmark."""
    with soaking() as soak:
        outcome = soak.run(KILLS, seed=1)

    assert outcome.kills.total() == KILLS
    assert outcome.acknowledged > KILLS
    assert (outcome.lost, outcome.undead, outcome.twice) == (0, 0, 0), outcome
