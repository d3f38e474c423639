"""The node's keys as a value, and every change that there is: decisions only, nothing is touched.

    active          seals new values; exactly one
    decrypt-only    opens what it sealed; re-encryption works towards nobody needing it
    retired         a scan found nothing sealed with it; still opens, may be removed after a time

    from            to              by
    -               active          rotate (the active key becomes decrypt-only)
    active          decrypt-only    rotate
    decrypt-only    retired         retire, after a scan that found no use
    retired         decrypt-only    revive, when a scan finds a use after all (a restored database)
    retired         -               remove, asked for by a person, GRACE_S after it was retired

Invariant: one active key; no two keys of one id; the generation grows with every change; no key
leaves but by ``remove``; what is reserved of a key never shrinks. The audit key is kept beside
the data keys and takes no part in this.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from services.security.errors import KeyExhaustedError, KeyRefusedError

# Nonces are random. After 2^28 values the chance that any two of a key are equal is 2^-41; NIST
# SP 800-38D, 8.3, allows 2^32, where it is 2^-33.
USES_MAX = 1 << 28
# A new key is due here, so that the limit itself is met only while no key can be made.
USES_ROTATE = USES_MAX // 2
# Uses are reserved on disk before they are made, this many at a time: a crash costs at most so
# many, and a process that restarts at once and again can do so 2048 times before a new key is due.
USES_RESERVED = 1 << 16
# Eleven years of a key per day.
KEYS_MAX = 4096
# A database's backup that is older than this should not be needed any more.
GRACE_S = 7 * 86400.0


class KeyState(enum.Enum):
    """See the table above."""

    ACTIVE = "active"
    DECRYPT_ONLY = "decrypt-only"
    RETIRED = "retired"


class KeyPurpose(enum.Enum):
    """What a key is for: sealing values, or signing audit records."""

    DATA = "data"
    AUDIT = "audit"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyEntry:
    """One key of the set.

    Attributes:
        id: 16 hexadecimal digits; of a data key, what the values that it sealed begin with.
        purpose: data or audit.
        state: see above; an audit key is always active.
        created_s: Unix time.
        wrapped: the key, encrypted under the master key.
        reserved: uses that were made or may have been; never less than were made.
        retired_s: Unix time, of a retired key.
    """

    id: str
    purpose: KeyPurpose
    state: KeyState
    created_s: float
    wrapped: bytes
    reserved: int = 0
    retired_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyset:
    """All keys of a node.

    Attributes:
        node_id: whose they are.
        generation: grows with every change; 1 for the first.
        master_id: of the master key that wraps them.
        entries: in the order in which they were made.
        backed_up_s: Unix time of the last backup of this master key; None without one.
    """

    node_id: str
    generation: int
    master_id: str
    entries: tuple[KeyEntry, ...]
    backed_up_s: float | None = None

    @property
    def data(self) -> tuple[KeyEntry, ...]:
        """The data keys."""
        return tuple(entry for entry in self.entries if entry.purpose is KeyPurpose.DATA)

    @property
    def active(self) -> KeyEntry:
        """The data key that seals new values."""
        return next(entry for entry in self.data if entry.state is KeyState.ACTIVE)

    @property
    def audit(self) -> KeyEntry:
        """The newest audit key."""
        return [entry for entry in self.entries if entry.purpose is KeyPurpose.AUDIT][-1]

    def find(self, key_id: str) -> KeyEntry | None:
        """The data key of that id."""
        return next((entry for entry in self.data if entry.id == key_id), None)


def fault(keyset: Keyset) -> str:
    """Say how a keyset breaks the invariant; "" when it does not."""
    ids = [entry.id for entry in keyset.entries]
    if len(set(ids)) != len(ids):
        return "two keys have one id"
    if [entry.state for entry in keyset.data].count(KeyState.ACTIVE) != 1:
        return "not exactly one data key is active"
    if not any(entry.purpose is KeyPurpose.AUDIT for entry in keyset.entries):
        return "there is no audit key"
    if any((entry.retired_s is None) is (entry.state is KeyState.RETIRED) for entry in keyset.data):
        return "a key's state and its time of retirement differ"
    if not all(0 <= entry.reserved <= USES_MAX for entry in keyset.entries):
        return "a key's uses are out of range"
    if keyset.generation < 1 or len(ids) > KEYS_MAX:
        return "the generation or the number of keys is out of range"
    return ""


def rotation_reason(keyset: Keyset, *, now_s: float, interval_s: float) -> str:
    """Why a new data key is due; "" when none is.

    Args:
        keyset: the keys.
        now_s: Unix time.
        interval_s: age at which a key is replaced. A key from the future is as suspect as an old
            one: one of the two times is wrong, so it counts by its distance.
    """
    active = keyset.active
    if active.reserved >= USES_ROTATE:
        return "uses"
    if abs(now_s - active.created_s) >= interval_s:
        return "age"
    return ""


def rotate(keyset: Keyset, new: KeyEntry) -> Keyset:
    """Make ``new`` the active key.

    Raises:
        KeyRefusedError: there are too many keys already.
    """
    if len(keyset.entries) >= KEYS_MAX:
        raise KeyRefusedError(
            f"there are {KEYS_MAX} keys; re-encrypt and remove retired ones: "
            "novacronctl keys reencrypt, novacronctl keys remove --retired"
        )
    entries = tuple(
        replace(entry, state=KeyState.DECRYPT_ONLY) if entry == keyset.active else entry
        for entry in keyset.entries
    )
    return _changed(keyset, (*entries, new))


def reserve(keyset: Keyset, uses: int = USES_RESERVED) -> Keyset:
    """Set uses of the active key aside.

    Raises:
        KeyExhaustedError: it has too few left.
    """
    active = keyset.active
    if active.reserved + uses > USES_MAX:
        raise KeyExhaustedError(
            f"data key {active.id} has sealed {active.reserved} values and may seal no more; a new "
            "key is due and could not be made, see the security process's log"
        )
    return _replaced(keyset, {active.id: replace(active, reserved=active.reserved + uses)})


def settle(
    keyset: Keyset, used: Collection[str], *, idle: Collection[str], now_s: float
) -> Keyset | None:
    """Retire the keys that nothing needs, and take back those that something does.

    Args:
        keyset: the keys.
        used: ids that a complete scan of everything sealed found.
        idle: ids of the keys that sealed nothing any more when the scan began. One that was
            active then may have sealed what the scan had passed.
        now_s: Unix time.

    Returns:
        None when nothing changes.
    """
    changes: dict[str, KeyEntry] = {}
    for entry in keyset.data:
        if entry.state is KeyState.DECRYPT_ONLY and entry.id in idle and entry.id not in used:
            changes[entry.id] = replace(entry, state=KeyState.RETIRED, retired_s=now_s)
        elif entry.state is KeyState.RETIRED and entry.id in used:
            changes[entry.id] = replace(entry, state=KeyState.DECRYPT_ONLY, retired_s=None)
    return _replaced(keyset, changes) if changes else None


def remove(
    keyset: Keyset, key_ids: Collection[str], *, used: Collection[str], now_s: float
) -> Keyset:
    """Take retired keys out for good.

    Args:
        keyset: the keys.
        key_ids: which.
        used: ids that a complete scan just found.
        now_s: Unix time.

    Raises:
        KeyRefusedError: one of them is unknown, needed, not retired, or not for long enough.
    """
    for key_id in key_ids:
        _require_removable(keyset.find(key_id), key_id, used, now_s)
    kept = tuple(entry for entry in keyset.entries if entry.id not in key_ids)
    return _changed(keyset, kept)


def removable(keyset: Keyset, *, now_s: float) -> tuple[str, ...]:
    """The keys that were retired long enough ago."""
    return tuple(
        entry.id
        for entry in keyset.data
        if entry.retired_s is not None and now_s - entry.retired_s >= GRACE_S
    )


def rewrap(keyset: Keyset, master_id: str, wrapped: Mapping[str, bytes]) -> Keyset:
    """Put all keys under another master key; ``wrapped`` has one for each id."""
    entries = tuple(replace(entry, wrapped=wrapped[entry.id]) for entry in keyset.entries)
    return replace(_changed(keyset, entries), master_id=master_id, backed_up_s=None)


def note_backup(keyset: Keyset, *, now_s: float) -> Keyset:
    """Remember that the master key was backed up."""
    return replace(_changed(keyset, keyset.entries), backed_up_s=now_s)


def _require_removable(
    entry: KeyEntry | None, key_id: str, used: Collection[str], now_s: float
) -> None:
    if entry is None:
        raise KeyRefusedError(f"there is no data key {key_id}: novacronctl keys list")
    if key_id in used:
        raise KeyRefusedError(f"values are still sealed with {key_id}: novacronctl keys reencrypt")
    if entry.retired_s is None:
        raise KeyRefusedError(
            f"data key {key_id} is {entry.state.value}; only retired ones can be removed"
        )
    if (left_s := entry.retired_s + GRACE_S - now_s) > 0:
        raise KeyRefusedError(
            f"data key {key_id} can be removed in {left_s / 3600:.0f} h; until then a backup of "
            "the database may still need it"
        )


def _replaced(keyset: Keyset, changes: Mapping[str, KeyEntry]) -> Keyset:
    return _changed(keyset, tuple(changes.get(entry.id, entry) for entry in keyset.entries))


def _changed(keyset: Keyset, entries: tuple[KeyEntry, ...]) -> Keyset:
    return replace(keyset, generation=keyset.generation + 1, entries=entries)
