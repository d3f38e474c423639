"""The settings of the VM level refuse what makes no sense."""

from __future__ import annotations

import pytest

from protocol.errors import RemoteProtocolError
from protocol.records import from_wire
from services.vm.model import DomainState, VmSettings


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({}, "lacks libvirt_uri"),
        ({"libvirt_uri": "qemu"}, "libvirt_uri"),
        ({"libvirt_uri": "qemu:///system", "connect_timeout_s": 0}, "connect_timeout_s"),
        ({"libvirt_uri": "qemu:///system", "call_timeout_s": -1}, "call_timeout_s"),
        ({"libvirt_uri": "qemu:///system", "keepalive_interval_s": 0}, "keepalive"),
        ({"libvirt_uri": "qemu:///system", "keepalive_count": 0}, "keepalive"),
        ({"libvirt_uri": "qemu:///system", "retry_initial_s": 0}, "retry_initial_s"),
        ({"libvirt_uri": "qemu:///system", "retry_max_s": 0.1}, "retry_max_s"),
        ({"libvirt_uri": "qemu:///system", "colour": "red"}, "unknown field"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, object], problem: str) -> None:
    """Each bad setting is refused by a message that names it."""
    with pytest.raises(RemoteProtocolError, match=problem):
        from_wire(VmSettings, settings)


def test_only_the_uri_has_to_be_given() -> None:
    """Everything else has a default."""
    assert from_wire(VmSettings, {"libvirt_uri": "test:///default"}).call_timeout_s == 5.0


@pytest.mark.parametrize(
    ("state", "is_active"),
    [
        (DomainState.RUNNING, True),
        (DomainState.PAUSED, True),
        (DomainState.SHUTTING_DOWN, True),
        (DomainState.PM_SUSPENDED, True),
        (DomainState.SHUTOFF, False),
        (DomainState.CRASHED, False),
    ],
)
def test_active_means_that_a_hypervisor_runs(state: DomainState, is_active: bool) -> None:
    """A paused guest holds its memory, a crashed one does not."""
    assert state.is_active is is_active
