"""A guest that ticks: its figures, and that it outlives each part of the platform by itself."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fixtures.fix_lab import running_guest
from tests.fixtures.fix_node import wait_until
from tests.lab.guest.guests import GuestPlan
from tests.lab.guest.watches import Probe, Watch, socket_in
from tests.lab.host import LIBVIRTD, NODE, Host
from tests.lab.lab import Lab

pytestmark = [pytest.mark.netns, pytest.mark.libvirt]

DEADLINE_S = 40.0
METRICS_PORT = 9090


@pytest.fixture(scope="module")
def ticking(lab: Lab) -> Iterator[GuestPlan]:
    """A guest on the first host that no test harms."""
    with running_guest(lab, GuestPlan(name="ticking", number=3, pages_s=200)) as plan:
        yield plan


def qemu_pid(host: Host, name: str) -> str:
    """The process id of a guest's QEMU, as its host counts it."""
    return host.run("cat", f"/run/libvirt/qemu/{name}.pid").strip()


def pid_of(host: Host, path: str) -> int:
    """The process id of a component, as its host counts it; 0 while it has none."""
    components = host.call("novacron", "status")["components"]
    return next((item.get("pid") or 0 for item in components if item["path"] == path), 0)


def is_found(host: Host, name: str) -> bool:
    """The platform sees the guest run, and libvirt said so just now."""
    try:
        listed = host.call("core/vm", "vm.list")
    except Exception:  # noqa: BLE001 - whatever is between a killed process and its successor
        return False
    states = {domain["name"]: domain["state"] for domain in listed["domains"]}
    return not listed.get("is_stale") and states.get(name) == "running"


def metrics(host: Host) -> str:
    """What the host's node shows to Prometheus."""
    with socket_in(host, socket.SOCK_STREAM) as peer:
        peer.settimeout(10.0)
        peer.connect(("127.0.0.1", METRICS_PORT))
        peer.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        parts = []
        while part := peer.recv(1 << 16):
            parts.append(part)
    return b"".join(parts).decode()


def figures(host: Host, name: str, *, age_max_s: float = 0.3) -> Any:
    """The figures of one guest; None where nobody tells any."""
    body = {"domain": name, "age_max_s": age_max_s}
    reply = host.call("core/vm", "vm.statistics", body)
    assert "reason" not in reply, reply
    return reply["domains"][0]


def test_what_a_guest_does_shows_in_its_figures(lab: Lab, ticking: GuestPlan) -> None:
    """Processor, memory, writes and packets, in the call, the command and the metrics."""
    host = lab.hosts[0]

    with Probe(lab.hosts[1], ticking.address):
        figures(host, ticking.name)
        found = wait_until(
            lambda: (now := figures(host, ticking.name)).get("received_bytes_s") and now,
            "traffic",
            DEADLINE_S,
        )
        shown = host.run("env", "NOVACRON_ENVIRONMENT=embedded", *_ctl(), "vm", "top", "--once")

    assert found["cpu_percent"] > 1.0
    assert found["vcpus"] == 1
    assert found["memory_resident_bytes"] > 64 << 20
    assert found["written_bytes_s"] > 0
    assert [disk["target"] for disk in found["disks"]] == ["vda"]
    assert [card["link"][:4] for card in found["interfaces"]] == ["vnet"]
    assert ticking.name in shown

    def is_measured() -> bool:
        figures(host, ticking.name)
        text = metrics(host)
        names = ("cpu_seconds_total", "disk_written_bytes_total", "network_received_bytes_total")
        own = f'component="core/vm",vm="{ticking.name}"'
        tap = f'component="core/network",link="{found["interfaces"][0]["link"]}"'
        series = [f"novacron_vm_{name}{{{own}}}" for name in names]
        series.append(f"novacron_network_link_sent_bytes_total{{{tap}}}")
        return all(_value(text, name) > 0 for name in series)

    wait_until(is_measured, "metrics of the guest", DEADLINE_S)


@pytest.mark.parametrize("part", ["core/vm", NODE, LIBVIRTD])
def test_a_guest_outlives_each_part(lab: Lab, ticking: GuestPlan, part: str) -> None:
    """Kill -9 of the VM service, of the root, of libvirt: no tick is lost, the guest is found."""
    host = lab.hosts[0]
    before = qemu_pid(host, ticking.name)

    with Watch(lab, ticking.name) as watch:
        watch.wait_ticks(5)
        if part in (NODE, LIBVIRTD):
            host.signal_service(part, signal.SIGKILL)
            watch.wait_ticks(5)
            host.start_service(part)
        else:
            killed = pid_of(host, part)
            host.run("kill", "-9", str(killed))
            wait_until(lambda: pid_of(host, part) not in (0, killed), "a new process", DEADLINE_S)
        wait_until(lambda: is_found(host, ticking.name), "the guest", DEADLINE_S)
        watch.wait_ticks(5)

    assert qemu_pid(host, ticking.name) == before
    assert watch.lost == []
    assert watch.restarts == 0


def test_libvirt_restarts_under_load(lab: Lab, ticking: GuestPlan) -> None:
    """Orders go on while libvirt is killed and comes back: none lies, no guest is restarted."""
    host = lab.hosts[0]
    before = qemu_pid(host, ticking.name)

    with Watch(lab, ticking.name) as watch:
        watch.wait_ticks(5)
        orders = [_order(host, "vm.start", ticking.name) for _ in range(2)]
        host.signal_service(LIBVIRTD, signal.SIGKILL)
        orders.append(_order(host, "vm.start", ticking.name))
        host.start_service(LIBVIRTD)
        wait_until(lambda: is_found(host, ticking.name), "the guest", DEADLINE_S)
        orders.append(_order(host, "vm.start", ticking.name))
        watch.wait_ticks(5)

    assert orders[0] == orders[-1] == ("done", False)
    assert orders[2][0] in ("refused", "failed", "unknown")
    assert qemu_pid(host, ticking.name) == before
    assert watch.lost == []


def test_a_guest_that_is_gone_takes_its_series_along(lab: Lab, ticking: GuestPlan) -> None:
    """Stopped, it shows in no metric any more."""
    host = lab.hosts[0]
    label = f'vm="{ticking.name}"'

    def is_there() -> bool:
        figures(host, ticking.name)
        return label in metrics(host)

    wait_until(is_there, "its series", DEADLINE_S)
    host.run("virsh", "destroy", ticking.name)

    def is_gone() -> bool:
        host.call("core/vm", "vm.statistics", {"age_max_s": 0.3})
        return label not in metrics(host)

    wait_until(is_gone, "an end of its series", DEADLINE_S)


def _order(host: Host, method: str, name: str) -> tuple[str, bool]:
    """The end of an order, or that it was refused."""
    try:
        record = host.call("core/vm", method, {"domain": name, "wait_s": 20.0})
    except Exception:  # noqa: BLE001 - the call says no in one of several ways
        return "refused", False
    return record["state"], record.get("changed", False)


def _ctl() -> list[str]:
    from tests.lab.host import ROOT

    return [f"PYTHONPATH={ROOT}", str(ROOT / ".venv/bin/python"), "-m", "services.ctl"]


def _value(text: str, series: str) -> float:
    lines = [line for line in text.splitlines() if line.startswith(series)]
    return float(lines[0].rpartition(" ")[2]) if lines else 0.0
