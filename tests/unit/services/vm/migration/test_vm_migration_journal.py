"""What a node has begun to move, and what it can't read of that."""

from __future__ import annotations

import json
from pathlib import Path

from protocol.records import to_wire
from services.vm.migration.journal import FORMAT, Journal, Undertaking
from services.vm.migration.model import MigrateRequest, Storage
from services.vm.migration.routes import Route

HAD = Undertaking(
    uuid="4dea22b3",
    name="web1",
    from_node="a",
    request=MigrateRequest(domain="web1", node="b", storage=Storage.COPY),
    route=Route(node="b", host="b", libvirt_uri="qemu+tls://b/system"),
    epoch=3,
    made_disks=("/images/web1.qcow2",),
)


def test_what_is_begun_is_found_again(tmp_path: Path) -> None:
    """Whole, readable for the node alone, until it is dropped; dropping twice is no error."""
    journal = Journal(tmp_path / "migrations")
    journal.write(HAD)

    assert Journal(tmp_path / "migrations").read().undertakings == (HAD,)
    assert journal.read_one(HAD.uuid) == HAD
    assert (tmp_path / "migrations/4dea22b3.json").stat().st_mode & 0o777 == 0o600
    journal.drop(HAD.uuid)
    journal.drop(HAD.uuid)
    assert journal.read().undertakings == ()


def test_garbage_is_told_and_hides_nothing(tmp_path: Path) -> None:
    """A torn file, one of a newer program, one under another's name."""
    journal = Journal(tmp_path)
    journal.write(HAD)
    (tmp_path / "torn.json").write_text('{"uuid": "tor')
    newer = {**to_wire(HAD), "uuid": "newer", "format": FORMAT + 1}
    (tmp_path / "newer.json").write_text(json.dumps(newer))
    (tmp_path / "other.json").write_text((tmp_path / "4dea22b3.json").read_text())

    found = journal.read()

    assert found.undertakings == (HAD,)
    assert sorted(Path(path).name for path in found.unreadable) == [
        "newer.json",
        "other.json",
        "torn.json",
    ]


def test_without_a_directory_it_is_kept_in_memory() -> None:
    """A service that has no place for it works all the same, until it ends."""
    journal = Journal(None)
    journal.write(HAD)

    assert journal.read_one(HAD.uuid) == HAD
    assert journal.read().undertakings == ()
    journal.drop(HAD.uuid)
    assert journal.read_one(HAD.uuid) is None
