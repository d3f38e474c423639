"""novacronctl vm leases and vm assign, as they are shown."""

from __future__ import annotations

from dataclasses import replace

from services.ctl.styled import to_plain
from services.ctl.vm_lease_render import render_assigned, render_leases
from services.ctl.vm_usage import render_vm_status
from services.vm.leases.methods import fit_disks
from services.vm.leases.model import AssignReply, LeaseInfo, LeaseList, LeaseState
from services.vm.model import VmStatus

WEB = LeaseInfo(
    uuid="u",
    name="web",
    node_id="node-1",
    epoch=7,
    state=LeaseState.HELD,
    age_s=90.0,
    renewed_ago_s=4.0,
    acquired_by="operator/anna",
    is_running=True,
    disks=(("write", "/images/web.qcow2"),),
)


def text(found: LeaseList, *, with_free: bool = False) -> str:
    """What is printed on a wide terminal."""
    shown = render_leases(found, with_free=with_free, width=120)
    return "\n".join("".join(span.text for span in line).rstrip() for line in shown)


def test_leases_are_a_table_and_free_ones_are_asked_for() -> None:
    """Held and expired ones of all nodes; what has stopped is of little interest."""
    gone = replace(WEB, name="db", state=LeaseState.EXPIRED, is_running=False)
    free = replace(WEB, name="old", state=LeaseState.FREE, is_running=False)
    found = LeaseList(node_id="node-1", leases=(WEB, gone, free))

    assert [row.split()[:4] for row in text(found).splitlines()[1:]] == [
        ["web", "node-1", "held", "7"],
        ["db", "node-1", "expired", "7"],
    ]
    assert "old" in text(found, with_free=True)
    assert text(LeaseList(node_id="node-1", leases=(free,))) == "no machine is leased"


def test_what_is_wrong_stands_below_the_table() -> None:
    """Fenced machines, those without a lease, old news, and more than fits."""
    found = LeaseList(
        node_id="node-1",
        leases=(replace(WEB, fenced="node b has it"),),
        is_stale=True,
        unleased={"x": "odd: another writes its disk"},
        omitted=1,
    )
    lines = text(found).splitlines()

    assert lines[0].startswith("stale")
    assert lines[-3:] == [
        "fenced  web: node b has it",
        "no lease  odd: another writes its disk",
        "and more that did not fit",
    ]


def test_escapes_of_a_name_do_not_reach_the_terminal() -> None:
    """Names of domains are anybody's."""
    found = LeaseList(node_id="n", leases=(replace(WEB, name="a\x1b[2J", fenced="\x1b"),))

    assert "\x1b" not in text(found)


def test_an_assignment_says_what_comes_next() -> None:
    """Or that nothing was to be done."""
    reply = AssignReply(name="web", node="node-2", was="node-1", epoch=2, changed=True)
    shown = ["".join(span.text for span in line) for line in render_assigned(reply)]
    [already] = render_assigned(replace(reply, changed=False))

    assert shown[1] == "on node-2: novacronctl vm apply --name web"
    assert "".join(span.text for span in already) == "web belongs to node-2 already"


def test_disks_are_left_away_where_they_do_not_fit() -> None:
    """From there on; the leases themselves are all there."""
    fitted = fit_disks([WEB, WEB, WEB], bytes_max=2 * 27)

    assert [len(info.disks) for info in fitted] == [1, 1, 0]


def test_the_status_names_libvirts_own_lock() -> None:
    """Where one is configured."""
    status = VmStatus(libvirt_uri="qemu:///system", is_connected=True, disk_lock="lockd")
    shown = [to_plain(line) for line in render_vm_status(status, now_s=0.0, width=100)]
    without = render_vm_status(replace(status, disk_lock=""), now_s=0.0, width=100)

    assert [row.split() for row in shown if "lock" in row] == [["disk", "lock", "lockd"]]
    assert len(without) == len(shown) - 1
