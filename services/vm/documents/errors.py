"""What can go wrong with documents; the class says what the caller may do about it."""

from __future__ import annotations

from protocol.errors import NovacronError


class DocumentError(NovacronError):
    """A document is not valid: mend it where the message says."""

    code = "vm.document_invalid"


class DocumentNotFoundError(NovacronError):
    """There is no document of that name on this node."""

    code = "vm.document_not_found"


class DocumentChangedError(NovacronError):
    """Somebody else changed the document meanwhile: read it again; ``fields`` name the versions."""

    code = "vm.document_changed"


class DocumentElsewhereError(NovacronError):
    """The document belongs to another node: ask there, or move the machine."""

    code = "vm.document_elsewhere"


class DocumentsFullError(NovacronError):
    """There are as many documents as a node may have."""

    code = "vm.documents_full"


class DocumentStoreError(NovacronError):
    """The table or the cache of documents can't be used as it is; the message says why."""

    code = "vm.document_store"


class DocumentsUnavailableError(NovacronError):
    """The database is away, so nothing can be written; guests and what is known go on."""

    code = "vm.documents_unavailable"
    retryable = True


class FencedError(NovacronError):
    """The domain carries the mark of a newer owner than this node knows of: nothing was changed."""

    code = "vm.fenced"


class AdoptionError(NovacronError):
    """The domain can't be adopted; the message says why."""

    code = "vm.adoption_refused"


class ApplyBusyError(NovacronError):
    """Another apply is under way; ask again when it has ended."""

    code = "vm.apply_busy"
    retryable = True


class DomainRunningError(NovacronError):
    """The machine runs, and what was asked for needs it stopped."""

    code = "vm.domain_running"


class PlanRefusedError(NovacronError):
    """The plan for what was given is refused; nothing was kept or changed. The message says why."""

    code = "vm.plan_refused"
