"""The hosts of a lab are apart, joined by their link alone, and each has a node."""

from __future__ import annotations

import json
import signal

import pytest

from tests.fixtures.fix_lab import running_lab
from tests.lab.errors import LabError
from tests.lab.host import LIBVIRTD, NODE
from tests.lab.lab import Lab

pytestmark = [pytest.mark.netns, pytest.mark.libvirt]


def test_hosts_see_each_other_over_the_link_alone(lab: Lab) -> None:
    """Libvirt answers the other host by its name; when the link is cut, nothing does."""
    first, second = lab.hosts
    ask = ("virsh", "--connect", "qemu+tcp://host2/system", "hostname")

    assert first.run(*ask).strip() == "host2"
    lab.link().cut()
    with pytest.raises(LabError):
        first.run("timeout", "1", *ask)
    lab.link().mend()

    devices = json.loads(second.run("ip", "-json", "link"))
    assert sorted(device["ifname"] for device in devices) == ["lab0", "link1", "lo", "segment0"]


def test_hosts_are_apart(lab: Lab) -> None:
    """Name, UUID, run directory, images and names of hosts are each host's own."""
    first, second = lab.hosts
    own = ["/run", "/var/lib/libvirt/images", "/etc/libvirt", "/var/lib/novacron"]
    files = [f"{directory}/only-on-host1" for directory in own]

    for command in ("hostname", "virsh capabilities", "cat /etc/libvirt/libvirtd.conf"):
        assert first.run(*command.split()) != second.run(*command.split())
    first.run("touch", *files)
    assert "only-on-host1" not in second.run("ls", *own)
    first.run("rm", *files)
    assert "host2" in first.run("cat", "/etc/hosts")


def test_both_nodes_are_ready(lab: Lab) -> None:
    """Each node is ready, under its own name, connected to its host's libvirtd."""
    for host in lab.hosts:
        status = json.loads(host.run("novacronctl", "status", "--json"))
        machines = host.call("core/vm", "vm.status")

        assert status["verdict"] == "ready"
        assert status["platform"]["node_id"] == host.name
        assert machines["libvirt_uri"] == "qemu:///system"
        assert machines["is_connected"]


def test_libvirtd_can_be_stopped_and_started(lab: Lab) -> None:
    """A service of a host ends by a signal and starts again."""
    host = lab.hosts[1]

    host.signal_service(LIBVIRTD, signal.SIGTERM)
    stopped = host.services()
    host.start_service(LIBVIRTD)

    assert stopped[LIBVIRTD] is None
    assert stopped[NODE] is not None
    assert host.run("virsh", "hostname").strip() == host.name


def test_three_hosts_reach_each_other() -> None:
    """With three hosts, each two of them have a link of their own."""
    with running_lab("three", hosts=3) as lab:
        lab.link("1-2").cut()
        lab.link("1-3").cut(sender=3)
        before = {link.name: link.direction(sender=link.second).bytes_out for link in lab.links}

        # UDP, so that one direction is enough.
        lab.hosts[2].run("bash", "-c", "echo hello >/dev/udp/10.77.0.2/9")

        after = {link.name: link.direction(sender=link.second).bytes_out for link in lab.links}
        assert list(after) == ["1-2", "1-3", "2-3"]
        assert [name for name in after if after[name] > before[name]] == ["2-3"]


def test_unknown_hosts_and_links_are_named(bare_lab: Lab) -> None:
    """A host or link that is not there is an error that lists those that are."""
    with pytest.raises(LabError, match="host1, host2"):
        bare_lab.host("host9")
    with pytest.raises(LabError, match="1-2"):
        bare_lab.link("1-3")
