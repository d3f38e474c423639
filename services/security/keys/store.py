"""The keyset of a node on its disk: loaded, changed durably, and moved to another master key.

A change is written twice, keyset and then copy, before anybody uses it; recovery.py says why, and
what a start does after a crash at any point of it. One thread at a time: the caller sees to that.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from services.security.cipher import KEY_BYTES, KEY_ID_BYTES, NONCE_BYTES
from services.security.errors import KeyRefusedError, KeysetError, MasterKeyError
from services.security.keys import keyset as changes
from services.security.keys.codec import FILE_BYTES_MAX, Judged, Verdict, encode, judge
from services.security.keys.derived import derive_keys
from services.security.keys.disk import Disk, FileProblemError
from services.security.keys.keyset import KeyEntry, KeyPurpose, Keyset, KeyState
from services.security.keys.master import MasterKey
from services.security.keys.masters import MASTER, Masters
from services.security.keys.recovery import Observed, Origin, Refuse, Step, Use, decide
from services.security.keys.sources import OutsideSource

KEYSET, COPY, MARK, ADOPT = "keyset", "keyset.copy", ".has-keyset", "adopt-keyset"
ASIDE = ".replaced"


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a start came to: where the keys are from, and what an operator should know of it."""

    origin: Origin
    remark: str
    mirror: Verdict


class KeyStore:
    """The keys of one node.

    Args:
        disk: the level's directory.
        node_id: whose keys they are.
        outside: gives the master key where it is not a file's.
        random: makes keys and nonces.

    Attributes:
        keyset: as it is on the disk; there once ``load`` has returned.
    """

    keyset: Keyset

    def __init__(
        self,
        disk: Disk,
        *,
        node_id: str,
        outside: OutsideSource | None = None,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._disk = disk
        self._node_id = node_id
        self._random = random
        self._masters = Masters(disk, outside, random)
        self._content = b""
        # Of the newest that may have been written: a change that failed half way is never reused.
        self._written = 0

    @property
    def content(self) -> bytes:
        """The keyset as it was written, for the mirror."""
        return self._content

    @property
    def master(self) -> MasterKey:
        """The master key that wraps the keys."""
        return self._masters.known[self.keyset.master_id]

    @property
    def has_old_master(self) -> bool:
        """Whether the master key before this one is still kept."""
        return bool(self._masters.old)

    @property
    def place(self) -> str:
        """Where the master key is."""
        return self._masters.place(self.keyset.master_id)

    def load(
        self, mirror: bytes | None, *, has_data: bool, now_s: float, has_values: bool = False
    ) -> Loaded:
        """Bring the files into order and take the keys from them; the first start makes them.

        Args:
            mirror: the database's keyset; None without one.
            has_data: the node has written what only a node with a master key writes.
            now_s: Unix time.
            has_values: there are values that this node's keys sealed.

        Raises:
            MasterKeyError: a master key can't be used.
            KeysetError: the keyset can't be used.
            KeyStorageError: the disk is full or fails.
        """
        seen = self._observe(mirror, has_data=has_data, has_values=has_values)
        decision = decide(seen)
        if isinstance(decision, Refuse):
            lacks_master = not self._masters.known
            kind, name = (MasterKeyError, MASTER) if lacks_master else (KeysetError, KEYSET)
            path = self._disk.place(name)
            raise kind(f"{path}: {decision.reason}", path=path)
        self._take(decision, seen, now_s)
        return Loaded(decision.origin, decision.remark, seen.mirror.verdict)

    def unwrap(self, key_id: str) -> bytes | None:
        """A data key; None when there is none of that id.

        Raises:
            DecryptionError: it can't be unwrapped.
        """
        entry = self.keyset.find(key_id)
        return None if entry is None else self.master.unwrap(entry, node_id=self._node_id)

    def unwrap_audit(self) -> bytes:
        """The seed of the audit key."""
        return self.master.unwrap(self.keyset.audit, node_id=self._node_id)

    def audit_seeds(self) -> tuple[bytes, ...]:
        """The seeds of all audit keys, the newest last."""
        return tuple(
            self.master.unwrap(entry, node_id=self._node_id)
            for entry in self.keyset.entries
            if entry.purpose is KeyPurpose.AUDIT
        )

    def rotate(self, *, now_s: float) -> str:
        """Make a new active key; returns its id.

        Raises:
            KeyRefusedError: there are too many keys.
            KeyStorageError: it can't be written; the key before stays active.
        """
        new = self._new_entry(self.master, KeyPurpose.DATA, self._random(KEY_BYTES), now_s)
        self._save(changes.rotate(self.keyset, new))
        return new.id

    def reserve(self) -> int:
        """Set uses of the active key aside; returns how many.

        Raises:
            KeyExhaustedError: it has none left.
            KeyStorageError: they can't be written.
        """
        self._save(changes.reserve(self.keyset))
        return changes.USES_RESERVED

    def settle(self, used: Collection[str], *, idle: Collection[str], now_s: float) -> bool:
        """Retire what a scan found no use for; returns whether anything changed."""
        changed = changes.settle(self.keyset, used, idle=idle, now_s=now_s)
        if changed is not None:
            self._save(changed)
        return changed is not None

    def remove(self, key_ids: Collection[str], *, used: Collection[str], now_s: float) -> None:
        """Take retired keys out for good; see keyset.remove."""
        self._save(changes.remove(self.keyset, key_ids, used=used, now_s=now_s))

    def note_backup(self, *, now_s: float) -> None:
        """Remember that the master key was backed up."""
        self._save(changes.note_backup(self.keyset, now_s=now_s))

    def rotate_master(self) -> str:
        """Wrap all keys under another master key and put it into its place; returns its id.

        The data are not touched. The master key before is kept until ``drop_old_master``.

        Raises:
            KeyRefusedError: the last change is not finished, or there is no other master key.
            KeyStorageError: the disk is full or fails; whichever state it left is a good one.
        """
        if self.keyset.master_id == self._masters.next:
            self._masters.promote()  # an attempt before came as far as this
            return self.keyset.master_id
        if self.has_old_master:
            raise KeyRefusedError(
                "the master key before this one is still kept, since the database does not have "
                "the keyset under the new one yet: try again when the database can be reached"
            )
        target = self._masters.target(self.keyset.master_id)
        wrapped = {
            entry.id: target.wrap(
                self.master.unwrap(entry, node_id=self._node_id),
                entry,
                node_id=self._node_id,
                nonce=self._random(NONCE_BYTES),
            )
            for entry in self.keyset.entries
        }
        self._save(changes.rewrap(self.keyset, target.id, wrapped))
        self._masters.install(target)
        return target.id

    def drop_old_master(self) -> None:
        """Remove the master key before this one; everything is under the new one and synced."""
        self._masters.drop_old()

    def close(self) -> None:
        """Let go of the directory."""
        self._disk.close()

    # -- loading --------------------------------------------------------------------------------

    def _observe(self, mirror: bytes | None, *, has_data: bool, has_values: bool) -> Observed:
        outside = self._masters.load()
        return Observed(
            current=self._masters.current,
            next=self._masters.next,
            old=self._masters.old,
            outside=frozenset(outside),
            keyset=self._judge_file(KEYSET),
            copy=self._judge_file(COPY),
            mirror=judge(mirror, self._masters.known),
            is_marked=has_values or self._disk.size(MARK) is not None,
            has_data=has_data,
            adopts=self._disk.size(ADOPT) is not None,
            node_id=self._node_id,
        )

    def _judge_file(self, name: str) -> Judged:
        try:
            content = self._disk.read(name, size_max=FILE_BYTES_MAX)
        except FileProblemError as exc:
            path = self._disk.place(name)
            raise KeysetError(
                f"{path} {exc}; it must be a file of mode 0600 of user {os.geteuid()}: repair it "
                "or restore it from a backup, it is not replaced",
                path=path,
            ) from exc
        return judge(content, self._masters.known)

    def _take(self, decision: Use, seen: Observed, now_s: float) -> None:
        match decision.origin:
            case Origin.NEW | Origin.IMPORT:
                self._make(now_s, is_new=decision.origin is Origin.NEW)
            case Origin.KEYSET:
                self._accept(seen.keyset)
            case Origin.COPY:
                self._accept(seen.copy)
            case Origin.MIRROR:
                self._accept(seen.mirror)
        for step in decision.steps:
            self._carry_out(step)
        if self._disk.size(MARK) is None:
            self._disk.write(MARK, b"")
        if seen.adopts:
            self._disk.remove(ADOPT)
        # A keyset that was replaced half way may have had a higher generation.
        self._written = max(seen.keyset.generation, seen.copy.generation, self.keyset.generation)

    def _accept(self, found: Judged) -> None:
        assert found.keyset is not None, "only what is authentic is taken"
        self.keyset, self._content = found.keyset, found.content

    def _carry_out(self, step: Step) -> None:
        match step:
            case Step.WRITE_KEYSET:
                self._disk.write(KEYSET, self._content)
            case Step.WRITE_COPY:
                self._disk.write(COPY, self._content)
            case Step.PROMOTE:
                self._masters.promote()
            case Step.DROP_NEXT:
                self._masters.drop_next()
            case Step.LEAVE_CURRENT:
                self._masters.leave_current()
            case Step.SET_ASIDE:
                for name in (KEYSET, COPY):
                    if self._disk.size(name) is not None:
                        self._disk.rename(name, name + ASIDE)

    def _make(self, now_s: float, *, is_new: bool) -> None:
        master = self._masters.make() if is_new else self._masters.first()
        derived = derive_keys(master.secret)
        entries = [self._new_entry(master, KeyPurpose.AUDIT, derived.audit_seed, now_s)]
        if not is_new and self._masters.current:
            # What a version without data keys sealed stays readable, and this key seals no more.
            entries.append(
                self._entry(
                    master,
                    derived.sealing_id,
                    KeyPurpose.DATA,
                    derived.sealing_key,
                    now_s,
                    state=KeyState.DECRYPT_ONLY,
                )
            )
        key = self._random(KEY_BYTES)
        entries.append(self._new_entry(master, KeyPurpose.DATA, key, now_s))
        self._save(
            Keyset(node_id=self._node_id, generation=1, master_id=master.id, entries=tuple(entries))
        )

    # -- changing -------------------------------------------------------------------------------

    def _save(self, changed: Keyset) -> None:
        generation = max(changed.generation, self._written + 1)
        changed = replace(changed, generation=generation)
        content = encode(changed, self._masters.known[changed.master_id])
        self._written = generation
        self._disk.write(KEYSET, content)
        self._disk.write(COPY, content)
        self.keyset, self._content = changed, content

    def _new_entry(
        self, master: MasterKey, purpose: KeyPurpose, key: bytes, now_s: float
    ) -> KeyEntry:
        key_id = self._random(KEY_ID_BYTES).hex()
        return self._entry(master, key_id, purpose, key, now_s, state=KeyState.ACTIVE)

    def _entry(
        self,
        master: MasterKey,
        key_id: str,
        purpose: KeyPurpose,
        key: bytes,
        now_s: float,
        *,
        state: KeyState,
    ) -> KeyEntry:
        bare = KeyEntry(id=key_id, purpose=purpose, state=state, created_s=now_s, wrapped=b"")
        nonce = self._random(NONCE_BYTES)
        wrapped = master.wrap(key, bare, node_id=self._node_id, nonce=nonce)
        return replace(bare, wrapped=wrapped)
