"""Who may give orders to machines, by the shipped policy."""

from __future__ import annotations

from pathlib import Path

import pytest

from protocol import names
from services.policy import source
from services.policy.source import Accounts
from services.vm.operations.part import METHODS
from supervisor.guard.policy import decide

SHIPPED = Path(__file__).parents[4] / "etc" / "novacron" / "policy.yaml"
ACCOUNTS = Accounts(uid_of={"root": 0}.get, gid_of={"novacron": 60}.get, node_uid=5, node_gid=60)
# They change nothing, or go on with an order that was recorded.
UNRECORDED = {
    "vm.console.read",
    "vm.console.write",
    "vm.console.close",
    "vm.snapshot.list",
    "image.info",
}


# What the gateway may order, for whoever it has authenticated.
THROUGH_THE_API = {"vm.start", "vm.stop", "vm.reboot", "vm.pause", "vm.resume"}


@pytest.mark.parametrize("method", [*METHODS, "vm.operation.cancel"])
def test_orders_are_operators_and_recorded(method: str) -> None:
    """Each is allowed by a rule of its own; who may only look, or is a process, may not."""
    policy = source.read(SHIPPED, ACCOUNTS).policy
    person = names.person_path("anna")

    operator = decide(policy, person, ("viewer", "operator"), method, "core/vm")
    viewer = decide(policy, person, ("viewer",), method, "core/vm")
    gateway = decide(policy, "api", (), method, "core/vm")
    processes = [
        decide(policy, path, (), method, "core/vm").is_allowed
        for path in ("core/network", "optional/workload", "data/database")
    ]

    assert operator.is_allowed
    assert operator.is_audited is (method not in UNRECORDED)
    assert not viewer.is_allowed
    assert not any(processes)
    assert gateway.is_allowed is (method in THROUGH_THE_API)
    assert gateway.is_audited is gateway.is_allowed


def test_what_became_of_orders_is_everybody_s_to_see() -> None:
    """Viewers follow operations."""
    policy = source.read(SHIPPED, ACCOUNTS).policy
    for method in ("vm.operation", "vm.operations"):
        found = decide(policy, names.person_path("anna"), ("viewer",), method, "core/vm")
        assert (found.is_allowed, found.is_audited) == (True, False)


@pytest.mark.parametrize(
    ("caller", "roles", "is_allowed"),
    [
        (names.person_path("anna"), ("viewer",), True),
        ("optional/workload", (), True),
        ("api", (), True),
        ("data/cache", (), False),
        (names.person_path("eve"), (), False),
    ],
)
def test_figures_are_for_who_may_look(
    caller: str, roles: tuple[str, ...], is_allowed: bool
) -> None:
    """Viewers and the workload monitor see what machines use; it takes no record."""
    policy = source.read(SHIPPED, ACCOUNTS).policy

    found = decide(policy, caller, roles, "vm.statistics", "core/vm")

    assert (found.is_allowed, found.is_audited) == (is_allowed, False)
