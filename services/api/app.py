"""The gateway as one ASGI application: endpoints, errors, limits, CORS."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from services.api.middleware import BodyLimit, RateLimit
from services.api.model import ApiSettings
from services.api.problem import MEDIA_TYPE, install
from services.api.rate import RateLimiter
from services.api.routes import PREFIX, serve_tree
from services.api.server import CORRELATION_HEADER, Boundary
from services.api.tree import Tree
from supervisor.child.service import ServiceContext

DESCRIPTION = "What a NovaCron node and its virtual machines do. Errors follow RFC 9457."
# How long a browser may keep the answer to a preflight request.
CORS_MAX_AGE_S = 600


def make_app(settings: ApiSettings, context: ServiceContext) -> Boundary:
    """Put the gateway together.

    From the outside in: correlation and last resort, CORS (so that pages can read errors too),
    the limits on number and size, the endpoints.
    """
    app: ASGIApp = make_endpoints(settings, context)
    app = BodyLimit(app, bytes_max=settings.body_bytes_max)
    if settings.rate_limit_enabled:
        app = RateLimit(app, limiter=RateLimiter(settings.requests_per_minute))
    if settings.cors_enabled:
        app = CORSMiddleware(
            app,
            allow_origins=settings.allowed_origins,
            allow_methods=("GET", "HEAD"),
            allow_headers=(CORRELATION_HEADER,),
            expose_headers=(CORRELATION_HEADER, "retry-after"),
            max_age=CORS_MAX_AGE_S,
        )
    log: structlog.typing.FilteringBoundLogger = context.log
    return Boundary(app, log=log, measure=context.measure)


def make_endpoints(settings: ApiSettings, context: ServiceContext) -> FastAPI:
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
    serve_tree(app, Tree(context, call_timeout_s=settings.call_timeout_s))
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
