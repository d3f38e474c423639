"""What can go wrong with a secret, by what the operator may do about it. No message has a value."""

from __future__ import annotations

from protocol.errors import NovacronError


class SecretError(NovacronError):
    """A secret could not be had; the subclass says why."""

    code = "secrets.failed"


class SecretReferenceError(SecretError):
    """The reference is malformed, or its provider does not exist: mend the configuration."""

    code = "secrets.reference"


class SecretMissingError(SecretError):
    """The provider answers, and has no such secret: store it, or mend the reference."""

    code = "secrets.missing"


class SecretUnusableError(SecretError):
    """What the provider has can't be a value: empty, too long, or with a NUL in it."""

    code = "secrets.unusable"


class SecretDeniedError(SecretError):
    """The provider, or the mode of a file, does not let us have the secret."""

    code = "secrets.denied"


class ProviderUnavailableError(SecretError):
    """The provider did not answer in time, or says that it can't at the moment."""

    code = "secrets.unavailable"
    retryable = True


class ProviderUnconfiguredError(SecretError):
    """A reference names a provider whose settings are missing; the message names the keys."""

    code = "secrets.unconfigured"


class PackageMissingError(SecretError):
    """The provider's library is not installed; the message names the extra that brings it."""

    code = "secrets.package_missing"


class RotationRefusedError(SecretError):
    """The secret can't be rotated in that way; nothing changed."""

    code = "secrets.rotation_refused"
