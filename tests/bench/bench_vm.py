"""Virtual machines: lists, starts, events and what guests notice of a platform that dies.

Each ratio has both sides in one run: the platform's call from another process, as an operator's
command makes it, beside libvirt's own tools on the same libvirt.
"""

from __future__ import annotations

import contextlib
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt

from protocol.names import run_dir
from protocol.records import Plain, to_wire
from protocol.transports.person import PersonKeys
from protocol.transports.zeromq import SyncClient
from services.vm.documents.devices import Memory
from services.vm.documents.model import Power, VmDocument
from services.vm.libvirt_adapter import start_event_loop
from tests.bench.figures import Benchmark, Figure, MeasurementError, spread
from tests.bench.nodes import fresh_node, start
from tests.fixtures.fix_lab import running_guest, running_lab
from tests.fixtures.fix_libvirt import GUEST, PrivateLibvirtd, private_libvirtd
from tests.fixtures.fix_node import Node
from tests.lab.guest.guests import GuestPlan
from tests.lab.guest.watches import Watch
from tests.lab.host import NODE

VM = "core/vm"
DOMAINS = 200
LIST_LIMIT = 1.3
START_LIMIT = 1.2
EVENT_LIMIT_S = 0.05
LISTS_PER_RUN = 50
EVENTS_PER_RUN = 20
# Longer than an event takes, so that each is alone.
EVENT_PAUSE_S = 0.05
_TEST_DOMAIN = """
<domain type='test'>
  <name>vm{number:03}</name>
  <memory unit='MiB'>64</memory>
  <vcpu>1</vcpu>
  <os><type>hvm</type></os>
</domain>
"""


def measure(runs: int) -> Iterator[Figure]:
    """All figures; each has a node of its own."""
    start_event_loop()
    yield from _lists(runs)
    with contextlib.ExitStack() as stack:
        daemon = stack.enter_context(private_libvirtd())
        node = stack.enter_context(fresh_node())
        node.environ["NOVACRON_VM_LIBVIRTURI"] = daemon.uri
        start(node)
        client = stack.enter_context(contextlib.closing(_client(node)))
        yield _starts(runs, daemon, client)
        yield from _events(runs, daemon, node)
    yield _deaths(runs)


def _lists(runs: int) -> Iterator[Figure]:
    """A list of 200 domains of the test driver.

    Of some lists in a row the fastest counts, on both sides: the call goes through two processes,
    so whatever else the machine does slows it more than it slows one that asks itself.
    """
    with contextlib.ExitStack() as stack:
        node = stack.enter_context(fresh_node())
        uri = _many_domains(node.directory / "driver.xml")
        node.environ["NOVACRON_VM_LIBVIRTURI"] = uri
        start(node)
        client = stack.enter_context(contextlib.closing(_client(node)))
        connection = stack.enter_context(contextlib.closing(libvirt.openReadOnly(uri)))
        ours_s, theirs_s, ratios, medians = [], [], [], []
        for _ in range(runs):
            pairs = [(_ours(client), _theirs(connection)) for _ in range(LISTS_PER_RUN)]
            ours_s.append(min(ours for ours, _ in pairs))
            theirs_s.append(min(theirs for _, theirs in pairs))
            ratios.append(ours_s[-1] / theirs_s[-1])
            medians.append(
                statistics.median(ours for ours, _ in pairs)
                / statistics.median(theirs for _, theirs in pairs)
            )
    yield Figure(
        name="vm_list_200_ratio",
        value=statistics.median(ratios),
        unit="times libvirt-python",
        limit=LIST_LIMIT,
        median_of=runs,
        details={
            "novacron_s": spread(ours_s),
            "libvirt_s": spread(theirs_s),
            "ratio_of_medians": spread(medians),
        },
    )


def _ours(client: SyncClient) -> float:
    began_s = time.perf_counter()
    reply: Any = client.call(VM, "vm.list", None, timeout_s=10.0)
    took_s = time.perf_counter() - began_s
    if len(reply["domains"]) != DOMAINS or reply.get("is_stale"):
        raise MeasurementError(f"{len(reply['domains'])} domains were listed")
    return took_s


def _theirs(connection: Any) -> float:  # Any: libvirt.virConnect
    """The same fields, in the same order, by libvirt-python alone."""
    began_s = time.perf_counter()
    records = []
    for domain in connection.listAllDomains(0):
        _, memory_max_kib, _, vcpus, _ = domain.info()
        properties = *domain.state(), memory_max_kib, vcpus
        switches = domain.autostart(), domain.isPersistent()
        records.append((domain.name(), domain.UUIDString(), *properties, *switches))
    records.sort()
    took_s = time.perf_counter() - began_s
    if len(records) != DOMAINS:
        raise MeasurementError(f"libvirt has {len(records)} domains")
    return took_s


def _starts(runs: int, daemon: PrivateLibvirtd, client: SyncClient) -> Figure:
    """A document is applied: kept, defined, started; beside virsh's define and start."""
    with contextlib.closing(daemon.drive()) as connection:
        ours_s, theirs_s = [], []
        # The first start of a libvirtd has it probe QEMU.
        _start_ours(client, "warm")
        xml = _definition(connection, "warm")
        _remove(connection, "warm")
        for number in range(runs):
            name = f"bench{number}"
            ours_s.append(_start_ours(client, name))
            _remove(connection, name)
            client.call(VM, "vm.undefine", {"name": name}, timeout_s=30.0)
            theirs_s.append(_start_theirs(daemon, xml, f"virsh{number}"))
            _remove(connection, f"virsh{number}")
        client.call(VM, "vm.undefine", {"name": "warm"}, timeout_s=30.0)
    ratios = [ours / theirs for ours, theirs in zip(ours_s, theirs_s, strict=True)]
    return Figure(
        name="vm_define_start_ratio",
        value=statistics.median(ratios),
        unit="times virsh",
        limit=START_LIMIT,
        median_of=runs,
        details={
            "novacron_s": spread(ours_s),
            "virsh_s": spread(theirs_s),
            "ratios": spread(ratios),
        },
    )


def _start_ours(client: SyncClient, name: str) -> float:
    document = VmDocument(
        name=name,
        memory=Memory(size="32MiB"),
        power=Power.ON,
        machine="pc",
        guest_agent=False,
    )
    body: Plain = {"documents": [to_wire(document)]}
    began_s = time.perf_counter()
    reply: Any = client.call(VM, "vm.apply", body, timeout_s=120.0)
    took_s = time.perf_counter() - began_s
    outcomes = [result["outcome"] for result in reply["results"]]
    if outcomes != ["done", "done"]:
        raise MeasurementError(f"{name} was not defined and started: {reply['results']}")
    return took_s


def _start_theirs(daemon: PrivateLibvirtd, xml: str, name: str) -> float:
    with tempfile.NamedTemporaryFile("w", suffix=".xml") as file:
        file.write(xml.replace("<name>warm</name>", f"<name>{name}</name>"))
        file.flush()
        began_s = time.perf_counter()
        for command in (("define", file.name), ("start", name)):
            subprocess.run(
                ["virsh", "-q", "-c", daemon.uri, *command],
                check=True,
                stdout=subprocess.DEVNULL,
                timeout=120,
            )
        return time.perf_counter() - began_s


def _definition(connection: Any, name: str) -> str:  # Any: libvirt.virConnect
    """What the platform had libvirt define, without what is a machine's own."""
    xml = str(connection.lookupByName(name).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    head, _, rest = xml.partition("<uuid>")
    return head + rest.partition("</uuid>")[2]


def _remove(connection: Any, name: str) -> None:  # Any: libvirt.virConnect
    domain = connection.lookupByName(name)
    if domain.isActive():
        domain.destroy()
    domain.undefine()


def _events(runs: int, daemon: PrivateLibvirtd, node: Node) -> Iterator[Figure]:
    """From libvirt's own word of an event to the record in the node's journal, as read there."""
    for name, pause_s, limit in (
        ("vm_event_published_s", EVENT_PAUSE_S, EVENT_LIMIT_S),
        ("vm_event_published_in_a_burst_s", 0.0, None),
    ):
        delays_s = _delays(runs * EVENTS_PER_RUN, pause_s, daemon, node)
        yield Figure(
            name=name,
            value=statistics.median(delays_s),
            unit="s",
            limit=limit,
            median_of=len(delays_s),
            details={"spread": spread(delays_s)},
        )


def _delays(count: int, pause_s: float, daemon: PrivateLibvirtd, node: Node) -> list[float]:
    """Delays of so many events of each kind, with a pause after each."""
    heard: dict[str, list[float]] = {"suspended": [], "resumed": []}
    kinds = {
        libvirt.VIR_DOMAIN_EVENT_SUSPENDED: "suspended",
        libvirt.VIR_DOMAIN_EVENT_RESUMED: "resumed",
    }

    def hear(_connection: Any, _domain: Any, event: int, _detail: int, _opaque: Any) -> None:
        if event in kinds:
            heard[kinds[event]].append(time.perf_counter())

    read: dict[str, list[float]] = {"suspended": [], "resumed": []}
    with contextlib.closing(daemon.drive()) as connection:
        domain = connection.createXML(GUEST.format(name="events"), 0)
        time.sleep(1.0)  # what belongs to its start is over
        callback = connection.domainEventRegisterAny(
            None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, hear, None
        )
        follower = _Follower(_client(node), read)
        try:
            for _ in range(count):
                for act in (domain.suspend, domain.resume):
                    act()
                    time.sleep(pause_s)
            follower.wait(count)
        finally:
            follower.close()
            domain.destroy()
            connection.domainEventDeregisterAny(callback)
    return [
        after - before
        for kind in heard
        for before, after in zip(heard[kind], read[kind], strict=True)
    ]


class _Follower:
    """Reads the node's journal as it grows, in a thread, on a connection of its own."""

    def __init__(self, client: SyncClient, read: dict[str, list[float]]) -> None:
        self._client = client
        self._read = read
        self._is_over = threading.Event()
        self._since = 0
        self._page(0.0)
        while self._page(0.0):
            pass
        for times in read.values():
            times.clear()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def wait(self, count: int) -> None:
        """Wait until so many of each kind were read."""
        deadline_s = time.monotonic() + 30.0
        while min(len(times) for times in self._read.values()) < count:
            if time.monotonic() > deadline_s:
                raise MeasurementError("events are missing in the journal")
            time.sleep(0.01)

    def close(self) -> None:
        """Stop reading."""
        self._is_over.set()
        self._thread.join(10.0)
        self._client.close()

    def _follow(self) -> None:
        while not self._is_over.is_set():
            self._page(1.0)

    def _page(self, wait_s: float) -> int:
        body = {"since": self._since, "wait_s": wait_s}
        page: Any = self._client.call("novacron", "journal", body, timeout_s=wait_s + 5.0)
        now_s = time.perf_counter()
        self._since = page["next"]
        for record in page["records"]:
            kind = record["name"].removeprefix("vm:")
            if record["component"] == VM and kind in self._read:
                self._read[kind].append(now_s)
        return len(page["records"])


def _deaths(runs: int) -> Figure:
    """Ticks that a guest loses while all of its host's platform is killed."""
    lost, gaps_s, quiet_s = 0, [], []
    with (
        running_lab("bench", nodes=True, libvirt=True) as lab,
        running_guest(lab, GuestPlan(pages_s=200)) as plan,
    ):
        host = lab.hosts[0]
        for _ in range(runs):
            with Watch(lab, plan.name) as watch:
                watch.wait_ticks(20)
            quiet_s.append(watch.gap_max_s)
            with Watch(lab, plan.name) as watch:
                watch.wait_ticks(5)
                host.signal_service(NODE, signal.SIGKILL, tree=True)
                watch.wait_ticks(15)
            gaps_s.append(watch.gap_max_s)
            lost += len(watch.lost) + watch.restarts
            host.start_service(NODE)
    return Figure(
        name="vm_ticks_lost_by_killed_platform",
        value=float(lost),
        unit="ticks",
        limit=0.0,
        median_of=1,
        details={
            "kills": runs,
            "longest_time_between_ticks_s": spread(gaps_s),
            "the_same_without_a_kill_s": spread(quiet_s),
        },
    )


def _many_domains(path: Path) -> str:
    """A test driver's host with its domains; returns its URI."""
    parts = []
    for number in range(DOMAINS):
        file = path.with_name(f"vm{number:03}.xml")
        file.write_text(_TEST_DOMAIN.format(number=number))
        parts.append(f"<domain file='{file}'/>")
    path.write_text(f"<node>{''.join(parts)}</node>")
    return f"test://{path}"


def _client(node: Node) -> SyncClient:
    run = run_dir(node.state_dir)
    return SyncClient(run, keys=PersonKeys(run))


BENCHMARK = Benchmark(
    figures=(
        "vm_list_200_ratio",
        "vm_define_start_ratio",
        "vm_event_published_s",
        "vm_event_published_in_a_burst_s",
        "vm_ticks_lost_by_killed_platform",
    ),
    summary="machines beside libvirt-python and virsh; events; a killed platform",
    runs=5,
    measure=measure,
)
