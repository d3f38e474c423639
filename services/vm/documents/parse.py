"""VM documents as texts: YAML or JSON, every error with its place."""

from __future__ import annotations

from protocol.records import Plain, to_wire
from services.documents import DocumentFormat
from services.vm.documents.errors import DocumentError
from services.vm.documents.model import VmDocument

DEPTH_MAX = 6
NODES_MAX = 4096
_FORMAT = DocumentFormat(VmDocument, error=DocumentError, nodes_max=NODES_MAX, depth_max=DEPTH_MAX)


def parse_documents(text: str, place: str) -> tuple[VmDocument, ...]:
    """Read the documents of a text; YAML separates several by ``---``.

    Args:
        text: of YAML or JSON.
        place: what messages call the text, such as a file's name.

    Raises:
        DocumentError: it is no YAML, or a document is not valid; the message says the line, the
            key's path, and what is expected.
    """
    found = _FORMAT.read(text, place)
    names = [document.name for document in found]
    for name in names:
        if names.count(name) > 1:
            raise DocumentError(f"{place}: {name} is there {names.count(name)} times", place=place)
    return found


def document_from_wire(value: Plain) -> VmDocument:
    """A document as it came in a message or from the database.

    Raises:
        DocumentError: it is not valid.
    """
    return _FORMAT.from_wire(value)


def render_document(document: VmDocument) -> str:
    """The document as YAML; what equals its default is left out."""
    import yaml

    return yaml.safe_dump(to_wire(document), sort_keys=False, allow_unicode=True)
