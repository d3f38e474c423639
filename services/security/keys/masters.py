"""The master keys that a start finds, and the way of a new one into the place of another.

Files of ``<state>/security``: ``master.key``, ``master.key.next`` while another is about to take
its place, ``master.key.old`` until nothing needs the one before. recovery.py has the order.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from services.security.errors import KeyRefusedError, MasterKeyError
from services.security.keys.disk import Disk, FileProblemError
from services.security.keys.master import MASTER_KEY_BYTES, MasterKey
from services.security.keys.sources import OutsideSource

MASTER, NEXT, OLD = "master.key", "master.key.next", "master.key.old"


class Masters:
    """The master keys of one node.

    Args:
        disk: the level's directory.
        outside: gives the master key where it is not a file's.
        random: makes a new one.

    Attributes:
        known: all that were found, by id.
    """

    def __init__(
        self, disk: Disk, outside: OutsideSource | None, random: Callable[[int], bytes]
    ) -> None:
        self._disk = disk
        self._outside = outside
        self._random = random
        self._files: dict[str, str] = {}  # name of a file to the id of the key in it
        self.known: dict[str, MasterKey] = {}

    @property
    def current(self) -> str:
        """The id of the key in its place; "" without one."""
        return self._files.get(MASTER, "")

    @property
    def next(self) -> str:
        """The id of the key that is about to take its place; "" without one."""
        return self._files.get(NEXT, "")

    @property
    def old(self) -> str:
        """The id of the key before; "" without one."""
        return self._files.get(OLD, "")

    def place(self, master_id: str) -> str:
        """The name of a key's file, or ``outside``."""
        return next((name for name, found in self._files.items() if found == master_id), "outside")

    def load(self) -> tuple[str, ...]:
        """Read all that there are; returns the ids of those from outside.

        Raises:
            MasterKeyError: one can't be used.
        """
        for name in (MASTER, NEXT, OLD):
            self._read(name)
        outside = () if self._outside is None else self._outside.load()
        self.known |= {key.id: key for key in outside}
        return tuple(key.id for key in outside)

    def make(self) -> MasterKey:
        """Make the node's first one."""
        return self._create(MASTER)

    def first(self) -> MasterKey:
        """The one that a node without a keyset begins with."""
        if self.current:
            return self.known[self.current]
        assert self._outside is not None, "there is one, or the start was refused"
        return self._outside.load()[0]

    def target(self, present_id: str) -> MasterKey:
        """The one that the keys are to be put under instead of ``present_id``.

        Raises:
            KeyRefusedError: there is no other one.
            KeyStorageError: it can't be written.
        """
        if self._outside is None:
            # One that a failed attempt left is used: a keyset on the disk may be under it.
            return self.known[self.next] if self.next else self._create(NEXT)
        target = self._outside.target()
        if target.id == present_id:
            raise KeyRefusedError(
                "the keys are under this master key already: give the new one from outside as "
                "well, under the same name with .next behind it, and try again"
            )
        self.known[target.id] = target
        return target

    def install(self, target: MasterKey) -> None:
        """Put a key into its place; the keyset is under it already."""
        if target.id == self.next:
            self.promote()
        else:
            self.leave_current()

    def promote(self) -> None:
        """Put the next one into its place and keep the one before."""
        if self.current:
            self._disk.link(MASTER, OLD)
            self._files[OLD] = self.current
        self._disk.rename(NEXT, MASTER)
        self._files[MASTER] = self._files.pop(NEXT)

    def leave_current(self) -> None:
        """Let a key from outside be the only one; the file's is kept as the one before."""
        if self.current:
            self._disk.rename(MASTER, OLD)
            self._files[OLD] = self._files.pop(MASTER)

    def drop_next(self) -> None:
        """Remove one that nothing is under."""
        self._disk.remove(NEXT)
        self._files.pop(NEXT, None)

    def drop_old(self) -> None:
        """Remove the one before."""
        self._disk.remove(OLD)
        self._files.pop(OLD, None)

    def _create(self, name: str) -> MasterKey:
        self._disk.create(name, self._random(MASTER_KEY_BYTES))
        self._read(name)
        return self.known[self._files[name]]

    def _read(self, name: str) -> None:
        path = self._disk.place(name)
        try:
            content = self._disk.read(name, size_max=MASTER_KEY_BYTES)
        except FileProblemError as exc:
            raise _refused(path, str(exc)) from exc
        if content is None:
            return
        if len(content) != MASTER_KEY_BYTES:
            size = self._disk.size(name)
            raise _refused(path, f"has {size} bytes and not {MASTER_KEY_BYTES}")
        key = MasterKey(content)
        self.known[key.id] = key
        self._files[name] = key.id


def _refused(path: str, problem: str) -> MasterKeyError:
    return MasterKeyError(
        f"{path} {problem}; it must hold {MASTER_KEY_BYTES} bytes, mode 0600, of user "
        f"{os.geteuid()}: repair it or restore it from a backup, it is not replaced",
        path=path,
    )
