"""The secrets that the node uses, while it runs: sealed values, refreshed ahead of their end.

    fresh    the provider gave the value at the last attempt
    stale    the provider is away; the last value counts for ``stale_s`` from its last confirmation
    expired  it was away for longer, or the value's own time is over: there is no value any more
    failed   the provider is there and refuses, or the secret is gone; the last value counts as if
             stale, since a mistake in a policy must not stop a node that runs
    fixed    the provider's values can't change while the node runs, and this process can't see it
    unknown  not asked for yet

The next attempt is due after the refresh interval, or after half of the value's remaining time
where that is shorter, less up to a tenth by chance, so that nodes started together do not ask
together. Failed attempts are repeated after pauses that double.

Pure but for the sealing: time and chance are arguments, fetching is the caller's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from services.security.secrets.errors import (
    ProviderUnavailableError,
    SecretError,
    SecretMissingError,
)
from services.security.secrets.model import SecretState, SecretView
from services.security.secrets.provider import Secret
from services.security.secrets.reference import SecretName
from services.security.secrets.sealer import Sealer

RETRY_PAUSE_S = 2.0
RETRY_PAUSE_MAX_S = 60.0
REFRESH_PAUSE_MIN_S = 0.2
JITTER_SHARE = 0.1
# Of a value's remaining life; what is left is for attempts that fail.
LIFE_SHARE = 0.5


@dataclass(slots=True)
class _Entry:
    sealed: bytes = field(default=b"", repr=False)
    digest: bytes = field(default=b"", repr=False)
    version: str = ""
    created_s: float | None = None
    expires_s: float | None = None
    confirmed_s: float | None = None
    changed_s: float | None = None
    due_s: float = 0.0
    failures: int = 0
    error: str = ""
    is_refused: bool = False
    is_fixed: bool = False


class SecretCache:
    """Values by name.

    Args:
        names: what is kept; nothing else is taken in.
        refresh_s: time between two questions for the same secret.
        stale_s: for how long a value counts that was not confirmed.
    """

    def __init__(self, names: Iterable[SecretName], *, refresh_s: float, stale_s: float) -> None:
        self._entries = {name: _Entry() for name in sorted(set(names))}
        self._refresh_s = refresh_s
        self._stale_s = stale_s
        self._sealer = Sealer()

    @property
    def names(self) -> tuple[SecretName, ...]:
        """All names, in order."""
        return tuple(self._entries)

    def due(self, now_s: float) -> tuple[SecretName, ...]:
        """What should be asked for now."""
        return tuple(
            name
            for name, entry in self._entries.items()
            if entry.due_s <= now_s and not entry.is_fixed
        )

    def next_due_s(self) -> float | None:
        """When the next question is due; None when none ever is."""
        return min((it.due_s for it in self._entries.values() if not it.is_fixed), default=None)

    def put(self, name: SecretName, secret: Secret, *, now_s: float, chance: float) -> bool:
        """Take in what a provider gave.

        Args:
            name: which secret.
            secret: the value.
            now_s: Unix time.
            chance: from 0 to 1, spreads the next question.

        Returns:
            Whether the value is another one than before; False for the first one.
        """
        entry = self._entries[name]
        digest = self._sealer.digest(secret.value)
        is_changed = bool(entry.digest) and entry.digest != digest
        if is_changed or not entry.digest:
            entry.sealed = self._sealer.seal(secret.value, context=str(name))
            entry.digest = digest
            entry.changed_s = now_s if is_changed else entry.changed_s
        entry.version, entry.created_s = secret.version, secret.created_s
        entry.expires_s, entry.confirmed_s = secret.expires_s, now_s
        entry.failures, entry.error, entry.is_refused = 0, "", False
        pause_s = self._refresh_s
        if secret.expires_s is not None:
            pause_s = min(pause_s, LIFE_SHARE * (secret.expires_s - now_s))
        entry.due_s = now_s + max(REFRESH_PAUSE_MIN_S, pause_s * (1 - JITTER_SHARE * chance))
        return is_changed

    def fail(self, name: SecretName, error: SecretError, *, now_s: float, chance: float) -> None:
        """Take note of an attempt that failed."""
        entry = self._entries[name]
        entry.failures += 1
        entry.error = error.message
        entry.is_refused = not error.retryable
        pause_s = min(RETRY_PAUSE_S * 2.0 ** min(entry.failures - 1, 16), RETRY_PAUSE_MAX_S)
        entry.due_s = now_s + pause_s * (1 - JITTER_SHARE * chance)

    def fix(self, name: SecretName) -> None:
        """Take note that this process can't see the value, and that it can't change."""
        self._entries[name].is_fixed = True

    def ask_now(self, name: SecretName) -> None:
        """Make the next question due at once."""
        if name in self._entries:
            self._entries[name].due_s = 0.0

    def value(self, name: SecretName, *, now_s: float) -> Secret:
        """The value, as long as it counts.

        Raises:
            SecretMissingError: no such secret is kept, or none was ever given.
            ProviderUnavailableError: the last value counts no more.
        """
        entry = self._entries.get(name)
        if entry is None:
            raise SecretMissingError(f"{name} is not in the configuration")
        if not entry.sealed:
            raise SecretMissingError(f"{name} was never read: {entry.error or 'not asked yet'}")
        if self._state(entry, now_s) is SecretState.EXPIRED:
            raise ProviderUnavailableError(f"{name} has run out: {self._reason(entry, now_s)}")
        return Secret(
            value=self._sealer.open(entry.sealed, context=str(name)),
            version=entry.version,
            created_s=entry.created_s,
            expires_s=entry.expires_s,
        )

    def view(self, name: SecretName, *, now_s: float) -> SecretView:
        """What may be told of a secret."""
        entry = self._entries[name]
        return SecretView(
            name=str(name),
            state=self._state(entry, now_s),
            version=entry.version,
            created_s=entry.created_s,
            expires_s=entry.expires_s,
            confirmed_s=entry.confirmed_s,
            changed_s=entry.changed_s,
            reason=self._reason(entry, now_s),
        )

    def _state(self, entry: _Entry, now_s: float) -> SecretState:
        if entry.is_fixed:
            return SecretState.FIXED
        if entry.confirmed_s is None:
            return SecretState.FAILED if entry.error else SecretState.UNKNOWN
        if entry.expires_s is not None and entry.expires_s <= now_s:
            return SecretState.EXPIRED
        if not entry.error:
            return SecretState.FRESH
        if now_s - entry.confirmed_s > self._stale_s:
            return SecretState.EXPIRED
        return SecretState.FAILED if entry.is_refused else SecretState.STALE

    def _reason(self, entry: _Entry, now_s: float) -> str:
        if not entry.error and self._state(entry, now_s) is SecretState.EXPIRED:
            return "its time is over"
        return entry.error
