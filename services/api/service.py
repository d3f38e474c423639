"""The API component: the gateway on its port."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from protocol.messages.health import HEALTHY, Health, HealthState
from protocol.records import Plain, from_wire
from services.api.app import make_app
from services.api.errors import TlsFilesError
from services.api.model import ApiSettings
from services.api.server import ApiServer
from services.api.tls import ServerTls
from services.telemetry.listening import open_listener
from supervisor.child.service import CallHandler, Request, Service, ServiceContext


class ApiService(Service):
    """Serves HTTP on the configured port."""

    async def init(self, context: ServiceContext) -> None:
        """Listen; endpoints whose component is down answer 503.

        Raises:
            PortInUseError: another process has the port.
            CannotListenError: the configured host or port can't be listened on at all.
            TlsFilesError: the certificate, its key or the authorities can't be used.
        """
        self._context = context
        settings = from_wire(ApiSettings, context.settings)
        self._tls = _tls(settings)
        listener = open_listener(host=settings.host, port=settings.port, setting="api.port")
        self._app = make_app(settings, context)
        self._server = ApiServer(self._app, tls=None if self._tls is None else self._tls.context)
        await self._server.start(listener)
        context.log.info("listening", host=settings.host, port=self._server.port)

    def calls(self) -> Mapping[str, CallHandler]:
        """``api.status`` tells the port and what the server has done."""
        return {"api.status": self._tell_status}

    async def check(self) -> Health:
        """Healthy while it listens with what its files hold."""
        if not self._server.port:
            return Health(HealthState.UNHEALTHY, "not listening")
        return self._refresh_tls()

    async def terminate(self) -> None:
        """Finish running requests and close the port."""
        await self._server.close()
        self._app.flush()

    def _refresh_tls(self) -> Health:
        if self._tls is None:
            return HEALTHY
        try:
            if self._tls.refresh():
                self._context.log.info("certificate_loaded")
        except TlsFilesError as exc:
            reason = f"the new certificate can't be used, the old one is in force: {exc}"
            return Health(HealthState.DEGRADED, reason)
        return HEALTHY

    def _tell_status(self, request: Request) -> Plain:
        del request
        return {"port": self._server.port, **self._server.statistics()}


def _tls(settings: ApiSettings) -> ServerTls | None:
    if not settings.cert_file:
        return None
    authorities = Path(settings.client_ca_file) if settings.client_ca_file else None
    return ServerTls(Path(settings.cert_file), Path(settings.key_file), authorities)
