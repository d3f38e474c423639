"""Networks documents as texts: YAML or JSON, every error with its place."""

from __future__ import annotations

from protocol.records import to_wire
from services.documents import DocumentFormat
from services.network.networks.errors import NetworksDocumentError
from services.network.networks.model import NetworksDocument

# 512 networks of a hundred values each; a text of the size that a message takes has fewer.
_NODES_MAX = 60_000
_DEPTH_MAX = 8
FORMAT = DocumentFormat(
    NetworksDocument, error=NetworksDocumentError, nodes_max=_NODES_MAX, depth_max=_DEPTH_MAX
)


def parse_networks(text: str, place: str) -> NetworksDocument:
    """Read the one document of a text.

    Args:
        text: of YAML or JSON.
        place: what messages call the text, such as a file's name.

    Raises:
        NetworksDocumentError: it is no YAML, not valid, or there are several; the message says
            the line, the key's path, and what is expected.
    """
    return FORMAT.read_one(text, place)


def render_networks(document: NetworksDocument) -> str:
    """The document as YAML; what equals its default is left out."""
    import yaml

    return yaml.safe_dump(to_wire(document), sort_keys=False, allow_unicode=True)
