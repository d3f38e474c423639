"""The secrets that a process keeps an eye on: asked for when they are due, kept in the cache."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

import structlog

from services.security.secrets.cache import SecretCache
from services.security.secrets.errors import SecretError
from services.security.secrets.model import ProviderCheck, SecretState, SecretView
from services.security.secrets.provider import Secret
from services.security.secrets.reference import SecretName
from services.security.secrets.registry import Providers, session_of
from services.security.secrets.settings import SecretsSettings

T = TypeVar("T")

# A change that takes several requests: a login, a read, a write and another read.
CHANGE_REQUESTS = 4
MAINTAIN_PAUSE_MIN_S = 1.0


class SecretWatch:
    """Asks providers, one call at a time for each, and all providers at once.

    Args:
        names: what is watched.
        settings: the times.
        providers: where from.
        log: of the process.
        on_value: told of each value that a provider gives, and whether it is another than before.

    Attributes:
        cache: what is known.
    """

    def __init__(
        self,
        names: Iterable[SecretName],
        settings: SecretsSettings,
        providers: Providers,
        log: structlog.typing.FilteringBoundLogger,
        on_value: Callable[[SecretName, Secret, bool], None],
    ) -> None:
        self.cache = SecretCache(
            names, refresh_s=settings.refresh_interval_s, stale_s=settings.stale_s
        )
        self._settings = settings
        self._providers = providers
        self._log = log
        self._on_value = on_value
        self._maintain_due_s: dict[str, float] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def ask_due(self) -> None:
        """Ask for everything that is due, and let providers renew what runs out."""
        due: dict[str, list[SecretName]] = {}
        for name in self.cache.due(time.time()):
            due.setdefault(session_of(name.provider), []).append(name)
        await asyncio.gather(*(self.ask_all(names) for names in due.values()))
        await self._maintain()

    async def ask_all(self, names: Iterable[SecretName]) -> None:
        """Ask for secrets, one after the other."""
        for name in names:
            await self.ask(name)

    async def ask(self, name: SecretName) -> None:
        """Ask for a secret now; what comes of it is in the cache."""
        try:
            secret = await self.get(name)
        except SecretError as exc:
            self.cache.fail(name, exc, now_s=time.time(), chance=_chance())
            return
        is_changed = self.cache.put(name, secret, now_s=time.time(), chance=_chance())
        if self._providers.provider(name.provider).is_static:
            self.cache.fix(name)
        self._on_value(name, secret, is_changed)

    async def get(self, name: SecretName) -> Secret:
        """What the provider has now, past the cache.

        Raises:
            SecretError: it can't be had.
        """
        return await self._call(
            name.provider, lambda: self._providers.get(name), self._settings.timeout_s
        )

    async def rotate(self, name: SecretName, value: str) -> Secret:
        """Store a new value with the provider.

        Raises:
            SecretError: it was not stored, or nobody knows whether it was.
        """
        return await self._call(
            name.provider,
            lambda: self._providers.rotate(name, value),
            CHANGE_REQUESTS * self._settings.timeout_s,
        )

    async def check(self, provider: str) -> ProviderCheck:
        """Ask a provider how it is."""
        started_s = time.monotonic()
        try:
            problem = await self._call(
                provider,
                lambda: self._providers.health(provider),
                self._settings.timeout_s,
            )
        except SecretError as exc:
            problem = exc.message
        return ProviderCheck(
            provider=provider, problem=problem, took_s=time.monotonic() - started_s
        )

    def next_s(self) -> float | None:
        """Unix time at which there is something to do; None when there never is."""
        due = list(self._maintain_due_s.values())
        if (next_s := self.cache.next_due_s()) is not None:
            due.append(next_s)
        return min(due, default=None)

    def views(self) -> tuple[SecretView, ...]:
        """What may be told of each secret."""
        now_s = time.time()
        return tuple(self.cache.view(name, now_s=now_s) for name in self.cache.names)

    def state(self, name: SecretName) -> SecretState:
        """How a secret is."""
        return self.cache.view(name, now_s=time.time()).state

    async def _maintain(self) -> None:
        for name in self._providers.made:
            if self._maintain_due_s.get(name, 0.0) > time.time():
                continue
            try:
                pause_s = await self._call(
                    name, partial(self._providers.maintain, name), self._settings.timeout_s
                )
            except SecretError as exc:
                self._log.warning("secret_provider_failed", provider=name, reason=exc.message)
                pause_s = self._settings.timeout_s
            if pause_s is None:
                pause_s = self._settings.refresh_interval_s
            self._maintain_due_s[name] = time.time() + max(MAINTAIN_PAUSE_MIN_S, pause_s)

    async def _call(self, provider: str, work: Callable[[], T], timeout_s: float) -> T:
        # A provider's client is for one thread at a time.
        async with self._locks.setdefault(session_of(provider), asyncio.Lock()):
            return await self._providers.bounded(provider).call(work, timeout_s)


def _chance() -> float:
    return random.random()  # noqa: S311 - spreads questions over time, and no more
