"""Random networks in the kernel: it does what the planner's model of it says."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from services.network.networks.apply import Networks
from services.network.networks.errors import NetworksStepFailedError
from services.network.networks.kernel import Kernel
from services.network.networks.model import Network, NetworksDocument, Vxlan
from services.network.networks.observed import Marks, Observed
from services.network.networks.plan import plan_networks
from services.network.networks.reading import read_host
from services.network.networks.simulate import Host, pending
from services.network.networks.store import NetworkStore
from tests.fixtures.fix_netns import ip
from tests.system.network_running import in_netns
from tests.system.networks_running import veth

pytestmark = pytest.mark.netns

ROUNDS = 8
MARKS = Marks("n1")
PORTS = ("up0", "up1", "up2")
UNDERLAY = "192.0.2.10"


def document(choice: random.Random) -> NetworksDocument:
    """Networks over few names, so that two documents have much in common."""
    ports, nets, vnis = list(PORTS), [1, 2, 3], [7, 8]
    for items in (ports, nets, vnis):
        choice.shuffle(items)
    return NetworksDocument(
        networks=tuple(
            Network(
                name=f"{choice.choice('ab')}{bridge}",
                bridge=f"br{bridge}",
                mtu=choice.choice((None, 1300)),
                ports=tuple(ports.pop() for _ in range(choice.randint(0, len(ports)))),
                addresses=tuple(
                    f"10.{net}.0.{host}/24"
                    for net in [nets.pop() for _ in range(choice.randint(0, len(nets)))]
                    for host in choice.sample((1, 2, 3), choice.randint(1, 3))
                ),
                vxlans=tuple(
                    Vxlan(
                        vni=vnis.pop(),
                        local=UNDERLAY,
                        port=choice.choice((4789, 8472)),
                        remotes=tuple(choice.sample(("192.0.2.1", "192.0.2.2"), 1)),
                    )
                    for _ in range(choice.randint(0, len(vnis)))
                ),
            )
            for bridge in choice.sample((1, 2, 3), choice.randint(0, 3))
        )
    )


def facts(seen: Observed) -> dict[str, tuple[object, ...]]:
    """Everything of all links but their numbers and what the kernel gives them by itself."""
    return {
        item.name: (
            item.link.kind,
            item.link.alias,
            item.link.mac,
            item.link.mtu,
            item.link.is_up,
            seen.master_of(item),
            item.vxlan and (item.vxlan.vni, item.vxlan.local, item.vxlan.port),
            sorted(text for text in item.link.addresses if not text.startswith("fe80:")),
            sorted(item.remotes),
        )
        for item in seen.links
    }


@pytest.mark.parametrize("seed", [1, 3])
def test_the_kernel_goes_forth_and_back_as_the_model_says(tmp_path: Path, seed: int) -> None:
    """From any document to any other; and from any point of the way to where it began."""

    async def content() -> tuple[str, ...]:
        return ()

    async def scenario() -> None:
        choice = random.Random(seed)
        veth(*PORTS, "under0")
        ip("addr", "add", f"{UNDERLAY}/24", "dev", "under0")
        kernel = Kernel()
        networks = Networks(kernel, NetworkStore(tmp_path / "network"), MARKS)
        before = NetworksDocument()
        for _ in range(ROUNDS):
            wanted = document(choice)
            seen = await read_host(MARKS)
            plan = plan_networks(wanted, before, seen, MARKS)
            cut = choice.randint(0, len(plan.steps))
            await kernel.carry_out(plan.steps[:cut])
            reached = await read_host(MARKS)
            model = Host(seen, MARKS)
            for step in plan.steps[:cut]:
                model.apply(step)
            # The kernel may make a bridge with an MTU that only the next step sets right.
            same = {step.link for step in plan.steps[cut:]}
            assert {n: f for n, f in facts(reached).items() if n not in same} == {
                n: f for n, f in facts(model.observed()).items() if n not in same
            }
            await kernel.carry_out(pending(plan.undo, reached, MARKS))
            assert facts(await read_host(MARKS)) == facts(seen)

            await networks.apply(wanted, content)
            before = wanted
        await networks.apply(NetworksDocument(), content)
        assert {link.name for link in (await read_host(MARKS)).links} == {
            "lo",
            "under0",
            "under0p",
            *PORTS,
            *(f"{port}p" for port in PORTS),
        }

    in_netns(scenario)


def test_a_step_that_fails_in_the_middle_of_a_batch_is_named(tmp_path: Path) -> None:
    """The kernel goes on with the rest of a batch, and all of that is undone."""

    async def content() -> tuple[str, ...]:
        return ()

    async def scenario() -> None:
        veth(*PORTS, "under0")
        ip("addr", "add", f"{UNDERLAY}/24", "dev", "under0")
        ip(
            "link",
            "add",
            "theirs0",
            "type",
            "vxlan",
            "id",
            "7",
            "local",
            UNDERLAY,
            "dstport",
            "4789",
        )
        seen = await read_host(MARKS)
        networks = Networks(Kernel(), NetworkStore(tmp_path / "network"), MARKS)
        wanted = NetworksDocument(
            networks=(
                Network(name="a", bridge="br1", ports=("up0",)),
                Network(name="b", bridge="br2", vxlans=(Vxlan(vni=7, local=UNDERLAY),)),
                Network(name="c", bridge="br3", ports=("up1",)),
            )
        )

        with pytest.raises(NetworksStepFailedError, match=r"VXLAN vx7: VNI 7.*EEXIST"):
            await networks.apply(wanted, content)

        assert facts(await read_host(MARKS)) == facts(seen)

    in_netns(scenario)
