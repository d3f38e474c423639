"""Random trees under random faults break no invariant, and planted bugs do."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from supervisor.testing.simulation import first_failure, main, run
from tests.unit.supervisor.core.planted_bugs import BUGS, stops_overlap

# Some ten seconds where two slow cores are busy with other things as well.
SEEDS = range(2000)
# Each planted bug is found by these; the rarest one needs two hundred.
BUG_SEEDS = range(1000)


def test_random_trees_under_random_faults_break_no_invariant() -> None:
    """Thousands of trees, with every step of every supervisor checked."""
    failure, runs = first_failure(SEEDS)

    assert failure is None, f"\n{failure}"
    assert runs == len(SEEDS)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_a_planted_bug_is_found(
    bug: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same seeds that the machine survives as it is find each of the bugs."""
    bug(monkeypatch)

    failure, _ = first_failure(BUG_SEEDS)

    assert failure is not None
    assert BUG_SEEDS.stop <= SEEDS.stop


def test_a_seed_repeats_its_run_step_by_step() -> None:
    """What failed once fails again in the same way."""
    assert [run(seed).transcript for seed in range(20)] == [
        run(seed).transcript for seed in range(20)
    ]


def test_a_failure_prints_its_seed_and_a_short_transcript(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Faults that are not needed for it are left out, and the command reproduces it by its seed."""
    stops_overlap(monkeypatch)
    failure, _ = first_failure(BUG_SEEDS)
    assert failure is not None

    code = main(["--seed", str(failure.seed)])

    assert code == 1
    assert capsys.readouterr().out.startswith(f"seed {failure.seed}: {failure.error}")


def test_the_command_says_how_much_it_has_run(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a failure it prints one line and succeeds."""
    code = main(["--count", "5"])

    assert code == 0
    assert capsys.readouterr().out.startswith("5 trees in ")


def test_the_command_ends_when_its_time_is_over(capsys: pytest.CaptureFixture[str]) -> None:
    """No further tree is begun after the seconds that it was given."""
    code = main(["--seconds", "0"])

    assert (code, capsys.readouterr().out[:8]) == (0, "0 trees ")
