"""The images that cloud-init in the guests reads: where they are, and writing them."""

from __future__ import annotations

import contextlib
import hashlib
import re
from pathlib import Path

from services.files import replace_file
from services.vm.documents.errors import DocumentError
from services.vm.documents.model import VmDocument
from services.vm.operations.seed import iso_image, seed_files

_DIRECTORY = "seeds"
_DIGEST_LETTERS = 12


def seed_path(document: VmDocument, directory: Path) -> str:
    """Where the document's image is; "" for a document without cloud-init.

    The name follows from what is in it, so that a changed text is another image, which the guest
    gets with its next start.
    """
    if document.cloud_init is None:
        return ""
    digest = hashlib.sha256()
    for text in _texts(document):
        digest.update(len(text).to_bytes(8, "big") + text.encode())
    name = f"{document.name}-{digest.hexdigest()[:_DIGEST_LETTERS]}.iso"
    return str(directory / _DIRECTORY / name)


def check_seed(document: VmDocument) -> None:
    """Refuse texts that cloud-init would not take.

    Raises:
        DocumentError: it is such a document; one without cloud-init never is.
    """
    if document.cloud_init is None:
        return
    try:
        seed_files(*_texts(document))
    except ValueError as exc:
        raise DocumentError(f"{document.name}: cloud_init: {exc}") from exc


def write_seed(document: VmDocument, path: str) -> None:
    """Write the image unless it is there; blocks.

    Raises:
        DocumentError: it can't be made, or can't be written there.
    """
    file = Path(path)
    if file.exists():
        return
    try:
        # QEMU's own account goes through the directory; libvirt gives it the file.
        file.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        replace_file(file, iso_image(seed_files(*_texts(document))))
    except OSError as exc:
        raise DocumentError(f"{document.name}: can't write {file}: {exc.strerror}") from exc


def drop_seeds(name: str, directory: Path, *, keep: str) -> None:
    """Remove a machine's images but one; blocks. What can't be removed stays.

    Args:
        name: the machine's.
        directory: as for ``seed_path``.
        keep: path of the one that is in use; "" for none.
    """
    pattern = re.compile(rf"{re.escape(name)}-[0-9a-f]{{{_DIGEST_LETTERS}}}\.iso")
    with contextlib.suppress(OSError):
        for file in (directory / _DIRECTORY).iterdir():
            if pattern.fullmatch(file.name) and str(file) != keep:
                file.unlink(missing_ok=True)


def _texts(document: VmDocument) -> tuple[str, str, str]:
    """User data, metadata and network configuration, with what cloud-init must have."""
    given = document.cloud_init
    assert given is not None
    identity = f"instance-id: {document.domain_uuid}\nlocal-hostname: {document.name}\n"
    return (
        given.user_data or "#cloud-config\n{}\n",
        given.meta_data or identity,
        given.network_config,
    )
