"""Guests of a lab show what they lose, and lose nothing by what is done to the platform."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.fixtures.fix_lab import running_guest
from tests.fixtures.fix_node import wait_until
from tests.lab.guest import guests
from tests.lab.guest.guests import GuestPlan
from tests.lab.guest.readers import check_disk
from tests.lab.guest.watches import Probe, Watch, set_rate
from tests.lab.host import NODE, Host
from tests.lab.lab import Lab

pytestmark = [pytest.mark.netns, pytest.mark.libvirt]

# Ticks come each 0.1 s; a loaded machine lets them wait, a paused guest for longer than this.
STALL_MAX_S = 1.5


@pytest.fixture(scope="module")
def shared_guest(lab: Lab) -> Iterator[GuestPlan]:
    """A guest for tests that neither end nor harm it; it may be on either host."""
    with running_guest(lab, GuestPlan(name="shared", number=2, pages_s=200)) as plan:
        yield plan


def assert_whole(lab: Lab, plan: GuestPlan) -> None:
    """Nothing that a guest did in its life is lost: ticks, pages, writes."""
    said = guests.console(lab, plan.name)
    last = said.last_life[-1]
    disk = check_disk(guests.where(lab, plan.name).place(guests.disk_path(plan.name)), last.disk)
    assert (said.lost, last.bad, disk.missing, disk.damaged) == ([], 0, (), ())
    assert last.disk > 0
    assert last.pages > 0


def qemu_pid(host: Host, name: str) -> str:
    """The process id of a guest's QEMU, as its host counts it."""
    return host.run("cat", f"/run/libvirt/qemu/{name}.pid").strip()


def test_a_guest_outlives_its_platform(lab: Lab, shared_guest: GuestPlan) -> None:
    """Kill -9 of all of a node's processes: ticks and packets go on, and a new node finds it."""
    host = guests.where(lab, shared_guest.name)
    other = next(found for found in lab.hosts if found is not host)
    before = qemu_pid(host, shared_guest.name)

    with Watch(lab, shared_guest.name) as watch, Probe(other, shared_guest.address) as probe:
        watch.wait_ticks(5)
        host.signal_service(NODE, signal.SIGKILL, tree=True)
        watch.wait_ticks(10)
        host.start_service(NODE)
        watch.wait_ticks(5)

    found = host.call("core/vm", "vm.list")["domains"]
    assert [(domain["name"], domain["state"]) for domain in found] == [
        (shared_guest.name, "running")
    ]
    assert qemu_pid(host, shared_guest.name) == before
    assert watch.lost == []
    assert watch.gap_max_s < STALL_MAX_S
    assert (probe.findings.lost, probe.findings.wrong) == ((), 0)
    assert_whole(lab, shared_guest)


@pytest.mark.slow
def test_a_guest_moves_over_the_link(lab: Lab, shared_guest: GuestPlan) -> None:
    """Libvirt's own live migration: no tick, write or page is lost, and packets come through."""
    source = guests.where(lab, shared_guest.name)
    target = next(found for found in lab.hosts if found is not source)
    carried = lab.link().direction(sender=source.number).bytes_out

    with Watch(lab, shared_guest.name) as watch, Probe(target, shared_guest.address) as probe:
        watch.wait_ticks(5)
        guests.move(source, target, shared_guest.name)
        before = probe.findings.answered
        watch.wait_ticks(10)

    assert guests.where(lab, shared_guest.name) is target
    assert shared_guest.name not in guests.domains(source)
    assert watch.lost == []
    assert probe.findings.answered > before
    assert probe.findings.wrong == 0
    assert lab.link().direction(sender=source.number).bytes_out - carried > 1 << 20
    assert_whole(lab, shared_guest)


@pytest.mark.slow
def test_a_guest_dirties_memory_at_the_rate_that_is_asked_for(
    lab: Lab, lab_guest: GuestPlan
) -> None:
    """The rate of writes to memory is within a fifth of what was asked for, and can be changed."""
    host = lab.hosts[0]

    for pages_s in (50, 400):
        set_rate(host, lab_guest.address, pages_s)
        with Watch(lab, lab_guest.name) as watch:
            watch.wait_ticks(40)
        first, last = watch.ticks[0][1], watch.ticks[-1][1]
        reached = (last.pages - first.pages) * 1000 / (last.mono_ms - first.mono_ms)
        assert reached == pytest.approx(pages_s, rel=0.2)


@pytest.mark.slow
def test_a_lost_write_is_seen(lab: Lab, lab_guest: GuestPlan) -> None:
    """A block of the disk that is overwritten from outside is found by its number."""
    host = lab.hosts[0]
    disk = host.place(guests.disk_path(lab_guest.name))

    def written() -> int:
        return guests.console(lab, lab_guest.name).last_life[-1].disk

    wait_until(lambda: written() > 20, "writes")
    host.run("virsh", "suspend", lab_guest.name)
    last = written()
    with disk.open("r+b") as image:
        image.seek(5 * 4096)
        image.write(b"lost")
        image.seek(7 * 4096)
        image.write(bytes(4096))
    found = check_disk(disk, last)

    assert (found.damaged, found.missing) == ((5,), (7,))


@pytest.mark.slow
def test_a_pause_is_seen(lab: Lab, lab_guest: GuestPlan) -> None:
    """A guest that is paused for a second shows a gap, and loses packets but no tick."""
    host = lab.hosts[0]

    with Watch(lab, lab_guest.name) as watch, Probe(host, lab_guest.address) as probe:
        watch.wait_ticks(5)
        host.run("virsh", "suspend", lab_guest.name)
        host.run("sleep", "2")
        host.run("virsh", "resume", lab_guest.name)
        watch.wait_ticks(5)

    assert watch.gap_max_s > STALL_MAX_S
    assert probe.findings.gap_max_s > STALL_MAX_S
    assert watch.lost == []
