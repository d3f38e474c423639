"""A minute of random kills at every level."""

from __future__ import annotations

import faulthandler
import json
import subprocess
import sys

import pytest

from tests.process.soak import ROOT

pytestmark = [pytest.mark.process, pytest.mark.slow]

SEED = 20_261_124


@pytest.mark.timeout(180)
def test_a_tree_survives_a_minute_of_random_kills() -> None:
    """Everything is repaired, and nothing is left: no zombie, orphan, descriptor or memory.

    Killed are, five times a second, the launcher, supervisors, services, programs and what
    programs put into sessions of their own; everything but the root.
    """
    faulthandler.cancel_dump_traceback_later()  # set for tests that take less than a minute
    # In a process of its own, which adopts what the tree might leave.
    command = [sys.executable, "-m", "tests.process.soak", "--seconds", "60", "--seed", str(SEED)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    outcome = json.loads(run.stdout)
    assert outcome["kills"] > 200
    assert outcome["zombies"] == outcome["orphans"] == outcome["left"] == []
    assert outcome["exit_code"] == 0
    early, late = outcome["descriptors"]
    assert late == early
    early_mib, late_mib = outcome["resident_mib"]
    assert late_mib < early_mib + 5  # the journal fills up to its 4,096 records
