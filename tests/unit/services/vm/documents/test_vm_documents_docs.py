"""docs/vm.md says what the program does."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from protocol.errors import NovacronError
from services.vm.documents import errors
from services.vm.documents.devices import CloudInit, Cpus, Disk, Nic
from services.vm.documents.model import VmDocument
from services.vm.documents.parse import parse_documents
from services.vm.documents.steps import StepKind

ROOT = Path(__file__).parents[5]
TEXT = (ROOT / "docs/vm.md").read_text()


def test_the_example_is_the_file_s() -> None:
    """The text and the file that the node test applies are one document."""
    block = re.search(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    assert block is not None

    shown = parse_documents(block[1], "docs/vm.md")

    assert shown == parse_documents((ROOT / "docs/examples/vm.yaml").read_text(), "vm.yaml")


@pytest.mark.parametrize("record", [VmDocument, Cpus, Disk, Nic, CloudInit])
def test_every_key_is_explained(record: type) -> None:
    """A key that is added needs its line."""
    for field in dataclasses.fields(record):
        assert f"`{field.name}`" in TEXT, field.name


def test_every_step_and_error_is_explained() -> None:
    """What an operator may meet."""
    for kind in StepKind:
        assert f"`{kind.value}`" in TEXT, kind
    for item in vars(errors).values():
        is_own = isinstance(item, type) and issubclass(item, NovacronError)
        if is_own and item is not NovacronError:
            assert f"`{item.code}`" in TEXT, item.code
