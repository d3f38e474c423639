"""The documents as a part of the VM service. Loads what it needs when it is first asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from protocol.records import Plain, from_wire
from services.vm.leases.part import Leases
from services.vm.model import VmSettings
from supervisor.child.service import CallHandler, Request, ServiceContext

if TYPE_CHECKING:
    from services.vm.documents.methods import Methods

_METHODS = {
    "vm.documents": "documents",
    "vm.get": "get",
    "vm.plan": "plan",
    "vm.apply": "apply",
    "vm.define": "apply",
    "vm.undefine": "undefine",
    "vm.adopt": "adopt",
}


def make_documents(
    context: ServiceContext, settings: VmSettings, leases: Leases, changed: Callable[[], None]
) -> Documents | None:
    """The part; None where the settings name no database."""
    if settings.postgres is None:
        return None
    return Documents(context, settings, leases, changed)


class Documents:
    """Desired machines.

    Args:
        context: the service's.
        settings: the service's, with a database.
        leases: asked before a machine starts.
        changed: called when ``reason`` may be another.
    """

    def __init__(
        self,
        context: ServiceContext,
        settings: VmSettings,
        leases: Leases,
        changed: Callable[[], None],
    ) -> None:
        self._context = context
        self._leases = leases
        self._settings = settings
        self._changed = changed
        self._loaded: Methods | None = None

    @property
    def reason(self) -> str:
        """Why the component is degraded; "" while it is not."""
        return self._loaded.reason if self._loaded else ""

    def calls(self) -> Mapping[str, CallHandler]:
        """The calls, by name."""
        return {call: partial(self._call, name) for call, name in _METHODS.items()}

    async def close(self) -> None:
        """Close what was opened; guests go on."""
        loaded, self._loaded = self._loaded, None
        if loaded is not None:
            await loaded.close()

    async def _call(self, name: str, request: Request) -> Plain:
        if self._loaded is None:
            self._loaded = self._load()
        return await getattr(self._loaded, name)(request)

    def _load(self) -> Methods:
        # Imported here: most nodes boot without being asked, and psycopg and libvirt cost time
        # and memory.
        from services.data.connecting import connect
        from services.data.model import PostgresSettings
        from services.vm.documents.apply import Applier
        from services.vm.documents.methods import Methods
        from services.vm.documents.store import DocumentStore

        settings = self._settings
        postgres = from_wire(PostgresSettings, settings.postgres)
        store = DocumentStore(
            partial(connect, postgres, application="novacron-vm"),
            node_id=settings.node_id,
            directory=Path(settings.state_dir, "vm"),
        )
        applier = Applier(
            self._context,
            libvirt_uri=settings.libvirt_uri,
            call_timeout_s=settings.call_timeout_s,
            image_dirs=settings.image_dirs,
            leases=self._leases,
            changed=self._changed,
        )
        return Methods(self._context, node_id=settings.node_id, store=store, applier=applier)
