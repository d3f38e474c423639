"""What may be asked of operations."""

from __future__ import annotations

import pytest

from protocol.errors import RemoteProtocolError
from protocol.records import from_wire
from services.vm.operations.model import WAIT_MAX_S, DomainRequest, ResizeRequest, StopRequest
from services.vm.operations.storage_model import ImageCreateRequest


@pytest.mark.parametrize(
    ("record", "body"),
    [
        (DomainRequest, {"domain": ""}),
        (DomainRequest, {"domain": "x" * 256}),
        (DomainRequest, {"domain": "a", "wait_s": WAIT_MAX_S + 1}),
        (StopRequest, {"domain": "a", "acpi_s": -1.0}),
        (StopRequest, {"domain": "a", "agent_s": 0.0, "acpi_s": 0.0, "force_s": 0.0}),
        (ResizeRequest, {"domain": "a"}),
        (ResizeRequest, {"domain": "a", "disk": "vda"}),
        (ImageCreateRequest, {"path": "/a"}),
        (ImageCreateRequest, {"path": "/a", "size_bytes": 0}),
        (ImageCreateRequest, {"path": "/a", "backing": "/b", "format": "raw"}),
    ],
)
def test_what_means_nothing_is_refused(record: type[object], body: dict[str, object]) -> None:
    """It names the record, before anything is done."""
    with pytest.raises(RemoteProtocolError):
        from_wire(record, body)


def test_the_largest_that_means_something_is_taken() -> None:
    """Limits are inclusive."""
    assert (
        from_wire(DomainRequest, {"domain": "x" * 255, "wait_s": WAIT_MAX_S}).wait_s == WAIT_MAX_S
    )
    assert from_wire(StopRequest, {"domain": "a", "agent_s": 0.0, "acpi_s": 0.0}).force_s > 0
