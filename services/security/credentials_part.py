"""Step 1: credentials are checked before they are used, and again while they are.

The database takes ours, its role is no more than it has to be, certificates and keys are in order,
and the level's directory is ours alone. While the process runs everything is looked at again every
CHECK_PERIOD_S, and certificates as soon as a file of them changes.

Ahead of an end there are warnings; on the last day, and after it, the health is degraded. A file
that turns out wrong while the node runs degrades too: whoever uses it has the old one still.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping

from protocol.errors import NovacronError
from protocol.messages.health import HEALTHY, Health, HealthState
from protocol.messages.metrics import MetricKind, MetricSample
from protocol.records import Plain, from_wire, to_wire
from services.data.errors import DatabaseUnavailableError
from services.data.postgres import Connection, connect
from services.security import files
from services.security.credential_role import NAME as ROLE
from services.security.credential_role import check_role, judge_role
from services.security.credentials_model import (
    Credential,
    CredentialList,
    Finding,
    Severity,
)
from services.security.errors import CredentialError
from services.security.parts import Level, Part
from services.security.token_model import TokenEntry
from supervisor.child.service import CallHandler, Request

CHECK_PERIOD_S = 300.0
LOOK_PERIOD_S = 5.0
TOKENS_TIMEOUT_S = 5.0
DAY_S = 86400.0
# A token that lives for days is not news when it ends.
TOKEN_LIFE_MIN_S = 14 * DAY_S
TOKEN_WARNING_S = 7 * DAY_S
METRIC_EXPIRY = "novacron_credential_expiry_seconds"
_BAD = (Severity.DEGRADED, Severity.ERROR)


class CredentialsPart(Part):
    """Checks what the node is given before it is used, and while.

    Args:
        level: what all parts share.
        look_period_s: how often files are looked at for changes.
        clock_s: Unix time.
    """

    step = 1
    name = "credentials"

    def __init__(
        self,
        level: Level,
        *,
        look_period_s: float = LOOK_PERIOD_S,
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        self._level = level
        self._context = level.context
        self._look_period_s, self._clock_s = look_period_s, clock_s
        self._connection: Connection | None = None
        self._found: dict[str, Credential] = {}
        self._checked_s = 0.0
        self._stamps: Plain = None
        self._tokens: CallHandler | None = None
        self._checking = asyncio.Lock()

    async def open(self) -> Mapping[str, Plain]:
        """Log in to the database, look at its role, at certificates and at the level's directory.

        Raises:
            CriticalError: the credentials are refused, a certificate or key can't be used, or the
                directory is not ours alone.
            DatabaseUnavailableError: the database can't be reached at the moment.
        """
        settings = self._level.settings
        self._connection = await connect(settings.postgres, application=self._context.path)
        os.close(files.open_directory(self._level.directory))
        now_s = self._clock_s()
        role = await judge_role(self._connection, settings.postgres, now_s=now_s)
        certificates = await self._check_certificates()
        _require_usable(certificates)
        self._take((role, *certificates))
        return {
            "database_tls": self._connection.pgconn.ssl_in_use,
            "checked": len(self._found),
            "findings": sum(len(it.findings) for it in self._found.values()),
        }

    def watch_tokens(self, listing: CallHandler) -> None:
        """Watch the ends of the API's tokens, too; given the call that lists them."""
        self._tokens = listing

    def take_connection(self) -> Connection | None:
        """The connection that was made to try the credentials; its taker closes it."""
        connection, self._connection = self._connection, None
        return connection

    def begin(self) -> None:
        """Start to check again."""
        self._level.start(self._run(), "credentials")

    def calls(self) -> Mapping[str, CallHandler]:
        """See services.security.credentials_model."""
        return {"credentials.list": self._list, "credentials.check": self._check_now}

    def health(self) -> Health:
        """Degraded by whatever does not work, or not for another day."""
        reasons = [
            finding.message
            for credential in self._found.values()
            for finding in credential.findings
            if finding.severity in _BAD
        ]
        return Health(HealthState.DEGRADED, "; ".join(reasons)) if reasons else HEALTHY

    async def close(self) -> None:
        """Close the connection if nobody took it."""
        if (connection := self.take_connection()) is not None:
            await connection.close()

    async def _run(self) -> None:
        due_s = time.monotonic() + CHECK_PERIOD_S
        while True:
            await asyncio.sleep(self._look_period_s)
            if time.monotonic() >= due_s:
                due_s = time.monotonic() + CHECK_PERIOD_S
                await self._check_all()
            elif await asyncio.to_thread(self._look) != self._stamps:
                await self._check_all()

    async def _check_all(self) -> None:
        async with self._checking:
            certificates = await self._check_certificates()
            self._take((*await self._check_role(), *certificates, *await self._check_tokens()))

    async def _check_certificates(self) -> tuple[Credential, ...]:
        found = self._level.settings.credentials
        if not found:
            return ()
        from services.security.credential_files import check_files  # loads X.509: only where used

        self._stamps = await asyncio.to_thread(self._look)
        now_s = self._clock_s()
        return await asyncio.to_thread(lambda: tuple(check_files(it, now_s=now_s) for it in found))

    def _look(self) -> Plain:
        """What tells whether a file has changed."""
        found = self._level.settings.credentials
        if not found:
            return None
        from services.security.credential_files import stamps

        return [stamps(it) for it in found]

    async def _check_role(self) -> tuple[Credential, ...]:
        settings, path = self._level.settings.postgres, f"{self._context.path} credentials"
        try:
            return (await check_role(settings, application=path, now_s=self._clock_s()),)
        except (DatabaseUnavailableError, TimeoutError):
            # That the database is away is said by those who need it.
            last = self._found.get(ROLE)
            return () if last is None else (last,)

    async def _check_tokens(self) -> tuple[Credential, ...]:
        if self._tokens is None:
            return ()
        request = Request(self._context.path, "token.list", None, TOKENS_TIMEOUT_S)
        try:
            async with asyncio.timeout(TOKENS_TIMEOUT_S):
                answer = self._tokens(request)
                entries = from_wire(
                    tuple[TokenEntry, ...], answer if isinstance(answer, list) else await answer
                )
        except (NovacronError, TimeoutError):
            return tuple(it for it in self._found.values() if it.kind == "token")
        now_s = self._clock_s()
        return tuple(of_token(it, now_s) for it in entries if it.state == "active")

    def _take(self, credentials: tuple[Credential, ...]) -> None:
        """Keep what was found, and tell what is not as it was."""
        now_s = self._checked_s = self._clock_s()
        before, self._found = self._found, {it.name: it for it in credentials}
        for credential in credentials:
            if credential.expires_s is not None:
                left_s = credential.expires_s - now_s
                labels = {"credential": credential.name}
                self._context.measure(MetricSample(MetricKind.GAUGE, METRIC_EXPIRY, left_s, labels))
            self._tell(credential, before.get(credential.name))
        self._level.on_change()

    def _tell(self, credential: Credential, before: Credential | None) -> None:
        known = {it.code for it in before.findings} if before is not None else set()
        for finding in credential.findings:
            if finding.code not in known:
                self._tell_finding(credential, finding)
        if before is None:
            return
        if before.fingerprint and credential.fingerprint not in ("", before.fingerprint):
            self._context.log.info("credential_replaced", credential=credential.name)
            self._context.emit("credential:replaced", credential=credential.name)
        if before.findings and not credential.findings:
            self._context.log.info("credential_valid", credential=credential.name)
            self._context.emit("credential:valid", credential=credential.name)

    def _tell_finding(self, credential: Credential, finding: Finding) -> None:
        is_end = finding.code.startswith("expires_in")
        event = "credential:expiring" if is_end else "credential:invalid"
        if finding.severity is Severity.WARNING and not is_end:
            event = "credential:weak"
        fields = {"credential": credential.name, "code": finding.code, "reason": finding.message}
        self._context.log.warning("credential_finding", **fields)
        self._context.emit(event, **fields)

    async def _list(self, _request: Request) -> Plain:
        return to_wire(self._as_list())

    async def _check_now(self, _request: Request) -> Plain:
        await self._check_all()
        return to_wire(self._as_list())

    def _as_list(self) -> CredentialList:
        return CredentialList(checked_s=self._checked_s, credentials=tuple(self._found.values()))


def _require_usable(credentials: tuple[Credential, ...]) -> None:
    problems = [
        finding.message
        for credential in credentials
        for finding in credential.findings
        if finding.severity is Severity.ERROR
    ]
    if problems:
        raise CredentialError("; ".join(problems))


def of_token(entry: TokenEntry, now_s: float) -> Credential:
    """A token of the API as a credential."""
    left_s = entry.expires_s - now_s
    findings: tuple[Finding, ...] = ()
    if left_s <= TOKEN_WARNING_S and entry.expires_s - entry.created_s >= TOKEN_LIFE_MIN_S:
        text = f"the API token of {entry.name} runs out in {left_s / DAY_S:.0f} days: make another"
        findings = (Finding(severity=Severity.WARNING, code="expires_in_7d", message=text),)
    return Credential(
        name=f"token.{entry.id}",
        kind="token",
        subject=entry.name,
        expires_s=entry.expires_s,
        findings=findings,
    )
