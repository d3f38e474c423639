"""Problems, correlation ids, and what the tree's answers become; without a server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from protocol.errors import RemoteCallError
from protocol.messages.metrics import MetricKind
from protocol.records import Plain
from services.api.errors import ComponentAnswerError, ComponentUnavailableError
from services.api.model import ApiSettings
from services.api.problem import problem_response
from services.api.server import Boundary, correlation_of
from services.api.tree import Tree
from supervisor.child.service import Request
from supervisor.testing.context import MemoryServiceContext

Handler = Callable[[Request], Awaitable[Plain]]


def scope(method: str = "GET", **headers: str) -> dict[str, Any]:
    """An ASGI scope."""
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "method": method, "path": "/p", "headers": pairs}


async def answer_of(app: Boundary, request: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages that an application sends."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(request, receive, send)
    app.flush()
    return sent


def boundary(app: Any) -> tuple[MemoryServiceContext, Boundary]:
    """An application behind the boundary."""
    context = MemoryServiceContext(path="api")
    return context, Boundary(app, log=context.log, measure=context.measure)


def test_problem_has_the_members_of_rfc_9457() -> None:
    """A problem names type, title, status, detail and instance, and our code."""
    response = problem_response(404, "no such thing", path="/x")

    body = json.loads(bytes(response.body))
    assert response.media_type == "application/problem+json"
    assert body == {
        "type": "urn:novacron:problem:http.not_found",
        "title": "Not Found",
        "status": 404,
        "detail": "no such thing",
        "instance": "/x",
        "code": "http.not_found",
        "correlation_id": "",
    }


def test_long_texts_of_the_client_are_cut() -> None:
    """A problem repeats only so much of what the client sent."""
    response = problem_response(404, "x" * 9999, path="/" + "y" * 9999)

    assert len(bytes(response.body)) < 1500


@pytest.mark.parametrize("given", ["abc-1.2_X", "x" * 64])
def test_sound_correlation_id_is_kept(given: str) -> None:
    """A client may name its request."""
    assert correlation_of(scope(x_correlation_id=given)) == given


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a\nb", 'a"b', "ä"])
def test_unsound_correlation_id_is_replaced(given: str) -> None:
    """What could harm a log, or is too long, gets a new id."""
    found = correlation_of(scope(x_correlation_id=given))

    assert found != given
    assert len(found) == 16


def test_fault_becomes_a_problem_and_a_count() -> None:
    """An application that breaks is answered with 500, without what broke it."""

    async def broken(_scope: Any, _receive: Any, _send: Any) -> None:
        raise RuntimeError("secret detail")

    context, app = boundary(broken)

    start, body = asyncio.run(answer_of(app, scope()))

    assert start["status"] == 500
    assert b"secret" not in body["body"]
    names = {(item.name, item.kind) for item in context.samples}
    assert ("novacron_api_requests_total", MetricKind.COUNTER) in names


def test_broken_off_answer_is_not_answered_twice() -> None:
    """When the answer has begun, a fault can't be told any more."""

    async def half(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError

    _, app = boundary(half)

    assert [item["type"] for item in asyncio.run(answer_of(app, scope()))] == [
        "http.response.start"
    ]


def test_head_reaches_the_endpoint_as_get() -> None:
    """HEAD has what GET has; the server leaves the body out."""
    seen: list[str] = []

    async def note(inner: Any, _receive: Any, send: Any) -> None:
        seen.append(inner["method"])
        await send({"type": "http.response.start", "status": 200, "headers": []})

    _, app = boundary(note)

    asyncio.run(answer_of(app, scope("HEAD")))

    assert seen == ["GET"]


def test_requests_are_counted_by_route_and_not_by_path() -> None:
    """A client that makes paths up makes no series up."""

    async def missing(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": []})

    context, app = boundary(missing)

    async def scenario() -> None:
        for name in ("/a", "/b", "/c"):
            await answer_of(app, {**scope("BREW"), "path": name})

    asyncio.run(scenario())

    labels = [s.labels for s in context.samples if s.kind is MetricKind.COUNTER]
    assert labels == [{"method": "other", "route": "none", "status": "404"}] * 3


def tree(handler: Handler | None) -> Tree:
    """A tree whose VM component answers that way, or is down."""
    peers = {"core/vm": {"vm.list": handler}} if handler else {}
    return Tree(MemoryServiceContext(path="api", peers=peers), call_timeout_s=0.05)


def raising(error: Exception) -> Handler:
    """A component that fails."""

    async def fail(request: Request) -> Plain:
        raise error

    return fail


def returning(value: Plain) -> Handler:
    """A component that answers."""

    async def answer(request: Request) -> Plain:
        return value

    return answer


async def hang(request: Request) -> Plain:
    """A component that never answers."""
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("handler", "error"),
    [
        (None, ComponentUnavailableError),
        (hang, ComponentUnavailableError),
        (
            raising(RemoteCallError("gone", remote_code="vm.x", remote_retryable=True)),
            ComponentUnavailableError,
        ),
        (
            raising(RemoteCallError("no method", remote_code="protocol.no_method")),
            ComponentUnavailableError,
        ),
        (raising(RemoteCallError("bug", remote_code="internal")), ComponentAnswerError),
        (returning({"other": 1}), ComponentAnswerError),
        (returning(None), ComponentAnswerError),
    ],
)
def test_what_the_vm_component_does_decides_the_error(
    handler: Handler | None, error: type[Exception]
) -> None:
    """Down, hung or busy is 'ask later'; a wrong answer is a fault."""
    with pytest.raises(error):
        asyncio.run(tree(handler).domains())


@pytest.mark.parametrize(
    "settings", [{"requests_per_minute": 0}, {"body_bytes_max": -1}, {"call_timeout_s": 0.0}]
)
def test_settings_are_checked(settings: dict[str, Any]) -> None:
    """Values without a meaning are refused."""
    with pytest.raises(ValueError, match="above 0"):
        ApiSettings(**settings)
