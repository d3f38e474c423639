"""What is served, as the network service runs it.

``serve`` brings the host from whatever is there to what the networks need, in an order in which a
death at any place leaves nothing open: note what forwarding was, put the rules in force in one
transaction, turn forwarding on, then files and processes; what nobody needs is taken away in the
opposite order. It is run again at every start, and leaves alone what is as it should be. A fault
of one network does not keep the others from being served; it shows in ``health`` and is tried
again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path

from protocol.errors import NovacronError
from protocol.messages.health import HEALTHY, Health, HealthState
from protocol.records import Plain, to_wire
from services.network.model import Link
from services.network.segments.changes import TableChanges
from services.network.segments.nft import Nft
from services.network.serving import configs, dnsmasq, forwarding, place, rules, switches
from services.network.serving.children import Processes
from services.network.serving.configs import Configs
from services.network.serving.errors import DnsmasqConfigError, DnsmasqFailedError
from services.network.serving.lending import Lending
from services.network.serving.model import ServedNetwork
from services.network.serving.rules import Doors
from supervisor.child.service import Request, ServiceContext

LOOK_PERIOD_S = 15.0
# Changes of links come in bursts.
SETTLE_S = 0.2
_NOBODY = Doors()
_DRIFT = (
    "the table inet novacron-networks was changed by somebody else; "
    "'novacronctl net apply' puts it back"
)


class ServingPart:
    """DHCP, DNS, address translation and forwarding for the networks of this host.

    Args:
        context: the service's.
        state_dir: the node's.
        children: the dnsmasq processes.
        links: gives the host's links.
        on_change: is called when ``health`` may have changed.
        nft: runs the program.
    """

    def __init__(
        self,
        context: ServiceContext,
        state_dir: Path,
        children: Processes,
        *,
        links: Callable[[], Iterable[Link]],
        on_change: Callable[[], None],
        nft: Nft | None = None,
    ) -> None:
        self._context = context
        self._state_dir = state_dir
        self._children = children
        self._links = links
        self._on_change = on_change
        self._nft = Nft(family=rules.FAMILY, table=rules.TABLE) if nft is None else nft
        self._changes = TableChanges(table=rules.TABLE)
        self._configs = Configs(state_dir)
        self._lending = Lending(context, self._configs)
        self._switches = switches.Switches(place.base(state_dir) / "forwarding.json")
        self._networks: tuple[ServedNetwork, ...] = ()
        self._in_force: tuple[tuple[ServedNetwork, ...], Doors] | None = None
        self._fingerprint = ""
        self._drift = ""
        self._faults: dict[str, str] = {}
        self._lock = asyncio.Lock()
        self._poked = asyncio.Event()

    def calls(self) -> Mapping[str, Callable[[Request], Awaitable[Plain]]]:
        """The calls of this part."""
        return {"networks.leases": self._call_leases}

    @property
    def health(self) -> Health:
        """Degraded while anything of what is wanted is not served."""
        if not self._faults:
            return HEALTHY
        first = next(iter(sorted(self._faults.items())))[1]
        more = f" (and {len(self._faults) - 1} more)" if len(self._faults) > 1 else ""
        return Health(HealthState.DEGRADED, first + more)

    async def serve(self, networks: tuple[ServedNetwork, ...]) -> None:
        """Bring the host to what the networks need; what fails shows in ``health``."""
        async with self._lock:
            before = self._faults
            try:
                await self._serve(networks)
            finally:
                self._tell(before)

    async def follow(self) -> None:
        """Keep it so, for ever: look after each change of links or of our table, and regularly."""
        while True:
            waiting = [
                asyncio.ensure_future(self._poked.wait()),
                asyncio.ensure_future(self._changes.changed.wait()),
            ]
            try:
                await asyncio.wait(
                    waiting, timeout=LOOK_PERIOD_S, return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                for item in waiting:
                    item.cancel()
            await asyncio.sleep(SETTLE_S)
            self._poked.clear()
            await self.look()

    def poke(self) -> None:
        """Links have changed."""
        self._poked.set()

    async def look(self) -> None:
        """Compare the host with what is served, mend what is ours to mend, and count leases."""
        async with self._lock:
            before = self._faults
            try:
                await self._look()
            finally:
                self._tell(before)
        self._lending.measure(self._with_dnsmasq())

    def close(self) -> None:
        """Stop following; what is served goes on."""
        self._changes.close()

    # -- one after another, under the lock ------------------------------------------------------

    async def _serve(self, networks: tuple[ServedNetwork, ...]) -> None:
        self._networks, self._faults, self._drift = networks, {}, ""
        texts = self._texts()
        await self._note("forwarding", self._note_switches)
        if networks:
            await self._note("rules", self._put_rules)
            await self._note("forwarding", self._open_doors)
        for network in networks:
            if (text := texts.get(network.name)) is not None:
                await self._run(network, text)
        await self._note("dnsmasq", self._drop_others)
        await self._note("forwarding", self._close_doors)
        if not networks or self._in_force != (networks, self._doors()):
            await self._note("rules", self._put_rules)
        if not networks and not self._faults:
            self._configs.remove_all()

    async def _look(self) -> None:
        if not self._networks:
            if place.base(self._state_dir).exists():
                await self._serve(())  # something could not be taken away
            return
        self._faults = {}
        if self._changes.has_changed():
            await self._note("rules", self._verify_rules)
        if self._drift:
            self._faults["rules"] = self._drift
        elif self._in_force != (self._networks, self._doors()) or self._has_new_door():
            # Another way into the world: its switch is noted before the rules speak of it.
            await self._note("forwarding", self._note_switches)
            await self._note("rules", self._put_rules)
            await self._note("forwarding", self._open_doors)
        for item in self._switches.off(self._needed()):
            self._faults["forwarding"] = f"net/{item} was turned off by somebody else"
        await self._note("dnsmasq", self._look_at_children)

    async def _look_at_children(self) -> None:
        texts = self._texts()
        await self._drop_others()
        states = await self._children.states()
        for network in self._networks:
            text = texts.get(network.name)
            if text is None:
                continue
            fault = states.get(network.name)
            if fault:
                self._faults[network.name] = f"network {network.name}: {fault}"
            if fault is None or not self._is_as_started(network, text):
                await self._run(network, text)

    async def _run(self, network: ServedNetwork, text: str) -> None:
        """Have a network's dnsmasq run with a text, in a new process where it must."""
        name, mark = network.name, self._mark(network, text)
        try:
            if text != self._configs.read(name):
                await configs.test({name: text})
                self._configs.publish(name, text)
            elif self._is_as_started(network, text) and name in await self._children.states():
                return  # it runs, or its supervisor tries it again
            await self._children.start(name)
            self._configs.note_started(name, mark)
            self._faults.pop(name, None)
            self._context.emit("networks:served", network=name)
        except DnsmasqFailedError as exc:  # its supervisor tries it again, with this
            self._faults[name] = exc.message
            with contextlib.suppress(NovacronError):
                self._configs.note_started(name, mark)
        except NovacronError as exc:
            self._faults[name] = exc.message

    def _is_as_started(self, network: ServedNetwork, text: str) -> bool:
        """Whether its dnsmasq read this text and has its sockets on this link."""
        has_text = self._configs.read(network.name) == text
        return has_text and self._configs.read_started(network.name) == self._mark(network, text)

    async def _drop_others(self) -> None:
        wanted = set(self._with_dnsmasq())
        known = {*self._configs.names(), *await self._children.states()}
        for name in sorted(known - wanted):
            try:
                await self._children.stop(name)
            except NovacronError as exc:
                self._faults[name] = exc.message
                continue
            self._configs.remove([name])
            self._lending.forget(name)

    async def _note_switches(self) -> None:
        if self._networks or place.base(self._state_dir).exists():
            place.make_base(self._state_dir)
            self._switches.load()
            self._switches.note(self._needed())

    async def _open_doors(self) -> None:
        if self._in_force is not None and "rules" not in self._faults:
            self._switches.turn_on(self._needed())

    async def _close_doors(self) -> None:
        if self._switches.opened.previous:
            self._switches.put_back(self._needed())

    async def _put_rules(self) -> None:
        doors = self._doors()
        listing = await self._nft.read() if self._networks or self._knows_nft() else None
        if listing is None:
            return
        commands = rules.render(self._networks, doors, is_present=listing.present is not None)
        if commands:
            with self._changes.ours():
                await self._nft.commit(commands)
        self._changes.forget()
        listing = await self._nft.read()
        # Somebody may have deleted it at once; what is not there is not what was put there.
        is_there = listing.present is not None or not self._networks
        self._fingerprint = listing.fingerprint
        self._in_force, self._drift = (self._networks, doors), "" if is_there else _DRIFT

    async def _verify_rules(self) -> None:
        self._changes.forget()
        is_same = (await self._nft.read()).fingerprint == self._fingerprint
        self._drift = "" if is_same else _DRIFT

    def _knows_nft(self) -> bool:
        with contextlib.suppress(NovacronError):
            return bool(self._nft.find())
        return False

    async def _note(self, where: str, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except NovacronError as exc:
            self._faults[where] = exc.message
        except OSError as exc:
            self._faults[where] = f"{where}: {exc.strerror}"

    def _tell(self, before: Mapping[str, str]) -> None:
        for where, fault in self._faults.items():
            if before.get(where) != fault:
                self._context.log.warning("not_served", network=where, reason=fault)
                self._context.emit("networks:not-served", network=where, reason=fault)
        self._on_change()

    # -- small ones -----------------------------------------------------------------------------

    def _doors(self) -> Doors:
        if not self._networks:
            return _NOBODY
        return forwarding.doors(
            self._networks,
            self._switches.opened,
            forwards_all4=switches.value(forwarding.ALL4) == forwarding.ON,
            mtus={link.name: link.mtu for link in self._links()},
            uplinks=switches.read_uplinks(),
        )

    def _texts(self) -> dict[str, str]:
        found = {}
        for network in self._networks:
            if network.needs_dnsmasq:
                try:
                    found[network.name] = _text(network, self._links())
                except DnsmasqConfigError as exc:
                    self._faults[network.name] = exc.message
        return found

    def _mark(self, network: ServedNetwork, text: str) -> str:
        """What a dnsmasq depends on: its file, and the link and addresses of its sockets."""
        own = {str(subnet.interface.ip) for subnet in network.subnets}
        words = [hashlib.sha256(text.encode()).hexdigest()]
        for link in self._links():
            if link.name == network.link:
                has = {address.partition("/")[0] for address in link.addresses}
                words += [str(link.index), *sorted(own & has)]
        return " ".join(words)

    def _needed(self) -> tuple[str, ...]:
        return forwarding.wanted(self._networks, switches.read_uplinks())

    def _has_new_door(self) -> bool:
        return any(item not in self._switches.opened.previous for item in self._needed())

    def _with_dnsmasq(self) -> list[str]:
        return [network.name for network in self._networks if network.needs_dnsmasq]

    async def _call_leases(self, request: Request) -> Plain:
        return to_wire(self._lending.answer(request, self._with_dnsmasq()))


async def check(networks: Iterable[ServedNetwork], links: Iterable[Link]) -> None:
    """Have dnsmasq read what it would be told of networks; changes nothing.

    Raises:
        DnsmasqMissingError, NftMissingError: a program is missing.
        DnsmasqConfigError: dnsmasq refuses a configuration; the message names the network.
    """
    Nft().find()
    links = tuple(links)
    texts = {item.name: _text(item, links) for item in networks if item.needs_dnsmasq}
    if texts:
        await configs.test(texts)


def _text(network: ServedNetwork, links: Iterable[Link]) -> str:
    mtus = {link.name: link.mtu for link in links}
    try:
        return dnsmasq.render(network, mtu=mtus.get(network.link))
    except ValueError as exc:
        raise DnsmasqConfigError(f"network {network.name}: {exc}", network=network.name) from exc
