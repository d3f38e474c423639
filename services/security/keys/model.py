"""The settings of the keys, and the records of the calls about keys and sealed values.

For operators, of the process ``security``:

    keys.list            nothing -> KeyList
    keys.status          nothing -> KeysStatus
    keys.rotate          nothing -> {"key_id": text}
    keys.rotate_master   nothing -> {"master_id": text}
    keys.reencrypt       nothing -> KeysStatus; the job goes on by itself
    keys.remove          RemoveRequest -> {"removed": [text, ...]}
    keys.backup          BackupRequest -> BackupReply

For components, each of which reaches its own values only:

    sealed.put      PutRequest -> {"key_id": text}; durable when it answers
    sealed.get      NameRequest -> {"value": bytes or null, "updated_s": number or null}
    sealed.delete   NameRequest -> {"deleted": bool}
    sealed.list     ListRequest -> ValueList

Events: key:rotated, key:master-rotated, key:retired, key:reencrypted, key:removed, key:backed-up,
key:failed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from services.security.keys.keyset import KeyState

NAMES_MAX = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class EncryptionSettings:
    """How the keys are kept.

    Attributes:
        rotation_interval_s: ``security.encryption.keyRotationInterval``.
        master_key: ``security.encryption.masterKey``; see sources.py.
    """

    rotation_interval_s: float = 86400.0
    master_key: str = "file"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyInfo:
    """One data key.

    Attributes:
        id: what values sealed with it begin with, behind the version.
        state: see keyset.py.
        created_s: Unix time.
        reserved: uses that were made or may have been.
        retired_s: Unix time; None for a key that is not retired.
        values: how many values are sealed with it now.
        is_removable: it was retired long enough ago.
    """

    id: str
    state: KeyState
    created_s: float
    reserved: int = 0
    retired_s: float | None = None
    values: int = 0
    is_removable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyList:
    """The data keys in the order in which they were made; ``unknown`` are values of no key here."""

    keys: tuple[KeyInfo, ...]
    unknown: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """The re-encryption.

    Attributes:
        is_running: it moves values now, or waits for what ``waits_for`` says.
        waits_for: why it does not go on; "" when it does.
        moved: values that were sealed anew since it began, over restarts.
        unreadable: values that could not be opened and were left as they are.
        left: values that are still sealed with another key than the active one, by key.
        started_s, finished_s: Unix times of the last one; None without.
    """

    is_running: bool = False
    waits_for: str = ""
    moved: int = 0
    unreadable: int = 0
    left: dict[str, int] = field(default_factory=dict)
    started_s: float | None = None
    finished_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysStatus:
    """The keys at the moment.

    Attributes:
        active: id of the key that seals.
        active_since_s: Unix time at which it was made.
        rotates_s: Unix time at which it is replaced.
        reserved, uses_max: of its uses; a new one is made when half of them are reserved.
        counts: data keys by state.
        generation: of the keyset.
        mirrored: generation that the database has; 0 while it is not known.
        master_id: of the master key that wraps the keys.
        master_source: as configured.
        master_place: the file that has it, or ``outside``.
        has_old_master: the one before is still kept.
        backed_up_s: Unix time of the last backup of this master key; None without one.
        trouble: what does not work; "" when all does.
        job: the re-encryption.
    """

    active: str
    active_since_s: float
    rotates_s: float
    reserved: int
    uses_max: int
    counts: dict[str, int]
    generation: int
    mirrored: int
    master_id: str
    master_source: str
    master_place: str
    has_old_master: bool = False
    backed_up_s: float | None = None
    trouble: str = ""
    job: JobStatus = field(default_factory=JobStatus)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveRequest:
    """The retired key to remove, or ``all_retired`` that were retired long enough ago."""

    id: str = ""
    all_retired: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupRequest:
    """The key of 32 bytes, made from a passphrase, under which the master key is sealed."""

    key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupReply:
    """What goes into the backup's file."""

    node_id: str
    master_id: str
    generation: int
    sealed: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PutRequest:
    """A value to keep sealed; an older one of the name is replaced."""

    name: str
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NameRequest:
    """The value of that name."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ListRequest:
    """The names that begin so, after another name; at most NAMES_MAX."""

    prefix: str = ""
    after: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueInfo:
    """One value, without the value."""

    name: str
    key_id: str
    updated_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueList:
    """Values in the order of their names; ``next`` is what to go on after, "" at the end."""

    values: tuple[ValueInfo, ...]
    next: str = ""
