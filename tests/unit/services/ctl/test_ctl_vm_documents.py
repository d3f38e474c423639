"""VM documents on the terminal: files, plans, results and lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.ctl.errors import UsageError
from services.ctl.styled import Line, to_plain
from services.ctl.vm_documents import (
    BYTES_MAX,
    read_files,
    read_versions,
    render_applied,
    render_list,
    render_plan,
    render_view,
)
from services.vm.documents.model import VmDocument
from services.vm.documents.records import (
    ApplyReply,
    DocumentInfo,
    DocumentList,
    Outcome,
    PlanReply,
    StepResult,
    StoredDocument,
    VmView,
)
from services.vm.documents.steps import Step, StepKind, VmPlan
from services.vm.model import DomainList, DomainRecord, DomainState

STEP = Step(kind=StepKind.REDEFINE, name="a", reason="it differs", details=("memory.size: 1 -> 2",))
NOTE = Step(kind=StepKind.ORPHAN, name="b", reason="its document is gone")
DOMAIN = DomainRecord(
    name="a", uuid="u", state=DomainState.RUNNING, vcpus=2, memory_bytes=1 << 30, autostart=True
)


def text(lines: list[Line]) -> str:
    """What is shown, without colours."""
    return "\n".join(to_plain(line).rstrip() for line in lines)


def test_a_plan_shows_steps_details_and_notes() -> None:
    """In the order in which they are taken, and counted."""
    shown = text(render_plan(PlanReply(plan=VmPlan(steps=(STEP, NOTE)), is_stale=True)))

    assert shown.splitlines() == [
        "stale  the database is away; documents as last known",
        "redefine      a: it differs",
        "  memory.size: 1 -> 2",
        "orphan        b: its document is gone",
        "1 step to take, 1 told",
    ]


def test_nothing_to_do_is_said() -> None:
    """Before and after."""
    assert text(render_plan(PlanReply(plan=VmPlan()))) == "nothing is to be done"
    assert text(render_applied(ApplyReply())) == "nothing was to be done"


def test_results_say_what_came_of_each_step() -> None:
    """With the reason where it failed."""
    results = (
        StepResult(step=STEP, outcome=Outcome.DONE, took_s=0.5),
        StepResult(step=STEP, outcome=Outcome.FAILED, message="no such file"),
    )

    shown = text(render_applied(ApplyReply(results=results, notes=(NOTE,)))).splitlines()

    assert shown[0].startswith("done    redefine a")
    assert "redefine a: no such file" in shown[1]
    assert shown[2].startswith("orphan")


def test_a_list_joins_domains_and_documents() -> None:
    """One row each, whether it has a domain, a document, or both."""
    info = DocumentInfo(name="c", version=3, epoch=1, power="on", autostart=True, priority=500)
    domains = DomainList(domains=(DOMAIN,), is_stale=True, omitted=2)

    shown = text(
        render_list(domains, DocumentList(documents=(info,), unreadable=("a",)), width=100)
    )

    rows = [line.split() for line in shown.splitlines()]
    assert rows[2] == ["a", "running", "2", "1024", "MiB", "unreadable", "-", "by", "libvirt"]
    assert rows[3] == ["c", "undefined", "-", "-", "version", "3", "on", "yes"]
    assert "libvirt does not answer" in shown
    assert "and 2 more" in shown
    assert text(render_list(DomainList(), DocumentList(), width=80)) == "there are no machines"


def test_a_machine_is_shown_with_what_a_document_can_t_say() -> None:
    """And what is wrong with it; control characters of a domain do not reach the terminal."""
    view = VmView(
        name="a",
        domain=DOMAIN,
        found=VmDocument(name="a", title="shop"),
        left_out=("hostdev \x1b[31m",),
        fault="odd",
        steps=(NOTE,),
    )

    shown = text(render_view(view))

    assert "a  running (unknown), somebody else's, u" in shown
    assert "it has no document" in shown
    assert "  title: shop" in shown
    assert "\x1b" not in shown
    stored = StoredDocument(document=VmDocument(name="a"), version=2, epoch=1, updated_by="anna")
    shown = text(render_view(VmView(name="a", stored=stored)))
    assert "not defined in libvirt" in shown
    assert "document version 2, epoch 1, by anna" in shown


def test_files_are_read_together(tmp_path: Path) -> None:
    """Their documents in order; a machine that two files name is a mistake."""
    one, two = tmp_path / "one.yaml", tmp_path / "two.json"
    one.write_text("name: a\n---\nname: b\n")
    two.write_text('{"name": "c"}')
    assert [document.name for document in read_files((str(one), str(two)))] == ["a", "b", "c"]

    two.write_text('{"name": "b"}')
    with pytest.raises(UsageError, match=r"b is in .*one.yaml and .*two.json"):
        read_files((str(one), str(two)))


def test_files_that_can_t_be_read_are_named(tmp_path: Path) -> None:
    """Missing, too large, and no text."""
    file = tmp_path / "vm.yaml"
    with pytest.raises(UsageError, match=r"vm.yaml: No such file"):
        read_files((str(file),))
    file.write_bytes(b"\xff")
    with pytest.raises(UsageError, match="not UTF-8"):
        read_files((str(file),))
    file.write_bytes(b"#" * (BYTES_MAX + 1))
    with pytest.raises(UsageError, match="give fewer"):
        read_files((str(file),))


def test_versions_are_read_from_the_command_line() -> None:
    """NAME=VERSION, and nothing else."""
    assert read_versions(("a=0", "b=7")) == {"a": 0, "b": 7}
    for mistake in ("a", "a=", "a=x", "a=-1"):
        with pytest.raises(UsageError, match="NAME=VERSION"):
            read_versions((mistake,))
