"""The calls about keys, for operators, and about sealed values, for the node's components."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping

from protocol.names import OPERATOR
from protocol.records import Plain, from_wire, to_wire
from services.security.cipher import KEY_BYTES
from services.security.errors import KeyRefusedError, SealedRefusedError
from services.security.keyring import Keyring
from services.security.keys.keyset import USES_MAX, removable
from services.security.keys.mirror import Mirror
from services.security.keys.model import (
    BackupReply,
    BackupRequest,
    EncryptionSettings,
    KeyInfo,
    KeyList,
    KeysStatus,
    ListRequest,
    NameRequest,
    PutRequest,
    RemoveRequest,
)
from services.security.keys.reencryption import Reencryption
from services.security.keys.schedule import Schedule
from services.security.keys.values import SealedValues
from supervisor.child.service import CallHandler, Request


class KeyCalls:
    """Answers operators.

    Args:
        node_id: of the node.
        settings: of the keys.
        keyring: the keys.
        mirror: their copy in the database.
        job: the re-encryption.
        schedule: changes the keys.
    """

    def __init__(
        self,
        node_id: str,
        settings: EncryptionSettings,
        keyring: Keyring,
        mirror: Mirror,
        job: Reencryption,
        schedule: Schedule,
    ) -> None:
        self._node_id = node_id
        self._settings = settings
        self._keyring = keyring
        self._mirror = mirror
        self._job = job
        self._schedule = schedule

    def calls(self) -> Mapping[str, CallHandler]:
        """See services.security.keys.model."""
        return {
            "keys.list": self._list,
            "keys.status": self._status,
            "keys.rotate": self._rotate,
            "keys.rotate_master": self._rotate_master,
            "keys.reencrypt": self._reencrypt,
            "keys.remove": self._remove,
            "keys.backup": self._backup,
        }

    async def _list(self, request: Request) -> Plain:
        _require_operator(request)
        usage = await self._job.usage()
        keyset = self._keyring.keyset
        ended = removable(keyset, now_s=time.time())
        keys = tuple(
            KeyInfo(
                id=entry.id,
                state=entry.state,
                created_s=entry.created_s,
                reserved=entry.reserved,
                retired_s=entry.retired_s,
                values=usage.get(entry.id, 0),
                is_removable=entry.id in ended,
            )
            for entry in keyset.data
        )
        known = {key.id for key in keys}
        unknown = {key_id: count for key_id, count in usage.items() if key_id not in known}
        return to_wire(KeyList(keys=keys, unknown=unknown))

    async def _status(self, request: Request) -> Plain:
        _require_operator(request)
        keyset = self._keyring.keyset
        active = keyset.active
        return to_wire(
            KeysStatus(
                active=active.id,
                active_since_s=active.created_s,
                rotates_s=active.created_s + self._settings.rotation_interval_s,
                reserved=active.reserved,
                uses_max=USES_MAX,
                counts=dict(Counter(entry.state.value for entry in keyset.data)),
                generation=keyset.generation,
                mirrored=self._mirror.generation,
                master_id=keyset.master_id,
                master_source=self._settings.master_key,
                master_place=self._keyring.master_place,
                has_old_master=self._keyring.has_old_master,
                backed_up_s=keyset.backed_up_s,
                trouble=self._schedule.trouble,
                job=await self._job.status(),
            )
        )

    async def _rotate(self, request: Request) -> Plain:
        _require_operator(request)
        return {"key_id": await self._schedule.rotate("asked", caller=request.caller)}

    async def _rotate_master(self, request: Request) -> Plain:
        _require_operator(request)
        # The last change has to be in the database before the next one may begin.
        await self._mirror.update()
        return {"master_id": await self._schedule.rotate_master(caller=request.caller)}

    async def _reencrypt(self, request: Request) -> Plain:
        _require_operator(request)
        self._schedule.want_job()
        await asyncio.sleep(0)  # the job's task begins
        return await self._status(request)

    async def _remove(self, request: Request) -> Plain:
        _require_operator(request)
        body = from_wire(RemoveRequest, request.body)
        if bool(body.id) is body.all_retired:
            raise KeyRefusedError("name one key, or all that are retired")
        now_s = time.time()
        used = await self._job.usage()
        ended = set(removable(self._keyring.keyset, now_s=now_s)) - set(used)
        wanted = tuple(sorted(ended)) if body.all_retired else (body.id,)
        if wanted:
            await asyncio.to_thread(self._keyring.remove, wanted, used=used, now_s=now_s)
            self._schedule.tell("removed", key_ids=list(wanted), caller=request.caller)
            await self._mirror.update()
        return {"removed": list(wanted)}

    async def _backup(self, request: Request) -> Plain:
        _require_operator(request)
        body = from_wire(BackupRequest, request.body)
        if len(body.key) != KEY_BYTES:
            raise KeyRefusedError(f"a key of {len(body.key)} bytes; {KEY_BYTES} are needed")
        sealed = await asyncio.to_thread(self._keyring.seal_master, body.key, now_s=time.time())
        keyset = self._keyring.keyset
        self._schedule.tell("backed-up", master_id=keyset.master_id, caller=request.caller)
        return to_wire(
            BackupReply(
                node_id=self._node_id,
                master_id=keyset.master_id,
                generation=keyset.generation,
                sealed=sealed,
            )
        )


class SealedCalls:
    """Answers components, each about its own values.

    Args:
        values: of the node.
    """

    def __init__(self, values: SealedValues) -> None:
        self._values = values

    def calls(self) -> Mapping[str, CallHandler]:
        """See services.security.keys.model."""
        return {
            "sealed.put": self._put,
            "sealed.get": self._get,
            "sealed.delete": self._delete,
            "sealed.list": self._list,
        }

    async def _put(self, request: Request) -> Plain:
        owner, body = _owner(request), from_wire(PutRequest, request.body)
        return {"key_id": await self._values.put(owner, body.name, body.value)}

    async def _get(self, request: Request) -> Plain:
        owner, body = _owner(request), from_wire(NameRequest, request.body)
        found = await self._values.get(owner, body.name)
        if found is None:
            return {"value": None, "updated_s": None}
        return {"value": found.value, "updated_s": found.updated_s}

    async def _delete(self, request: Request) -> Plain:
        owner, body = _owner(request), from_wire(NameRequest, request.body)
        return {"deleted": await self._values.delete(owner, body.name)}

    async def _list(self, request: Request) -> Plain:
        owner = _owner(request)
        body = from_wire(ListRequest, {} if request.body is None else request.body)
        return to_wire(await self._values.list(owner, prefix=body.prefix, after=body.after))


def _is_operator(request: Request) -> bool:
    return request.caller == OPERATOR or request.caller.startswith(f"{OPERATOR}/")


def _require_operator(request: Request) -> None:
    """The policy says so too; keys are worth a second look."""
    if not _is_operator(request):
        raise KeyRefusedError(f"{request.caller} may not ask about keys, only operators may")


def _owner(request: Request) -> str:
    if _is_operator(request):
        raise SealedRefusedError("sealed values are for the node's components, not for operators")
    return request.caller
