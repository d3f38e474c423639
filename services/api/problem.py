"""Every error as ``application/problem+json`` (RFC 9457), whoever found it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from protocol.errors import NovacronError
from services.api.errors import (
    ComponentAnswerError,
    ComponentUnavailableError,
    ForbiddenError,
    MachineRefusedError,
    NotRecordedError,
    UnknownComponentError,
    UnknownMachineError,
    UnknownOperationError,
)
from supervisor.child.logs import correlation_id

MEDIA_TYPE = "application/problem+json"
# What a client may wait before it asks again for what a restart will bring back.
RETRY_AFTER_S = 1
# A request can be wrong in as many ways as it has parts; nobody reads more than this.
FIELD_PROBLEMS_MAX = 20
_TEXT_LENGTH_MAX = 500
_STATUSES: Mapping[type[NovacronError], int] = {
    ComponentUnavailableError: 503,
    NotRecordedError: 503,
    ComponentAnswerError: 502,
    ForbiddenError: 403,
    UnknownComponentError: 404,
    UnknownMachineError: 404,
    UnknownOperationError: 404,
    MachineRefusedError: 409,
}


def problem_response(
    status: int,
    detail: str,
    *,
    path: str,
    code: str = "",
    headers: Mapping[str, str] | None = None,
    errors: Sequence[Mapping[str, str]] | None = None,
) -> Response:
    """The answer for one error.

    Args:
        status: HTTP status code.
        detail: a sentence for people.
        path: what was asked for.
        code: stable identifier; by default made from the status code.
        headers: further headers, such as Retry-After.
        errors: the parts of the request that are wrong, each with location and message.
    """
    phrase = HTTPStatus(status).phrase
    code = code or f"http.{phrase.lower().replace(' ', '_').replace('-', '_')}"
    body: dict[str, object] = {
        "type": f"urn:novacron:problem:{code}",
        "title": phrase,
        "status": status,
        "detail": detail[:_TEXT_LENGTH_MAX],
        "instance": path[:_TEXT_LENGTH_MAX],
        "code": code,
        "correlation_id": correlation_id.get(),
    }
    if errors:
        body["errors"] = [dict(item) for item in errors]
    return Response(json.dumps(body), status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Let an application answer its errors this way."""
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(NovacronError, _named)
    # Starlette raises it again after answering, so that the server can log it.
    app.add_exception_handler(Exception, _crashed)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return problem_response(
        error.status_code, str(error.detail), path=request.url.path, headers=error.headers
    )


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = [
        {
            "location": ".".join(str(part) for part in item["loc"])[:_TEXT_LENGTH_MAX],
            "message": str(item["msg"])[:_TEXT_LENGTH_MAX],
        }
        for item in error.errors()[:FIELD_PROBLEMS_MAX]
    ]
    detail = "; ".join(f"{item['location']}: {item['message']}" for item in errors)
    return problem_response(
        422, detail, path=request.url.path, code="http.invalid_request", errors=errors
    )


async def _named(request: Request, error: Exception) -> Response:
    assert isinstance(error, NovacronError)
    status = next((code for kind, code in _STATUSES.items() if isinstance(error, kind)), 500)
    headers = (
        {"Retry-After": str(RETRY_AFTER_S)} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}
    )
    return problem_response(
        status, str(error), path=request.url.path, code=error.code, headers=headers
    )


async def _crashed(request: Request, error: Exception) -> Response:
    del error  # what it says is for the log
    return crash_response(request.url.path)


def crash_response(path: str) -> Response:
    """The answer to a request that met a fault of ours."""
    return problem_response(
        500, "a fault in the gateway; the correlation id finds it in the log", path=path
    )
