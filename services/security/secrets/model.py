"""The settings of the part that keeps an eye on secrets, and the records of its calls.

Calls of the process ``security``:

    secrets.list     nothing -> SecretList
    secrets.check    nothing -> SecretCheck; asks every provider now
    secrets.rotate   RotateRequest -> RotateResult
    secrets.get      GetRequest -> GetResult; for processes of the tree and never for a person
"""

from __future__ import annotations

import dataclasses
import enum

from protocol.dataclass import dataclass, field
from services.security.secrets.settings import SecretsSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretUse:
    """A configuration key whose value a provider has.

    Attributes:
        key: dotted.
        name: ``PROVIDER/NAME``.
        fingerprint: of the value that the node runs with.
    """

    key: str
    name: str
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretsPartSettings:
    """The providers, and what the configuration takes from them."""

    providers: SecretsSettings = field(default_factory=SecretsSettings)
    uses: tuple[SecretUse, ...] = ()


class SecretState(enum.Enum):
    """How a secret is; see services.security.secrets.cache."""

    UNKNOWN = "unknown"
    FRESH = "fresh"
    STALE = "stale"
    EXPIRED = "expired"
    FAILED = "failed"
    FIXED = "fixed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretView:
    """What may be told of a secret: everything but its value.

    Attributes:
        name: ``PROVIDER/NAME``.
        state: how it is.
        keys: configuration keys that take it.
        version: the provider's name for the value.
        created_s: Unix time at which the version was made, where the provider says so.
        expires_s: Unix time of its end; None for never.
        confirmed_s: Unix time at which the provider last gave it; None for never.
        changed_s: Unix time at which this process last saw another value.
        reason: why it is not fresh; "" when it is.
        is_applied: the node runs with this value.
    """

    name: str
    state: SecretState
    keys: tuple[str, ...] = ()
    version: str = ""
    created_s: float | None = None
    expires_s: float | None = None
    confirmed_s: float | None = None
    changed_s: float | None = None
    reason: str = ""
    is_applied: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretList:
    """All secrets that the configuration refers to."""

    secrets: tuple[SecretView, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderCheck:
    """How a provider answers now.

    Attributes:
        provider: its name.
        problem: "" when it is well.
        took_s: how long the answer took.
    """

    provider: str
    problem: str
    took_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretCheck:
    """Every provider in use, and every secret, asked for now."""

    providers: tuple[ProviderCheck, ...] = ()
    secrets: tuple[SecretView, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RotateRequest:
    """Which secret to rotate.

    Attributes:
        name: ``PROVIDER/NAME``.
        newest: take what the provider has by now instead of making a new value.
    """

    name: str
    newest: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RotateResult:
    """What a rotation did.

    Attributes:
        name: of the secret.
        version: the version that counts now.
        is_changed: the node runs with another value still: it reads its configuration anew now, and
            restarts what uses the value.
    """

    name: str
    version: str
    is_changed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GetRequest:
    """Which secret a process wants."""

    name: str


# The standard one, which can leave a field out of the text.
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GetResult:
    """A secret's value, for a process of the tree."""

    value: str = dataclasses.field(repr=False)
    version: str
    expires_s: float | None = None
