"""Actions past the node are recorded before they happen, or do not happen."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.ctl.db_audit import recorded
from services.ctl.errors import CtlError
from supervisor.guard import spool
from supervisor.guard.spool import SpoolRecord


def records(state: Path) -> list[SpoolRecord]:
    """What the security process will find."""
    listing = spool.list_files(state / "security" / "spool")
    assert not listing.foreign
    return [record for file in listing.files for record in spool.read(file, offset=0).records]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The state directory of a node that has run."""
    (tmp_path / "security").mkdir(mode=0o700)
    return tmp_path


def test_an_action_is_recorded_before_and_after(state: Path) -> None:
    """The request is there while the block runs; the end follows."""
    with recorded(state, "db.restore", "novacron", file="/b.dump"):
        (requested,) = records(state)
        assert (requested.action, requested.subject) == ("db.restore", "novacron")
        assert requested.actor.startswith("operator/")
        assert requested.fields == {"file": "/b.dump"}
        assert requested.outcome == "requested"
    assert [record.outcome for record in records(state)] == ["requested", "success"]


@pytest.mark.parametrize(
    ("error", "code"), [(CtlError("no"), "ctl.failed"), (KeyboardInterrupt(), "KeyboardInterrupt")]
)
def test_a_failure_is_recorded(state: Path, error: BaseException, code: str) -> None:
    """Whatever ends the block is named, and goes on to whoever is to see it."""
    with pytest.raises(type(error)), recorded(state, "db.discard", "old"):
        raise error
    last = records(state)[-1]
    assert (last.outcome, last.fields) == ("failure", {"code": code})


def test_what_can_not_be_recorded_is_not_done(state: Path) -> None:
    """With something else in the spool's place, the block does not run."""
    (state / "security" / "spool").write_text("in the way")
    done = []
    with pytest.raises(CtlError, match="nothing was done"), recorded(state, "db.migrate", "x"):
        done.append(1)
    assert done == []


def test_without_a_node_there_is_nothing_to_record_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where no node has run the action goes on, and it is said that nothing keeps it."""
    with recorded(tmp_path, "db.restore", "novacron"):
        pass
    assert "not recorded" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
