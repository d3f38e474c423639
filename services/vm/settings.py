"""The VM service's settings out of the configuration."""

from __future__ import annotations

from pathlib import Path

from protocol.records import Plain
from services.config.model import Config


def vm_settings(config: Config, *, state_dir: Path, postgres: Plain) -> dict[str, Plain]:
    """The wire form of VmSettings.

    Args:
        config: the node's.
        state_dir: the node's.
        postgres: wire form of PostgresSettings.
    """
    vm, migration = config.vm, config.vm.migration
    return {
        "libvirt_uri": vm.libvirt_uri,
        "image_dirs": [str(state_dir / "images"), *(str(path) for path in vm.image_dirs)],
        "lease_ttl_s": vm.lease_ttl,
        "fenced_guests": vm.fenced_guests.value,
        "autostart_enabled": vm.autostart.enabled,
        "autostart_parallel": vm.autostart.parallel,
        "autostart_delay_s": vm.autostart.delay,
        "migration": {
            "uri": migration.uri,
            "addresses": list(migration.addresses),
            "has_plain_streams": migration.plain_streams,
        },
        "node_id": config.platform.node_id,
        "state_dir": str(state_dir),
        "postgres": postgres,
    }
