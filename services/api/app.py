"""The gateway as one ASGI application: endpoints, errors, limits, CORS."""

from __future__ import annotations

import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from protocol.messages.access import Role
from protocol.messages.metrics import MetricKind, MetricSample
from services.api.access import Access
from services.api.gate import Gate
from services.api.machines import Machines
from services.api.middleware import BodyLimit
from services.api.model import ApiSettings
from services.api.operations import Operator
from services.api.problem import MEDIA_TYPE, install
from services.api.rate import RateLimiter
from services.api.routes import PREFIX, serve_tree
from services.api.server import CORRELATION_HEADER, Boundary
from services.api.tree import Tree
from supervisor.child.service import ServiceContext

DESCRIPTION = "What a NovaCron node and its virtual machines do. Errors follow RFC 9457."
# How long a browser may keep the answer to a preflight request.
CORS_MAX_AGE_S = 600
LOCKOUTS_PER_MINUTE = 10


def make_app(settings: ApiSettings, context: ServiceContext) -> Boundary:
    """Put the gateway together.

    From the outside in: correlation and last resort, CORS (so that pages can read errors too),
    who asks and how often, the limit on size, the endpoints.
    """
    access = Access(context, call_timeout_s=settings.call_timeout_s)
    app: ASGIApp = make_endpoints(settings, context, access)
    app = BodyLimit(app, bytes_max=settings.body_bytes_max)
    app = Gate(
        app,
        verify=access.verify,
        limiter=RateLimiter(settings.requests_per_minute) if settings.rate_limit_enabled else None,
        anonymous_role=Role(settings.anonymous_role) if settings.anonymous_role else None,
        on_lockout=Lockouts(context),
    )
    if settings.cors_enabled:
        app = CORSMiddleware(
            app,
            allow_origins=settings.allowed_origins,
            allow_methods=("GET", "HEAD", "POST"),
            allow_headers=(CORRELATION_HEADER, "authorization"),
            expose_headers=(CORRELATION_HEADER, "retry-after"),
            max_age=CORS_MAX_AGE_S,
        )
    log: structlog.typing.FilteringBoundLogger = context.log
    return Boundary(app, log=log, measure=context.measure)


class Lockouts:
    """Tells the log, the journal and the metrics who was locked out, the journal in bounds.

    Args:
        context: to tell with.
        clock: monotonic seconds.
    """

    def __init__(
        self, context: ServiceContext, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._context = context
        self._clock = clock
        # A flood of addresses is one story, told a few times a minute.
        self._journal = RateLimiter(LOCKOUTS_PER_MINUTE, clients_max=1)

    def __call__(self, client: str, *, for_s: int) -> None:
        """Tell of one lock."""
        self._context.log.warning("client_locked_out", client=client, for_s=for_s)
        self._context.measure(MetricSample(MetricKind.COUNTER, "novacron_api_lockouts_total", 1))
        if self._journal.take("", now_s=self._clock()).is_granted:
            self._context.emit("api:locked-out", client=client, for_s=for_s)


def make_endpoints(settings: ApiSettings, context: ServiceContext, access: Access) -> FastAPI:
    """The endpoints and their OpenAPI document, without the layers around them.

    The documentation pages are off: they load scripts from a foreign host.
    """
    app = _Endpoints(
        title="NovaCron",
        description=DESCRIPTION,
        version=settings.version,
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    install(app)
    tree = Tree(context, call_timeout_s=settings.call_timeout_s)
    operator = Operator(context, access)
    serve_tree(app, tree, operator, Machines(context, operator))
    return app


class _Endpoints(FastAPI):
    """FastAPI, with errors documented in the media type that they have."""

    def openapi(self) -> dict[str, Any]:  # Any: FastAPI's own type
        if self.openapi_schema is None:
            document = super().openapi()
            for path in document["paths"].values():
                for operation in path.values():
                    _as_problems(operation["responses"])
        return super().openapi()


def _as_problems(responses: dict[str, dict[str, Any]]) -> None:  # Any: a part of the document
    for code, response in responses.items():
        if int(code) >= HTTPStatus.BAD_REQUEST:
            response["content"] = {MEDIA_TYPE: response["content"].pop("application/json")}
