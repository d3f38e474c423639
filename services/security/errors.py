"""What can go wrong in the security level, by what the caller may do about it."""

from __future__ import annotations

from protocol.errors import NovacronError
from supervisor.child.service import CriticalError


class MasterKeyError(CriticalError):
    """The master key can't be used; the message says what to do. It is never replaced."""

    code = "security.master_key"


class SecurityFileError(CriticalError):
    """A file or directory of the security level is not safe to use as it is."""

    code = "security.file"


class CredentialError(CriticalError):
    """A certificate or key can't be used; the message says what is wrong with each."""

    code = "security.credential"


class CipherSelfTestError(CriticalError):
    """The cipher does not do what it must; nothing may be sealed with it."""

    code = "security.cipher_self_test"


class AuditSchemaError(CriticalError):
    """The audit table is missing, of another version, or not open to our role."""

    code = "security.audit_schema"


class AuditSelfTestError(CriticalError):
    """A record that was just written does not read back as it was signed."""

    code = "security.audit_self_test"


class DecryptionError(NovacronError):
    """Sealed bytes were changed, belong to another context, or to a key that we lack."""

    code = "security.decryption"


class AuditRefusedError(NovacronError):
    """The record breaks the limits or the form of audit records; nothing was written."""

    code = "security.audit_refused"


class AuditDisabledError(NovacronError):
    """``security.audit.enabled`` is false; nothing was written."""

    code = "security.audit_disabled"


class AuditPruneRefusedError(NovacronError):
    """Records that are old enough to be dropped do not verify; they stay, for a person to see."""

    code = "security.audit_prune_refused"


class AuditUnavailableError(NovacronError):
    """The database can't be reached; the record is not in the chain, try again later."""

    code = "security.audit_unavailable"
    retryable = True


class AuditQueueFullError(NovacronError):
    """So many records wait for the database that no more are taken; nothing was written."""

    code = "security.audit_queue_full"
    retryable = True


class TokenWrongError(NovacronError):
    """A token can't be made as asked; nothing was kept."""

    code = "security.token_wrong"


class TokenUnknownError(NovacronError):
    """There is no token with that id."""

    code = "security.token_unknown"


class TokensFullError(NovacronError):
    """As many tokens are kept as may be; nothing was kept."""

    code = "security.tokens_full"


class TokenRefusedError(NovacronError):
    """The presented token does not let its bearer in."""

    code = "security.token_refused"


class TokenStoreError(NovacronError):
    """The database refuses to keep or to give tokens; another try would not help."""

    code = "security.token_store"
    expected = False


class KeysetError(CriticalError):
    """The keyset can't be used; the message says what to do. Nothing of it is made anew."""

    code = "security.keyset"


class KeysSchemaError(CriticalError):
    """A table of the sealed values is missing or not open to our role."""

    code = "security.keys_schema"


class KeyExhaustedError(NovacronError):
    """The active data key has sealed as much as it may, and there is no other one yet."""

    code = "security.key_exhausted"
    retryable = True


class KeyRefusedError(NovacronError):
    """The change of a key is not possible now; the message says what has to be done before."""

    code = "security.key_refused"


class KeyStorageError(NovacronError):
    """The keys' files could not be written; nothing changed, try again when that is mended."""

    code = "security.key_storage"
    retryable = True


class SealedRefusedError(NovacronError):
    """The value's name, size or owner is not allowed; nothing was written."""

    code = "security.sealed_refused"


class SealedFullError(NovacronError):
    """The component keeps as many sealed values as it may; delete some first."""

    code = "security.sealed_full"
