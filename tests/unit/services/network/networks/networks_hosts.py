"""Hosts and documents for tests of the planner."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import strategies as st

from services.network.model import Link
from services.network.networks.model import Network, NetworksDocument, Vlan, Vxlan
from services.network.networks.observed import Marks, Observed, SeenLink, observed
from services.network.networks.plan import NetworksPlan, plan_networks
from services.network.networks.simulate import Host
from services.network.networks.steps import Step
from services.network.networks.subnets import Subnet

MARKS = Marks("n1")
EMPTY = NetworksDocument()
UNDERLAY = "192.0.2.10"
NETWORKS = ("10.1.0.{}/24", "10.2.0.{}/24", "10.3.0.{}/24")


def link(name: str, index: int, **values: object) -> SeenLink:
    """A link of the host that nobody made for a network."""
    known = {"mtu": 1500, "is_up": False} | values
    return SeenLink(link=Link(name=name, index=index, **known))  # type: ignore[arg-type]


def host(*extra: SeenLink) -> Observed:
    """A host with an underlay, three cards, and whatever else."""
    return observed(
        (
            link("lo", 1, mtu=65536, is_up=True, addresses=("127.0.0.1/8",)),
            link("under0", 2, is_up=True, addresses=(f"{UNDERLAY}/24",)),
            link("up0", 3),
            link("up1", 4, is_up=True),
            link("up2", 5, mtu=9000),
            *extra,
        )
    )


def replaced(seen: Observed, *links: SeenLink) -> Observed:
    """A host whose links of these names are these."""
    by_name = {item.name: item for item in seen.links} | {item.name: item for item in links}
    return observed(tuple(by_name.values()))


def plan(
    document: NetworksDocument,
    seen: Observed,
    previous: NetworksDocument = EMPTY,
    *,
    force: bool = False,
    may_delete: bool = True,
) -> NetworksPlan:
    """The plan of this node."""
    return plan_networks(document, previous, seen, MARKS, force=force, may_delete=may_delete)


def after(seen: Observed, steps: Iterable[Step]) -> Observed:
    """The host with steps taken."""
    model = Host(seen, MARKS)
    for step in steps:
        model.apply(step)
    return model.observed()


def applied(document: NetworksDocument, seen: Observed | None = None) -> Observed:
    """A host with a document in force."""
    start = host() if seen is None else seen
    found = plan(document, start)
    assert found.conflicts == ()
    return after(start, found.steps)


def facts(seen: Observed) -> dict[str, tuple[object, ...]]:
    """Everything of all links but their numbers, which a link made again has another of."""
    return {
        item.name: (
            item.link.kind,
            item.link.alias,
            item.link.mac,
            item.link.mtu,
            item.link.is_up,
            seen.master_of(item),
            carrier.name if (carrier := seen.by_index.get(item.carrier_index or 0)) else "",
            item.vlan_id,
            item.vxlan and (item.vxlan.vni, item.vxlan.local, item.vxlan.group, item.vxlan.port),
            item.stp,
            sorted(item.link.addresses),
            sorted(item.remotes),
        )
        for item in seen.links
    }


@st.composite
def documents(draw: st.DrawFn) -> NetworksDocument:
    """Networks over few names, so that two documents have much in common and in conflict."""
    bridges = draw(st.lists(st.sampled_from(["br-a", "br-b", "br-c"]), unique=True, max_size=3))
    free = {
        "ports": ["up0", "up1", "up2"],
        "vlans": [("under0", 5), ("under0", 6), ("up2", 5)],
        "vnis": [7, 8],
        "nets": list(NETWORKS),
    }

    def take(what: str) -> list[object]:
        found = draw(st.lists(st.sampled_from(free[what]), unique=True)) if free[what] else []
        for item in found:
            free[what].remove(item)
        return found

    networks = []
    for number, bridge in enumerate(bridges):
        hosts = draw(st.lists(st.integers(1, 3), unique=True, max_size=2))
        nets = take("nets")
        networks.append(
            Network(
                name=draw(st.sampled_from(["a", "b"])) + str(number),
                bridge=bridge,
                mtu=draw(st.sampled_from([None, 1200, 1450])),
                ports=tuple(str(port) for port in take("ports")),
                vlans=tuple(Vlan(link=at, id=tag) for at, tag in take("vlans")),  # type: ignore[misc]
                vxlans=tuple(
                    Vxlan(
                        vni=vni,  # type: ignore[arg-type]
                        local=UNDERLAY,
                        remotes=tuple(
                            draw(st.lists(st.sampled_from(["192.0.2.1", "192.0.2.2"]), unique=True))
                        ),
                        port=draw(st.sampled_from([4789, 8472])),
                    )
                    for vni in take("vnis")
                ),
                addresses=tuple(
                    str(net).format(n)
                    for net in nets[:1]
                    for n in hosts  # the same network twice
                ),
                subnets=tuple(Subnet(gateway=str(net).format(254)) for net in nets[1:]),
            )
        )
    return NetworksDocument(networks=tuple(networks))
