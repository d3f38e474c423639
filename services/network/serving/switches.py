"""The kernel's forwarding switches: read, turned on with a note of what was before, put back.

The note is on disk before a switch is touched, so a process that dies in between leaves nothing
on that the next one does not know of. Files below /proc/sys/net are those of the caller's network
namespace.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from protocol.errors import RemoteProtocolError
from protocol.records import from_wire, to_wire
from services.network.serving.errors import ForwardingError, ServingStateError
from services.network.serving.files import write
from services.network.serving.forwarding import ALL4, ALL6, ON, Opened, switch, to_restore

_NET = Path("/proc/sys/net")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_BYTES_MAX = 1 << 20
# A host's links may come and go while they are listed.
_LINKS_MAX = 65536
_HEX_ZERO4 = "00000000"
_HEX_ZERO6 = "0" * 32
_ROUTE_UP = 1
_ROUTE_REJECT = 0x200


class Switches:
    """The switches of this host.

    Args:
        file: the note of what was before.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.opened = Opened()

    def load(self) -> None:
        """Read the note, and end what a dead process had begun.

        Raises:
            ServingStateError: it is damaged, or can't be written.
        """
        boot_id = _read(_BOOT_ID) or ""
        found = self._load()
        self.opened = found if found.boot_id == boot_id else Opened(boot_id=boot_id)
        if self.opened.passing:
            self._let_pass(self.opened.passing)

    def note(self, places: Iterable[str]) -> None:
        """Note what switches are, before they are turned on.

        Raises:
            ServingStateError: the note can't be written.
        """
        previous = dict(self.opened.previous)
        for place in places:
            before = _read(_NET / place)
            if before is not None and place not in previous:
                previous[place] = before
        if previous != self.opened.previous:
            self._save(replace(self.opened, previous=previous))

    def turn_on(self, places: Iterable[str]) -> None:
        """Turn on switches that are noted.

        Raises:
            ForwardingError: the kernel refuses.
        """
        for place in places:
            if place in self.opened.previous and _read(_NET / place) not in (ON, None):
                self._set(place, ON)

    def put_back(self, needed: Iterable[str]) -> None:
        """Put back what nobody needs any more; errors as in ``note`` and ``turn_on``."""
        keep = set(needed)
        if _read(_NET / ALL4) == ON:  # somebody wants it between all links
            keep |= {place for place in self.opened.previous if place.startswith("ipv4/")}
        now = {place: _read(_NET / place) for place in self.opened.previous}
        for place, value in to_restore(self.opened, keep, now).items():
            self._set(place, value)
        previous = {place: it for place, it in self.opened.previous.items() if place in keep}
        if previous != self.opened.previous:
            self._save(replace(self.opened, previous=previous))

    def off(self, places: Iterable[str]) -> list[str]:
        """Which of these are not on now, of links that are there."""
        return [place for place in places if _read(_NET / place) not in (ON, None)]

    def _set(self, place: str, value: str) -> None:
        if place == ALL6:
            self._set_all6(value)
            return
        try:
            (_NET / place).write_text(value)
        except FileNotFoundError:
            return  # its link is gone
        except OSError as exc:
            raise ForwardingError(f"can't set net/{place} to {value}: {exc.strerror}") from exc

    def _set_all6(self, value: str) -> None:
        """Set IPv6's common switch and leave every link as it was.

        The kernel copies it to all links, where it means "router", and throws away default routes
        that it learned from advertisements, except on links that take them as routers too
        (accept_ra 2). So these are that for a moment.
        """
        links = sorted(path.name for path in (_NET / "ipv6/conf").iterdir())[:_LINKS_MAX]
        accepts = [f"ipv6/conf/{link}/accept_ra" for link in links if link != "all"]
        accepts = [place for place in accepts if _read(_NET / place) == "1"]
        places = [switch(6, link) for link in links if link != "all"] + accepts
        before = {place: now for place in places if (now := _read(_NET / place)) is not None}
        self._save(replace(self.opened, passing=before))
        try:
            for place in accepts:
                _put(place, "2")
            (_NET / ALL6).write_text(value)
        except OSError as exc:
            raise ForwardingError(f"can't set net/{ALL6} to {value}: {exc.strerror}") from exc
        finally:
            self._let_pass(before)

    def _let_pass(self, before: Mapping[str, str]) -> None:
        """Put back what a change of the common switch disturbed; links' roles first."""
        for place, value in before.items():
            if _read(_NET / place) != value:
                _put(place, value)
        self._save(replace(self.opened, passing={}))

    def _load(self) -> Opened:
        try:
            data = self._file.read_bytes()[: _BYTES_MAX + 1]
        except FileNotFoundError:
            return Opened()
        except OSError as exc:
            raise ServingStateError(f"can't read {self._file}: {exc.strerror}") from exc
        try:
            return from_wire(Opened, json.loads(data))
        except (ValueError, RemoteProtocolError) as exc:
            raise ServingStateError(
                f"{self._file} is not understood ({exc}): move it away and restart core/network; "
                "forwarding then stays as it is when the networks go"
            ) from exc

    def _save(self, opened: Opened) -> None:
        write(self._file, json.dumps(to_wire(opened)), mode=0o600)
        self.opened = opened


def value(place: str) -> str | None:
    """A switch's present value; None where there is none."""
    return _read(_NET / place)


def read_uplinks() -> dict[int, tuple[str, ...]]:
    """The links with a default route, by version of IP.

    Source: proc_pid_net(5); linux/ipv6_route.h. Both are tables of text with a line per route.
    """
    ip4 = [
        words[0]
        for words in _lines("/proc/thread-self/net/route")
        if len(words) >= 8
        and words[1] == words[7] == _HEX_ZERO4
        and int(words[3], 16) & _ROUTE_UP
        and not int(words[3], 16) & _ROUTE_REJECT
    ]
    ip6 = [
        words[9]
        for words in _lines("/proc/thread-self/net/ipv6_route")
        if len(words) >= 10
        and words[0] == _HEX_ZERO6
        and words[1] == "00"
        and int(words[8], 16) & _ROUTE_UP
        and not int(words[8], 16) & _ROUTE_REJECT
    ]
    return {4: tuple(dict.fromkeys(ip4)), 6: tuple(dict.fromkeys(ip6))}


def _put(place: str, value: str) -> None:
    with contextlib.suppress(OSError):  # its link is gone
        (_NET / place).write_text(value)


def _read(file: Path) -> str | None:
    try:
        return file.read_text().strip()
    except OSError:
        return None


def _lines(file: str) -> list[list[str]]:
    try:
        return [line.split() for line in Path(file).read_text().splitlines()]
    except OSError:
        return []
