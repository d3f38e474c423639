"""Keys on the screen."""

from __future__ import annotations

from dataclasses import replace

from services.ctl.keyview import render_job, render_keys, render_status
from services.ctl.styled import to_plain
from services.security.keys.keyset import KeyState
from services.security.keys.model import JobStatus, KeyInfo, KeyList, KeysStatus

STATUS = KeysStatus(
    active="a" * 16,
    active_since_s=1000.0,
    rotates_s=87400.0,
    reserved=65536,
    uses_max=1 << 28,
    counts={"active": 1, "retired": 2},
    generation=9,
    mirrored=9,
    master_id="b" * 16,
    master_source="file",
    master_place="master.key",
    backed_up_s=1000.0,
)


def test_keys_are_a_table_with_what_may_be_removed() -> None:
    """States, counts, and values whose key is not here."""
    keys = (
        KeyInfo(id="1" * 16, state=KeyState.RETIRED, created_s=0.0, is_removable=True),
        KeyInfo(id="2" * 16, state=KeyState.ACTIVE, created_s=0.0, values=12),
    )
    lines = [
        to_plain(line)
        for line in render_keys(KeyList(keys=keys, unknown={"f" * 16: 3}), now_s=60.0, width=100)
    ]

    assert "retired" in lines[1]
    assert "may be removed" in lines[1]
    assert "12" in lines[2]
    assert lines[3] == f"3 values are sealed with {'f' * 16}, which is not here"


def test_the_status_says_what_an_operator_has_to_do() -> None:
    """A missing backup, an old master key, trouble and a due rotation are told."""
    fine = "\n".join(to_plain(line) for line in render_status(STATUS, now_s=2000.0))
    changed = replace(
        STATUS, backed_up_s=None, has_old_master=True, trouble="the disk is full", mirrored=8
    )
    bad = "\n".join(to_plain(line) for line in render_status(changed, now_s=90000.0))

    assert "in the database: current" in fine
    assert "trouble" not in fine
    for text in ("a new one is due", "keys backup", "is kept", "the disk is full", "8 so far"):
        assert text in bad


def test_the_job_is_a_line() -> None:
    """Done, left, unreadable, and why it waits."""
    job = JobStatus(moved=5, left={"x": 2, "y": 1}, unreadable=1, waits_for="the database")

    text = to_plain(render_job(job))

    assert "5 values done, 3 left" in text
    assert "1 can't be opened" in text
    assert "waits: the database" in text
