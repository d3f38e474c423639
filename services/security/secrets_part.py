"""The secrets of the configuration, while the node runs: asked for anew, kept sealed, handed on.

A value that changed is taken over by a reload of the configuration: the root reads all secrets
again and restarts the components whose settings changed, this process among them. That happens at
most every RELOAD_PAUSE_S, however often a provider changes its mind. When we are still there after
that time, the reload was refused: it is asked for again after ever longer pauses, and said.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path

from protocol.errors import NovacronError
from protocol.messages.health import HEALTHY, Health, HealthState
from protocol.messages.metrics import MetricKind, MetricSample
from protocol.messages.status import NodeStatus
from protocol.names import ROOT
from protocol.records import Plain, from_wire, to_wire
from services.security.parts import Level, Part
from services.security.secrets.errors import (
    RotationRefusedError,
    SecretDeniedError,
    SecretError,
    SecretMissingError,
)
from services.security.secrets.fingerprint import fingerprint
from services.security.secrets.model import (
    GetRequest,
    GetResult,
    RotateRequest,
    RotateResult,
    SecretCheck,
    SecretList,
    SecretsPartSettings,
    SecretState,
    SecretView,
)
from services.security.secrets.provider import Secret
from services.security.secrets.reference import SecretName, parse_name
from services.security.secrets.registry import Providers
from services.security.secrets.watch import SecretWatch
from supervisor.child.service import CallHandler, Request

RELOAD_PAUSE_S = 30.0
RELOAD_PAUSE_MAX_S = 900.0
# Of the loop, whatever is due: a clock that was set back must not make it spin.
TURN_PAUSE_MIN_S = 0.05
TURN_PAUSE_MAX_S = 60.0
# 32 bytes are beyond guessing; the alphabet needs no quoting anywhere.
NEW_VALUE_BYTES = 32
POSTGRES_PASSWORD = "database.postgres.password"  # noqa: S105 - a configuration key
METRIC_AGE = "novacron_secret_confirmed_age_seconds"
TROUBLED = (SecretState.STALE, SecretState.FAILED, SecretState.EXPIRED)


class SecretsPart(Part):
    """Keeps an eye on the secrets that the configuration refers to.

    Args:
        level: what all parts share.
        providers: those of a test; None for the configured ones.
        reload: has the node read its configuration anew; None for the real root.
        reload_pause_s: after the first reload; doubles from one to the next.
    """

    name = "secrets"
    step = 1

    def __init__(
        self,
        level: Level,
        providers: Providers | None = None,
        reload: Callable[[], Awaitable[None]] | None = None,
        reload_pause_s: float = RELOAD_PAUSE_S,
    ) -> None:
        self._level = level
        self._context = level.context
        settings = level.settings.secrets or SecretsPartSettings()
        self._uses = settings.uses
        self._providers = providers or Providers(settings.providers)
        self._reload = reload or self._reload_root
        self._watch = SecretWatch(
            [parse_name(use.name) for use in settings.uses],
            settings.providers,
            self._providers,
            self._context.log,
            self._take,
        )
        self._states: dict[SecretName, SecretState] = {}
        self._pending: set[SecretName] = set()
        self._reload_due_s, self._reload_pause_s, self._reloads = 0.0, reload_pause_s, 0
        self._wake = asyncio.Event()

    async def open(self) -> Mapping[str, Plain]:
        """Nothing is asked yet: whoever read the configuration has just got every value."""
        names = self._watch.cache.names
        return {"count": len(names), "providers": ", ".join(sorted({it.provider for it in names}))}

    def begin(self) -> None:
        """Start to ask, if there is anything to ask for."""
        if self._watch.cache.names:
            self._level.start(self._run(), "secrets")

    def calls(self) -> Mapping[str, CallHandler]:
        """See services.security.secrets.model."""
        return {
            "secrets.list": self._list,
            "secrets.check": self._check,
            "secrets.rotate": self._rotate,
            "secrets.get": self._get,
        }

    def health(self) -> Health:
        """Degraded while a secret is not fresh; the node runs with what it has."""
        reasons = [
            f"secret {view.name} is {view.state.value}: {view.reason}"
            for view in self._watch.views()
            if view.state in TROUBLED
        ]
        if self._pending and self._reloads > 1:
            names = ", ".join(sorted(map(str, self._pending)))
            reasons.append(f"the node runs with an older value of {names}: its reload was refused")
        return Health(HealthState.DEGRADED, "; ".join(reasons)) if reasons else HEALTHY

    async def close(self) -> None:
        """Let go of the providers; a call that hangs keeps its own."""
        self._providers.close()

    # -- in the background ----------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            await self._watch.ask_due()
            self._tell_states()
            await self._take_over()
            pause_s = min(max(TURN_PAUSE_MIN_S, self._next_s() - time.time()), TURN_PAUSE_MAX_S)
            try:
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _next_s(self) -> float:
        next_s = self._watch.next_s()
        due = [] if next_s is None else [next_s]
        if self._pending:
            due.append(self._reload_due_s)
        return min(due, default=time.time() + TURN_PAUSE_MAX_S)

    def _take(self, name: SecretName, secret: Secret, is_changed: bool) -> None:  # noqa: FBT001
        if is_changed:
            self._context.log.info("secret_changed", secret=str(name), version=secret.version)
            self._context.emit("secret:changed", secret=str(name), version=secret.version)
        running = {use.fingerprint for use in self._uses if use.name == str(name)}
        if running == {fingerprint(str(name), secret.value)}:
            self._pending.discard(name)
        else:
            self._pending.add(name)

    def _tell_states(self) -> None:
        """Log and publish what is not as it was, and measure."""
        now_s = time.time()
        for name, view in zip(self._watch.cache.names, self._watch.views(), strict=True):
            before = self._states.get(name, SecretState.UNKNOWN)
            self._states[name] = view.state
            if view.state is not before:
                self._tell_state(view, before)
            if view.confirmed_s is not None and view.state is not SecretState.FIXED:
                age_s = max(0.0, now_s - view.confirmed_s)
                labels = {"secret": view.name}
                self._context.measure(MetricSample(MetricKind.GAUGE, METRIC_AGE, age_s, labels))

    def _tell_state(self, view: SecretView, before: SecretState) -> None:
        if view.state in TROUBLED:
            fields = {"secret": view.name, "state": view.state.value, "reason": view.reason}
            self._context.log.warning("secret_not_fresh", **fields)
            self._context.emit("secret:unavailable", **fields)
        elif before in TROUBLED:
            self._context.log.info("secret_fresh", secret=view.name, version=view.version)
            self._context.emit("secret:restored", secret=view.name, version=view.version)
        self._level.on_change()

    async def _take_over(self) -> None:
        """Have the node read its configuration anew where it runs with an older value."""
        if not self._pending or time.time() < self._reload_due_s:
            return
        self._reload_due_s = time.time() + self._reload_pause_s
        self._reload_pause_s = min(2 * self._reload_pause_s, RELOAD_PAUSE_MAX_S)
        self._reloads += 1
        self._level.on_change()
        self._context.log.info("secret_reload", secrets=sorted(map(str, self._pending)))
        try:
            await self._reload()
        except (NovacronError, OSError) as exc:
            self._context.log.warning("secret_reload_failed", reason=str(exc))

    async def _reload_root(self) -> None:
        status = from_wire(NodeStatus, await self._context.call(ROOT, "status"))
        pid = status.platform.pid
        if pid not in _ancestors():
            raise SecretError(f"process {pid} is not the root of this tree")
        os.kill(pid, signal.SIGHUP)

    # -- calls ----------------------------------------------------------------------------------

    def _views(self) -> tuple[SecretView, ...]:
        return tuple(
            replace(
                view,
                keys=tuple(use.key for use in self._uses if use.name == view.name),
                is_applied=name not in self._pending,
            )
            for name, view in zip(self._watch.cache.names, self._watch.views(), strict=True)
        )

    async def _list(self, _request: Request) -> Plain:
        return to_wire(SecretList(secrets=self._views()))

    async def _check(self, _request: Request) -> Plain:
        names = self._watch.cache.names
        checks = [
            self._watch.check(provider) for provider in sorted({name.provider for name in names})
        ]
        found = await asyncio.gather(*checks)
        await self._watch.ask_all(names)
        self._wake.set()
        return to_wire(SecretCheck(providers=tuple(found), secrets=self._views()))

    async def _get(self, request: Request) -> Plain:
        if request.caller.partition("/")[0] == "operator":
            raise SecretDeniedError("values are for processes of the tree, and never for a person")
        name = parse_name(from_wire(GetRequest, request.body).name)
        secret = self._watch.cache.value(name, now_s=time.time())
        return to_wire(
            GetResult(value=secret.value, version=secret.version, expires_s=secret.expires_s)
        )

    async def _rotate(self, request: Request) -> Plain:
        body = from_wire(RotateRequest, request.body)
        name = parse_name(body.name)
        if name not in self._watch.cache.names:
            raise SecretMissingError(f"{name} is not in the configuration")
        if not body.newest:
            await self._make_new(name)
        await self._watch.ask(name)
        view = next(it for it in self._views() if it.name == str(name))
        if view.state in TROUBLED:
            raise SecretMissingError(f"{name} can't be read: {view.reason}")
        self._context.emit(
            "secret:rotated", secret=view.name, version=view.version, caller=request.caller
        )
        self._reload_due_s = 0.0  # a person asked: no pause
        self._wake.set()
        return to_wire(
            RotateResult(name=view.name, version=view.version, is_changed=not view.is_applied)
        )

    async def _make_new(self, name: SecretName) -> None:
        """Give the database's role a new password, in the provider first and then in the server.

        In this order a crash between the two leaves the old password in the provider's earlier
        version; the other way round the new one would be nowhere.
        """
        keys = {use.key for use in self._uses if use.name == str(name)}
        if keys != {POSTGRES_PASSWORD}:
            raise RotationRefusedError(
                f"the node can change the database's password alone: change {name} where "
                f"{', '.join(sorted(keys))} is checked and in the provider, and then run "
                "'novacronctl secrets rotate --newest'"
            )
        from services.security.secrets.role_password import change_role_password

        old = (await self._watch.get(name)).value
        new = secrets.token_urlsafe(NEW_VALUE_BYTES)
        await self._watch.rotate(name, new)
        try:
            await change_role_password(
                self._level.settings.postgres, old=old, new=new, application=self._context.path
            )
        except NovacronError as exc:
            await self._put_back(name, old)
            raise RotationRefusedError(
                f"the database keeps its password, and {name} has it again: {exc.message}"
            ) from exc

    async def _put_back(self, name: SecretName, value: str) -> None:
        try:
            await self._watch.rotate(name, value)
        except SecretError as exc:
            raise RotationRefusedError(
                f"{name} has a new password that the database does not know: restore the version "
                f"before it there; {exc.message}"
            ) from exc


def _ancestors() -> frozenset[int]:
    """The processes above this one."""
    found: set[int] = set()
    pid = os.getppid()
    while pid > 0 and pid not in found:
        found.add(pid)
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            break
        pid = int(stat.rpartition(")")[2].split()[1])
    return frozenset(found)
