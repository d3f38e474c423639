"""What may be asked of a migration, and what goes together."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from protocol.errors import RemoteProtocolError
from protocol.records import from_wire
from services.vm.migration.errors import MigrationRefusedError
from services.vm.migration.matrix import find_conflicts
from services.vm.migration.model import (
    Compression,
    Figures,
    LimitRequest,
    MigrateRequest,
    OnTimeout,
    Storage,
)
from services.vm.migration.routes import MigrationSettings, Route, find_route

ROUTE = Route(node="b", host="b", libvirt_uri="qemu+tls://b/system")


@pytest.mark.parametrize(
    "change",
    [
        {"node": ""},
        {"node": "x" * 64},
        {"bandwidth_bytes_s": (1 << 20) - 1},
        {"bandwidth_bytes_s": -1},
        {"downtime_ms": 0},
        {"downtime_ms": 60_001},
        {"timeout_s": -1.0},
        {"stall_s": 0.5},
        {"connections": 17},
        {"storage": "guess"},
    ],
)
def test_what_means_nothing_is_refused(change: dict[str, object]) -> None:
    """Before anything is looked at."""
    with pytest.raises(RemoteProtocolError):
        from_wire(MigrateRequest, {"domain": "a", "node": "b", **change})


def test_limits_of_the_request_are_inclusive() -> None:
    """Just below each limit all is taken."""
    body = {
        "domain": "a",
        "node": "x" * 63,
        "bandwidth_bytes_s": 1 << 20,
        "downtime_ms": 60_000,
        "stall_s": 1.0,
        "connections": 16,
    }

    assert from_wire(MigrateRequest, body).connections == 16


def test_a_change_of_limits_changes_something() -> None:
    """Neither none nor a downtime of nothing."""
    for body in ({}, {"downtime_ms": 0}, {"bandwidth_bytes_s": 5}):
        with pytest.raises(RemoteProtocolError):
            from_wire(LimitRequest, {"domain": "a", **body})
    assert from_wire(LimitRequest, {"domain": "a", "bandwidth_bytes_s": 0}).downtime_ms is None


def test_every_combination_is_allowed_or_refused_for_its_reasons() -> None:
    """All of them, against a list of pairs that can't be."""
    for (
        tunnelled,
        encrypted,
        storage,
        existing,
        compression,
        connections,
        timeout,
    ) in itertools.product(
        (False, True), (False, True), Storage, (False, True), Compression, (0, 4), (0.0, 9.0)
    ):
        route = replace(ROUTE, is_tunnelled=tunnelled, is_encrypted=encrypted)
        for on_timeout in OnTimeout:
            request = MigrateRequest(
                domain="a",
                node="b",
                storage=storage,
                onto_existing=existing,
                compression=compression,
                connections=connections,
                timeout_s=timeout,
                on_timeout=on_timeout,
            )
            copies = storage is Storage.COPY
            bad = (
                (tunnelled and copies)
                + (tunnelled and connections > 0)
                + (tunnelled and encrypted)
                + (compression is Compression.XBZRLE and connections > 0)
                + (existing and not copies)
                + (on_timeout is OnTimeout.FINISH and timeout == 0)
            )
            assert len(find_conflicts(request, route)) == bad


def test_the_usual_wishes_go_together() -> None:
    """Defaults, and copying with automatic convergence."""
    usual = MigrateRequest(domain="a", node="b")
    copying = replace(usual, storage=Storage.COPY, auto_converge=True, bandwidth_bytes_s=50 << 20)

    assert find_conflicts(usual, ROUTE) == find_conflicts(copying, ROUTE) == ()


def test_a_node_is_reached_by_tls_at_its_name_or_address() -> None:
    """Plain TCP and plain streams only where that is stated."""
    settings = MigrationSettings(addresses=("b=10.0.0.2", "c=fd00::3"))
    plain = MigrationSettings(uri="qemu+tcp://{host}/system", has_plain_streams=True)

    assert find_route(settings, "a").libvirt_uri == "qemu+tls://a/system"
    assert find_route(settings, "b").libvirt_uri == "qemu+tls://10.0.0.2/system"
    assert find_route(settings, "c").libvirt_uri == "qemu+tls://[fd00::3]/system"
    assert find_route(settings, "b").is_encrypted
    assert find_route(plain, "b").libvirt_uri == "qemu+tcp://b/system"
    assert not find_route(plain, "b").is_encrypted


@pytest.mark.parametrize("node", ["a/b", "a b", "-a", "a?x=1", "a@b", "a#b", "é"])
def test_a_name_that_is_no_address_is_refused(node: str) -> None:
    """It must not become another part of a URI."""
    with pytest.raises(MigrationRefusedError):
        find_route(MigrationSettings(), node)


@pytest.mark.parametrize(
    "change",
    [
        {"uri": "qemu+tls://b/system"},
        {"uri": "{host}"},
        {"addresses": ("b",)},
        {"addresses": ("b=",)},
        {"addresses": ("b=1 2",)},
        {"settle_s": 0.0},
        {"silence_s": 2},
    ],
)
def test_settings_that_lead_nowhere_are_refused(change: dict[str, object]) -> None:
    """When the service starts."""
    with pytest.raises(RemoteProtocolError):
        from_wire(MigrationSettings, change)


def test_a_share_is_told_of_what_is_left() -> None:
    """Nothing known is nothing done."""
    assert Figures().fraction == 0.0
    assert Figures(total_bytes=200, remaining_bytes=50).fraction == 0.75
