"""From documents and domains to steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from services.vm.documents.adopt import adopt_xml
from services.vm.documents.devices import (
    Accelerator,
    Cpus,
    Disk,
    DiskBus,
    DiskDevice,
    DiskFormat,
    Memory,
    Nic,
)
from services.vm.documents.differences import differences, follow_snapshots
from services.vm.documents.model import Placement, Power, VmDocument
from services.vm.documents.plan import plan_machines
from services.vm.documents.steps import (
    Allowed,
    Desired,
    Observed,
    Step,
    StepKind,
)
from services.vm.documents.xml import Mark, VirtType, domain_xml
from services.vm.model import DomainRecord, DomainState
from tests.unit.services.vm.documents.vm_documents import documents

NODE = "node-1"
EVERYTHING = Allowed(adopt=True, replace=True, restart=True, undefine=True)
HOSTDEV = "<hostdev mode='subsystem' type='pci'/></devices>"


def document(name: str = "a", **more: Any) -> VmDocument:
    """A document that says its accelerator, as domains do."""
    return VmDocument(name=name, accelerator=Accelerator.TCG, **more)


def domain(
    made_from: VmDocument,
    *,
    epoch: int | None = 1,
    state: DomainState = DomainState.SHUTOFF,
    runs: VmDocument | None = None,
    edit: Callable[[str], str] = str,
    **record: Any,
) -> Observed:
    """A domain as a document would have made it; ``epoch`` None for somebody else's."""
    mark = None if epoch is None else Mark(fingerprint=made_from.fingerprint, epoch=epoch)
    text = edit(domain_xml(made_from, virt_type=VirtType.QEMU, mark=mark))
    running = domain_xml(runs or made_from, virt_type=VirtType.QEMU, mark=mark)
    return Observed(
        record=DomainRecord(name=made_from.name, uuid=made_from.domain_uuid, state=state, **record),
        adopted=adopt_xml(text),
        active=adopt_xml(running) if state.is_active else None,
    )


def plan(
    *wanted: VmDocument, there: tuple[Observed, ...] = (), epoch: int = 1, **more: Any
) -> list[Step]:
    """The steps for documents and domains."""
    desired = [Desired(document=item, epoch=epoch) for item in wanted]
    observed = {item.record.name: item for item in there}
    return list(plan_machines(desired, observed, node_id=NODE, **more).steps)


def kinds(steps: list[Step]) -> list[str]:
    """Their kinds."""
    return [step.kind.value for step in steps]


@pytest.mark.parametrize(
    ("wanted", "there", "expected"),
    [
        (document(), None, ["define"]),
        (document(power=Power.ON), None, ["define", "start"]),
        (document(autostart=True), None, ["define"]),
        (document(autostart=True), domain(document(autostart=True), autostart=True), ["autostart"]),
        (document(), domain(document()), []),
        (document(power=Power.ON), domain(document(power=Power.ON)), ["start"]),
        (document(title="new"), domain(document()), ["redefine"]),
        (document(priority=1), domain(document()), ["mark"]),
        (document(), domain(document(), autostart=True), ["autostart"]),
        (document(), domain(document(), epoch=None), ["refused"]),
        (document(), domain(document(), epoch=2), ["refused"]),
        (document(), domain(document(), is_persistent=False), ["refused"]),
        (document(), domain(document(), state=DomainState.RUNNING), []),
        (
            document(power=Power.OFF),
            domain(document(power=Power.OFF), state=DomainState.RUNNING),
            ["stop"],
        ),
        (
            document(memory=Memory(size="512MiB", maximum="2GiB")),
            domain(document(memory=Memory(size="1GiB", maximum="2GiB")), state=DomainState.RUNNING),
            ["redefine", "resize-memory"],
        ),
        (
            document(memory=Memory(size="4GiB")),
            domain(document(memory=Memory(size="1GiB")), state=DomainState.RUNNING),
            ["redefine", "needs-restart"],
        ),
        (
            document(cpus=Cpus(count=2, maximum=4)),
            domain(document(cpus=Cpus(count=1, maximum=4)), state=DomainState.RUNNING),
            ["redefine", "resize-cpus"],
        ),
        (
            document(cpus=Cpus(count=1, maximum=4)),
            domain(document(cpus=Cpus(count=2, maximum=4)), state=DomainState.RUNNING),
            ["redefine", "needs-restart"],
        ),
        (
            document(disks=(Disk(path="/new"),)),
            domain(
                document(disks=(Disk(path="/new"),)), state=DomainState.RUNNING, runs=document()
            ),
            ["needs-restart"],
        ),
        (
            document(title="new"),
            domain(document(), state=DomainState.RUNNING),
            ["redefine"],
        ),
        (
            document(title="new"),
            domain(document(), edit=lambda text: text.replace("</devices>", HOSTDEV)),
            ["refused"],
        ),
        (
            document(),
            domain(document(), edit=lambda text: text.replace("</devices>", HOSTDEV)),
            [],
        ),
        (document(placement=Placement(nodes=("other",))), None, ["elsewhere"]),
        (document(placement=Placement(nodes=("other", NODE))), None, ["define"]),
        (document(uuid="7b7f5a1e-0a6a-4a5a-8a49-2f8e0f5b8a11"), domain(document()), ["refused"]),
    ],
)
def test_what_follows_from_a_document_and_a_domain(
    wanted: VmDocument, there: Observed | None, expected: list[str]
) -> None:
    """Only what is needed, and nothing that harms."""
    steps = plan(wanted, there=(there,) if there else ())

    assert kinds(steps) == expected
    assert all(step.reason for step in steps)


def test_what_is_asked_for_is_done() -> None:
    """Each permission turns its note into a step."""
    foreign = domain(document(), epoch=None)
    assert kinds(plan(document(), there=(foreign,), allowed=Allowed(adopt=True))) == ["mark"]

    lossy = domain(document(), edit=lambda text: text.replace("</devices>", HOSTDEV))
    wanted = document(title="new")
    assert kinds(plan(wanted, there=(lossy,), allowed=Allowed(replace=True))) == ["redefine"]

    running = domain(document(), state=DomainState.RUNNING)
    wanted = document(machine="pc", power=Power.ON)
    steps = plan(wanted, there=(running,), allowed=Allowed(restart=True))
    assert kinds(steps) == ["redefine", "restart"]

    assert kinds(plan(there=(domain(document()),), allowed=Allowed(undefine=True))) == ["undefine"]


def test_a_disk_is_not_taken_away_unasked() -> None:
    """A CD is, and so is anything when it is asked for."""
    other = Disk(path="/b")
    drive = Disk(path="/cd.iso", device=DiskDevice.CDROM, bus=DiskBus.SATA)
    there = domain(document(disks=(other, drive)))
    wanted = document(disks=(Disk(path="/a"),), title="new")

    (refused,) = plan(wanted, there=(there,))

    assert refused.kind is StepKind.REFUSED
    assert refused.details == ("/b",)
    assert kinds(plan(wanted, there=(there,), allowed=Allowed(replace=True))) == ["redefine"]
    assert kinds(plan(document(disks=(other,)), there=(there,))) == ["redefine"]


def test_what_was_written_since_a_snapshot_is_not_lost() -> None:
    """The overlay above a document's file is the document's disk."""
    wanted = document(disks=(Disk(path="/a", format=DiskFormat.RAW),))
    chain = "<source file='/a.snap'/><backingStore type='file'><format type='raw'/>"
    chain += "<source file='/a'/><backingStore/></backingStore>"

    def snapshot(text: str) -> str:
        return text.replace('<source file="/a" />', chain).replace('type="raw"', 'type="qcow2"')

    there = domain(wanted, edit=snapshot)

    assert there.adopted is not None
    assert there.adopted.below == {"/a.snap": ("/a",)}
    assert plan(wanted, there=(there,)) == []
    renamed = replace(wanted, title="new")
    assert kinds(plan(renamed, there=(there,))) == ["redefine"]
    (disk,) = follow_snapshots(renamed, there.adopted).disks
    assert (disk.path, disk.format) == ("/a.snap", DiskFormat.QCOW2)


def test_a_removed_document_harms_no_domain() -> None:
    """Ours is told of, one that runs is never undefined, and somebody else's is not looked at."""
    ours = domain(document("ours"))
    running = domain(document("running"), state=DomainState.RUNNING)
    foreign = domain(document("foreign"), epoch=None)

    assert kinds(plan(there=(ours, running, foreign))) == ["orphan", "orphan"]
    steps = plan(there=(ours, running, foreign), allowed=EVERYTHING)
    assert [(step.kind.value, step.name) for step in steps] == [
        ("undefine", "ours"),
        ("refused", "running"),
    ]


def test_starts_come_last_and_by_priority() -> None:
    """The highest first, then by name; what frees comes before what takes."""
    wanted = [
        document("low", power=Power.ON, priority=1),
        document("high", power=Power.ON, priority=9),
        document("alike", power=Power.ON, priority=9),
        document("off", power=Power.OFF),
    ]
    off = domain(wanted[3], state=DomainState.RUNNING)

    steps = plan(*wanted, there=(off,))

    assert [(step.kind.value, step.name) for step in steps] == [
        ("stop", "off"),
        ("define", "alike"),
        ("define", "high"),
        ("define", "low"),
        ("start", "alike"),
        ("start", "high"),
        ("start", "low"),
    ]


def test_machines_that_must_be_apart_are_not_started_together() -> None:
    """In either direction, while the other one runs here."""
    near = document("near")
    far = document("far", power=Power.ON)
    apart = Placement(apart_from=("near",))
    running = domain(near, state=DomainState.RUNNING)

    assert kinds(plan(near, replace(far, placement=apart), there=(running,))) == ["elsewhere"]
    reverse = replace(near, placement=Placement(apart_from=("far",)))
    there = (domain(reverse, state=DomainState.RUNNING),)
    assert kinds(plan(reverse, far, there=there)) == ["elsewhere"]
    assert kinds(plan(near, replace(far, placement=apart), there=(domain(near),))) == [
        "define",
        "start",
    ]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"disks": (Disk(path="/d"),)}, "same disk"),
        ({"disks": (Disk(path="/d", read_only=True),)}, "same disk"),
        ({"networks": (Nic(bridge="b", mac="52:54:00:00:00:09"),)}, "same MAC"),
        ({"uuid": document("other").domain_uuid}, "same UUID"),
    ],
)
def test_what_another_machine_has_is_refused(more: dict[str, Any], expected: str) -> None:
    """Whether it is a domain, or a document that has none yet."""
    other = document(
        "other",
        disks=(Disk(path="/d"),),
        networks=(Nic(bridge="b", mac="52:54:00:00:00:09"),),
    )

    for steps in (
        plan(document(**more), there=(domain(other, epoch=None),)),
        plan(document(**more), other),
        plan(document(**more), there=(domain(document()), domain(other, epoch=None))),
    ):
        refused = [step for step in steps if step.kind is StepKind.REFUSED]
        assert refused
        assert expected in refused[0].reason or "UUID" in refused[0].reason


def test_a_disk_that_nobody_writes_may_be_shared() -> None:
    """Both say that it is read only."""
    disk = Disk(path="/d", read_only=True)

    assert kinds(plan(document("a", disks=(disk,)), document("b", disks=(disk,)))) == [
        "define",
        "define",
    ]


def test_a_domain_that_can_t_be_read_is_left_alone() -> None:
    """With the reason; as are machines whose documents a newer program wrote."""
    fault = Observed(record=domain(document()).record, adopted=None, fault="odd memory")
    assert plan(document(), there=(fault,))[0].reason == "odd memory"

    steps = plan(there=(domain(document()),), unreadable=frozenset("a"), allowed=EVERYTHING)
    assert kinds(steps) == ["refused"]


def test_only_the_named_are_looked_at() -> None:
    """Others matter for clashes alone."""
    steps = plan(document("a"), document("b"), only=frozenset("b"))

    assert [(step.kind.value, step.name) for step in steps] == [("define", "b")]


def test_the_balloon_is_the_guest_s_affair() -> None:
    """A guest that has not given its memory back yet is no difference."""
    wanted = document(memory=Memory(size="1GiB", maximum="2GiB"))
    full = document(memory=Memory(size="2GiB"))

    assert plan(wanted, there=(domain(wanted, state=DomainState.RUNNING, runs=full),)) == []


@given(documents(), documents(), st.sampled_from(tuple(DomainState)))
@settings(max_examples=40, deadline=None, phases=(Phase.explicit, Phase.generate))
def test_a_plan_leads_to_its_document(
    before: VmDocument, after: VmDocument, state: DomainState
) -> None:
    """Whatever there was: once a redefinition was carried out, there is no difference left."""
    before = replace(before, accelerator=Accelerator.TCG)
    after = replace(after, name=before.name, uuid=before.uuid, accelerator=Accelerator.TCG)
    found = domain(before, state=state)

    steps = plan(after, there=(found,), allowed=EVERYTHING)

    assert not any(step.kind is StepKind.REFUSED for step in steps)
    changed = domain(after)
    assert changed.adopted is not None
    assert differences(changed.adopted, after) == ()
    if found.adopted is not None and differences(found.adopted, after):
        assert StepKind.REDEFINE in [step.kind for step in steps]


@pytest.mark.parametrize(
    ("found", "wanted", "is_same"),
    [
        ("pc-q35-7.2", "q35", True),
        ("pc-i440fx-7.2", "pc", True),
        ("pc-q35-7.2", "pc", False),
        ("pc-i440fx-7.2", "q35", False),
        ("pc-q35-7.1", "pc-q35-7.2", False),
    ],
)
def test_a_machine_without_a_version_is_any_of_its_family(
    found: str, wanted: str, *, is_same: bool
) -> None:
    """The two families begin alike and are not the same."""
    there = domain(document(machine=found))
    assert there.adopted is not None

    assert (differences(there.adopted, document(machine=wanted)) == ()) is is_same
