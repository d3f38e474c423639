"""Who a client key belongs to, and until when: the identities of a tree, as files.

A server knows a caller by the CURVE key of its connection. For each key that may call there is a
file in ``<run>/identities``, named by the key in hexadecimal; whoever issues a key writes the file
and removes it. What every process of a tree has to notice at its next message, a revocation or
another policy, advances a counter that all of them see in shared memory (``<run>/epoch``): the
times of files tick too slowly to tell two changes apart.

File shape, a msgpack map::

    name         path of the process, or ``operator/<user name>``
    expires_s    on the host's clock since its boot, suspension included (CLOCK_BOOTTIME)
    incarnation  which process of the child it is; 0 for a person
    uid, gids    numbers of a person's account; -1 and none for a process

Such times never jump, and a key that was copied from a memory image of the host has run out.
"""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path

from protocol import codec, run_files
from protocol.dataclass import dataclass
from protocol.errors import RemoteProtocolError
from protocol.records import from_wire, to_wire
from protocol.run_files import EPOCH, IDENTITIES, REVOKED
from protocol.transports.curve import raw_key

_PAGE_BYTES = 8
# An identity has some 100 bytes; a person is in at most 65,536 groups, and in some ten.
_FILE_BYTES_MAX = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a key belongs to; the module says what the fields mean."""

    name: str
    expires_s: float
    incarnation: int = 0
    uid: int = -1
    gids: tuple[int, ...] = ()


def boottime_s() -> float:
    """Seconds since the host's boot, suspension included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def directory(run: Path) -> Path:
    """Where the identities of a tree are."""
    return run / IDENTITIES


def prepare(run: Path) -> None:
    """Make the directory and the counter anew; for the root, before any child runs."""
    run_files.remove(run)
    directory(run).mkdir(mode=0o700)
    replace_file(run / EPOCH, bytes(_PAGE_BYTES))


def issue(run: Path, public: bytes, identity: Identity) -> None:
    """Let a key call from now on."""
    replace_file(directory(run) / raw_key(public).hex(), codec.encode(to_wire(identity)))


def withdraw(run: Path, public: bytes) -> None:
    """Forget a key; a server that has seen it may believe it until it expires."""
    (directory(run) / raw_key(public).hex()).unlink(missing_ok=True)


def is_issued(run: Path, public: bytes) -> bool:
    """Whether a key may call, as far as the files say."""
    return (directory(run) / raw_key(public).hex()).exists()


def find(run: Path, user_id: str) -> Identity | None:
    """The identity of a key.

    Args:
        run: the run directory.
        user_id: the key in hexadecimal.
    """
    try:
        with (directory(run) / user_id).open("rb") as file:
            return from_wire(Identity, codec.decode(file.read(_FILE_BYTES_MAX)))
    except (OSError, RemoteProtocolError):
        return None


def list_all(run: Path) -> list[tuple[str, Identity]]:
    """All identities that have been issued, by user id."""
    try:
        user_ids = sorted(file.name for file in directory(run).iterdir() if not file.suffix)
    except FileNotFoundError:
        return []
    read = ((user_id, find(run, user_id)) for user_id in user_ids)
    return [(user_id, identity) for user_id, identity in read if identity is not None]


def write_revoked(run: Path, revoked: frozenset[str]) -> None:
    """Say which names may not call; advance the counter afterwards."""
    replace_file(run / REVOKED, codec.encode(sorted(revoked)))


def read_revoked(run: Path) -> frozenset[str]:
    """The names that may not call.

    Raises:
        RemoteProtocolError: the list can't be read; nobody may call then.
    """
    try:
        return frozenset(codec.decode((run / REVOKED).read_bytes()))
    except FileNotFoundError:
        return frozenset()
    except (OSError, TypeError) as exc:
        raise RemoteProtocolError(f"the list of the revoked can't be read: {exc}") from exc


class Epoch:
    """The counter of a tree; 0 for ever where there is none.

    Args:
        run: the run directory.
        is_writable: for the root, who alone advances it.
    """

    def __init__(self, run: Path, *, is_writable: bool = False) -> None:
        self._view: memoryview | None = None
        access = mmap.ACCESS_WRITE if is_writable else mmap.ACCESS_READ
        flags = (os.O_RDWR if is_writable else os.O_RDONLY) | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(run / EPOCH, flags)
        except FileNotFoundError:
            return
        try:
            page = mmap.mmap(descriptor, _PAGE_BYTES, access=access)
        finally:
            os.close(descriptor)
        self._view = memoryview(page).cast("Q")

    @property
    def value(self) -> int:
        """The counter now; costs no system call."""
        return 0 if self._view is None else self._view[0]

    def advance(self) -> None:
        """Have every process look again at its next message."""
        assert self._view is not None
        self._view[0] += 1


def replace_file(target: Path, data: bytes) -> None:
    """Write a file of the run directory in one step, mode 0600."""
    temporary = target.with_name(f"{target.name}.new")
    descriptor = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
    )
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)
    temporary.rename(target)
