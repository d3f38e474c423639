"""Who gets a lease, in any order of things that can happen to two nodes and their database."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from services.vm.leases import rules
from services.vm.leases.errors import DiskLeasedError, LeasedElsewhereError, LeaseLostError
from services.vm.leases.model import DiskMode, DiskUse, Lease, LeaseState, Machine, Wanted
from services.vm.leases.reconcile import (
    SETTLE_S,
    Claim,
    Conflict,
    Fence,
    Free,
    Keep,
    Running,
    reconcile,
)

MACHINE = Machine(uuid="u", name="web")
NODES = ("a", "b")
TTL_S = 60.0


def wanted(node: str, *disks: DiskUse, **more: Any) -> Wanted:
    """What a node asks for."""
    return Wanted(machine=MACHINE, node_id=node, disks=disks, **more)


def held(node: str = "a", epoch: int = 1, now_s: float = 0.0) -> Lease:
    """A lease that a node has."""
    return rules.grant(None, wanted(node, epoch_seen=epoch - 1), now_s, TTL_S)


def use(key: str = "k", mode: DiskMode = DiskMode.WRITE, path: str = "/d") -> DiskUse:
    """A use of a disk."""
    return DiskUse(key=key, mode=mode, path=path)


@dataclass
class Node:
    """A host with its platform, as far as a lease is concerned.

    Attributes:
        guest: the epoch that the machine runs by here; None where it does not.
        asked: a lease that was given, and whose start has not begun; a kill may come between.
    """

    name: str
    is_on: bool = True
    is_up: bool = True  # the platform; a guest runs on without it
    is_linked: bool = True  # to the database
    guest: int | None = None
    is_paused: bool = False
    asked: int | None = None
    remembered: int | None = None

    @property
    def writes(self) -> bool:
        """Its guest may change a disk."""
        return self.is_on and self.guest is not None and not self.is_paused


@dataclass
class World:
    """The nodes and the table."""

    nodes: dict[str, Node] = field(default_factory=lambda: {name: Node(name) for name in NODES})
    lease: Lease | None = None
    now_s: float = 0.0
    granted: dict[int, str] = field(default_factory=dict)

    def grant(self, lease: Lease) -> None:
        """Write it, and remember who got which epoch."""
        assert self.lease is None or lease.epoch >= self.lease.epoch
        if self.lease is None or lease.epoch > self.lease.epoch:
            assert lease.epoch not in self.granted
            self.granted[lease.epoch] = lease.node_id if lease.is_held else ""
        self.lease = lease


class Honest(RuleBasedStateMachine):
    """Whoever says that a host is off has made sure of it."""

    is_honest = True
    node = st.sampled_from(NODES)

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    def others_off(self, name: str) -> bool:
        """What a person would go and look at before a takeover."""
        return all(not node.is_on for node in self.world.nodes.values() if node.name != name)

    @rule(seconds=st.sampled_from((20.0, SETTLE_S)))
    def wait(self, seconds: float) -> None:
        """Time goes by, and nobody renews."""
        self.world.now_s += seconds

    @rule(name=node, takeover=st.booleans())
    def ask(self, name: str, *, takeover: bool) -> None:
        """A start begins: the lease is asked for."""
        world, node = self.world, self.world.nodes[name]
        if not (node.is_on and node.is_up) or node.guest is not None:
            return
        if takeover and self.is_honest and not self.others_off(name):
            return
        if not node.is_linked:
            node.asked = node.remembered
            return
        try:
            lease = rules.grant(world.lease, wanted(name, takeover=takeover), world.now_s, TTL_S)
        except LeasedElsewhereError:
            return
        world.grant(lease)
        node.asked = node.remembered = lease.epoch

    @rule(name=node)
    def begin(self, name: str) -> None:
        """The start goes on: libvirt starts the guest."""
        node = self.world.nodes[name]
        if node.is_on and node.is_up and node.asked is not None and node.guest is None:
            node.guest, node.asked, node.is_paused = node.asked, None, False

    @rule(name=node)
    def stop(self, name: str) -> None:
        """The guest ends by itself; nobody has noticed yet."""
        node = self.world.nodes[name]
        if node.is_on:
            node.guest = None

    @rule(name=node)
    def kill_platform(self, name: str) -> None:
        """Whatever it was about to do is not done; its guest runs on."""
        node = self.world.nodes[name]
        node.is_up, node.asked = False, None

    @rule(name=node, takeover=st.booleans())
    def start(self, name: str, *, takeover: bool) -> None:
        """A start without anything between."""
        self.ask(name, takeover=takeover)
        self.begin(name)

    @rule(name=node, is_cut=st.booleans())
    def fall_silent(self, name: str, *, is_cut: bool) -> None:
        """The node is not heard of for longer than a lease lasts; its guest runs on."""
        if is_cut:
            self.world.nodes[name].is_linked = False
        else:
            self.kill_platform(name)
        self.wait(TTL_S + 10.0)

    @rule(name=node)
    def recover(self, name: str) -> None:
        """Platform and link are back."""
        node = self.world.nodes[name]
        node.is_up, node.is_linked = node.is_on, True

    @rule(name=node, is_back=st.booleans())
    def power_off(self, name: str, *, is_back: bool) -> None:
        """The guest is gone; with another boot nothing that was remembered gives a right."""
        self.world.nodes[name] = Node(name, is_on=is_back, is_up=is_back)
        self.wait(TTL_S + 10.0)

    @rule(name=node)
    def power_on(self, name: str) -> None:
        """Another boot."""
        node = self.world.nodes[name]
        if not node.is_on:
            node.is_on = node.is_up = True

    @rule(name=node)
    def look(self, name: str) -> None:
        """Renew, claim, free, fence."""
        world, node = self.world, self.world.nodes[name]
        if not (node.is_up and node.is_linked):
            return
        if world.lease is not None and world.lease.is_held and world.lease.node_id == name:
            world.lease = replace(world.lease, renewed_s=world.now_s, expires_s=world.now_s + TTL_S)
        running = {}
        if node.guest is not None:
            running["u"] = Running(machine=MACHINE, domain_id=1, epoch=node.guest)
        leases = [] if world.lease is None else [world.lease]
        busy = ("u",) if node.asked is not None else ()
        for found in reconcile(running, leases, node_id=name, now_s=world.now_s, busy=busy):
            match found:
                case Claim(here):
                    lease = rules.grant(
                        world.lease, wanted(name, epoch_seen=here.epoch), world.now_s, TTL_S
                    )
                    world.grant(lease)
                    node.guest = node.remembered = lease.epoch
                case Free(lease):
                    world.lease = replace(lease, is_held=False)
                    node.remembered = None
                case Fence():
                    node.is_paused, node.remembered = True, None
                case Keep(_, lease):
                    node.guest = lease.epoch
                case Conflict():
                    raise AssertionError("nothing starts it past the platform here")

    @precondition(lambda self: self.world.lease is not None and self.world.lease.is_held)
    @rule(target_node=node)
    def hand_over(self, target_node: str) -> None:
        """A migration ends: the guest stands still, changes its owner, and goes on there."""
        world = self.world
        assert world.lease is not None
        source, target = world.nodes[world.lease.node_id], world.nodes[target_node]
        is_ready = source.is_up and source.is_linked and target.is_on and target.guest is None
        if source is target or not is_ready or not source.writes or target.asked is not None:
            return
        if source.guest != world.lease.epoch:
            return
        names = {"uuid": "u", "from_node": source.name, "to_node": target.name}
        epoch, before = world.lease.epoch, world.lease
        moved = rules.hand_over(before, **names, epoch=epoch, now_s=world.now_s, ttl_s=TTL_S)
        again = rules.hand_over(moved, **names, epoch=epoch, now_s=world.now_s, ttl_s=TTL_S)
        assert again is moved
        world.grant(moved)
        source.guest = source.remembered = None
        target.guest, target.is_paused = moved.epoch, False

    @invariant()
    def one_writer(self) -> None:
        """However it went, at most one guest can write."""
        writers = [node.name for node in self.world.nodes.values() if node.writes]
        assert len(writers) <= 1, writers


class Mistaken(Honest):
    """Whoever says that a host is off may be wrong."""

    is_honest = False

    @invariant()
    def one_writer(self) -> None:
        """Each has another epoch; once all have looked, one is left."""
        writers = [node for node in self.world.nodes.values() if node.writes]
        epochs = [node.guest for node in writers]
        assert len(set(epochs)) == len(epochs)

    def teardown(self) -> None:
        """All platforms come back and look."""
        for node in self.world.nodes.values():
            node.is_up, node.is_linked, node.asked = node.is_on, True, None
        for name in NODES:
            self.look(name)
        writers = [node.name for node in self.world.nodes.values() if node.writes]
        assert len(writers) <= 1, writers


TestHonest = Honest.TestCase
TestHonest.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
TestMistaken = Mistaken.TestCase
TestMistaken.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)


def test_a_lease_is_held_until_its_end_and_then_expired() -> None:
    """The last moment counts as too late."""
    lease = held()

    assert lease.state(TTL_S - 0.001) is LeaseState.HELD
    assert lease.state(TTL_S) is LeaseState.EXPIRED
    assert rules.take_away(lease).state(0.0) is LeaseState.FREE
    assert rules.take_away(lease).epoch == 2


def test_a_database_that_was_restored_gives_no_epoch_twice() -> None:
    """What runs on the host may have a newer one than the table."""
    assert rules.grant(held(epoch=3), wanted("a", epoch_seen=8), 0.0).epoch == 9


def test_a_refusal_says_who_since_when_and_what_to_do() -> None:
    """Stop it there, or look whether the host is off; a takeover of what is heard of is refused."""
    lease = held("host-7")
    with pytest.raises(LeasedElsewhereError) as caught:
        rules.grant(lease, wanted("b"), 59.0)
    assert caught.value.message == (
        "web belongs to node host-7 since 1970-01-01 00:00:00 UTC (epoch 1): stop it there first"
    )
    assert caught.value.fields["is_expired"] is False
    with pytest.raises(LeasedElsewhereError, match="this one is heard of"):
        rules.grant(lease, wanted("b", takeover=True), 59.0)
    with pytest.raises(LeasedElsewhereError, match=r"heard of for 10 min.*off.*--takeover"):
        rules.grant(lease, wanted("b"), 600.0)
    assert rules.grant(lease, wanted("b", takeover=True), 60.0).epoch == 2


@pytest.mark.parametrize(
    ("mine", "theirs", "is_allowed"),
    [
        (DiskMode.READ, DiskMode.READ, True),
        (DiskMode.SHARED, DiskMode.SHARED, True),
        (DiskMode.WRITE, DiskMode.WRITE, False),
        (DiskMode.WRITE, DiskMode.READ, False),
        (DiskMode.READ, DiskMode.WRITE, False),
        (DiskMode.SHARED, DiskMode.READ, False),
        (DiskMode.WRITE, DiskMode.SHARED, False),
    ],
)
def test_disks_are_shared_where_all_agree(
    mine: DiskMode, theirs: DiskMode, *, is_allowed: bool
) -> None:
    """All read, or all are marked shareable."""
    other = rules.OtherUse(lease=replace(held(), uuid="x", name="db"), use=use(mode=theirs))
    asked = wanted("a", use(mode=mine))

    if is_allowed:
        assert rules.check_disks(asked, [other], 0.0) == ()
    else:
        with pytest.raises(DiskLeasedError, match=r"/d: db \w+ it here; two guests would"):
            rules.check_disks(asked, [other], 0.0)


def test_own_disks_and_those_of_free_leases_stand_against_nothing() -> None:
    """A restart, and a machine that has stopped."""
    own = rules.OtherUse(lease=held("b"), use=use())
    free = rules.OtherUse(lease=replace(held(), uuid="x", is_held=False), use=use())

    assert rules.check_disks(wanted("a", use()), [own, free], 0.0) == ()


def test_a_machine_does_not_have_one_disk_twice() -> None:
    """Not as two paths, and not as its own backing file; to read it twice is nothing."""
    read = use(mode=DiskMode.READ)
    with pytest.raises(DiskLeasedError, match="/d and /e are the same disk"):
        rules.merged([use(), use(path="/e")])
    with pytest.raises(DiskLeasedError):
        rules.merged([read, use()])
    assert rules.merged([use("z", DiskMode.READ), read, read]) == (read, use("z", DiskMode.READ))
    assert rules.strictest([read, use()]) == (use(),)


def test_a_hand_over_needs_the_holder_and_its_epoch() -> None:
    """A free, taken or newer lease is not handed over."""
    lease = held(epoch=4)
    names = {"uuid": "u", "from_node": "a", "to_node": "b", "now_s": 0.0}
    for lost in (None, replace(lease, is_held=False), replace(lease, node_id="c")):
        with pytest.raises(LeaseLostError):
            rules.hand_over(lost, **names, epoch=4)
    with pytest.raises(LeaseLostError, match="not held by a in epoch 3"):
        rules.hand_over(lease, **names, epoch=3)


def test_what_runs_and_what_is_leased_are_compared() -> None:
    """Each case of the table in ``reconcile``, at the moment and just before it."""
    here = Running(machine=MACHINE, domain_id=1, epoch=4)
    unmarked = replace(here, epoch=0)
    free, elsewhere = replace(held(epoch=4), is_held=False), held("b", epoch=5)

    def found(running: Running | None, lease: Lease | None, now_s: float = 0.0) -> list[object]:
        runs = {} if running is None else {"u": running}
        leases = [] if lease is None else [lease]
        return [type(x) for x in reconcile(runs, leases, node_id="a", now_s=now_s)]

    assert found(here, None) == [Claim]
    assert found(here, free) == [Claim]
    assert found(here, held(epoch=4)) == [Keep]
    assert found(here, held(epoch=9)) == [Keep]
    assert found(here, elsewhere) == [Fence]
    assert found(here, rules.take_away(held(epoch=4))) == [Fence]
    assert found(replace(here, epoch=5), elsewhere) == [Conflict]
    assert found(unmarked, elsewhere) == [Conflict]
    assert found(unmarked, free) == [Claim]
    [end] = reconcile({"u": replace(here, epoch=5)}, [elsewhere], node_id="a", now_s=0.0)
    assert end == Conflict(replace(here, epoch=5), elsewhere, is_migration=True)
    [end] = reconcile({"u": replace(here, epoch=5)}, [elsewhere], node_id="a", now_s=TTL_S)
    assert end == Conflict(replace(here, epoch=5), elsewhere, is_migration=False)
    assert found(None, held(), SETTLE_S - 0.1) == []
    assert found(None, held(), SETTLE_S) == [Free]
    assert found(None, elsewhere, SETTLE_S) == []
    assert found(None, free, SETTLE_S) == []


def test_what_is_being_started_is_left_alone() -> None:
    """A lease without a guest may be one whose guest is about to be there."""
    assert reconcile({}, [held()], node_id="a", now_s=1000.0, busy={"u"}) == ()


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1.0, "0 s"), (119.0, "119 s"), (120.0, "2 min"), (7200.0, "2 h")]
)
def test_spans_are_told_in_words(seconds: float, text: str) -> None:
    """Seconds, minutes, hours."""
    assert rules.span(seconds) == text
