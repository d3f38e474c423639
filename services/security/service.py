"""The process ``security``: keys, cipher and the audit log, brought up in the required order.

1 credentials      the database takes them; the level's files are ours alone
2 encryption       master key loaded or made; the cipher proves itself
3 audit            chain head read, waiting events chained, a record written and read back
4 zero trust       the API's tokens are at hand; identities of processes and persons come from
the supervisors, and the policy is in force before this process starts; a forbidden
call is refused
5 validation       the answer to ``check``, from then on whenever it is asked

Each step is a part of its own (services.security.parts).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from protocol.messages.health import HEALTHY, Health
from protocol.records import Plain, from_wire, to_wire
from services.security.audit_part import AuditPart
from services.security.credentials_part import CredentialsPart
from services.security.encryption_part import EncryptionPart
from services.security.guard_part import GuardPart
from services.security.model import SecuritySettings, SecurityStatus
from services.security.parts import Level, Part, Work, worst
from services.security.secrets_part import SecretsPart
from services.security.tokens_part import TokensPart
from supervisor.child.service import CallHandler, Request, Service, ServiceContext


class SecurityService(Service):
    """Opens the parts in order, answers for them together, closes them in reverse."""

    async def init(self, context: ServiceContext) -> None:
        """Run the five steps and start the parts' work.

        Raises:
            CriticalError: a key, file, credential, table or self-test is not as it must be.
            AuditUnavailableError: the database can't be reached at the moment.
        """
        self._context = context
        self._settings = from_wire(SecuritySettings, dict(context.settings))
        self._health = HEALTHY
        level = Level(
            context=context,
            settings=self._settings,
            directory=Path(self._settings.state_dir) / "security",
            on_change=self._publish_health,
            start=self._start,
        )
        credentials, tokens = CredentialsPart(level), TokensPart(level)
        credentials.watch_tokens(tokens.calls()["token.list"])
        self._encryption = EncryptionPart(level)
        self._audit = AuditPart(level, credentials, self._encryption)
        self._parts: tuple[Part, ...] = (
            credentials,
            SecretsPart(level),
            self._encryption,
            self._audit,
            tokens,
            GuardPart(level),
        )
        try:
            for part in self._parts:
                self._step(part.step, part.name, **await part.open())
        except BaseException:
            await self._close()
            raise
        await credentials.close()  # what it tried is proven, and nobody needs it any more
        health = await self.check()
        self._step(5, "validation", health=health.state.value, reason=health.reason)
        self._publish_health()
        for part in self._parts:
            part.begin()

    def calls(self) -> Mapping[str, CallHandler]:
        """The calls of all parts; their records are in services.security.model."""
        found: dict[str, CallHandler] = {"security.status": self._status}
        for part in self._parts:
            found |= part.calls()
        return found

    async def check(self) -> Health:
        """Prove every part now; each is bounded in time."""
        return worst(list(await asyncio.gather(*(part.check() for part in self._parts))))

    async def terminate(self) -> None:
        """Close the parts in reverse order."""
        await self._close()

    async def _close(self) -> None:
        for part in reversed(self._parts):
            await part.close()

    async def _status(self, _request: Request) -> Plain:
        return to_wire(
            SecurityStatus(
                node_id=self._settings.node_id,
                cipher="AES-256-GCM",
                sealing_key_id=self._encryption.keyring.cipher.key_id,
                audit=self._audit.status(),
            )
        )

    def _publish_health(self) -> None:
        health = worst([part.health() for part in self._parts])
        if health != self._health:
            self._health = health
            self._context.set_health(health)

    def _step(self, number: int, name: str, **fields: Plain) -> None:
        self._context.log.info("security_step", step=number, name=name, **fields)

    def _start(self, work: Work, name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        error = task.exception() or RuntimeError(f"the task {task.get_name()} ended by itself")
        self._context.fail(error)
