"""What a request's body may be: of one length and not too long; what passes is not touched."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.api.problem import problem_response


class BodyLimit:
    """Answers 413 to a request whose body is, or turns out to be, too large.

    One that states its length in two ways gets 400 and its connection is closed, since a proxy
    ahead of us may have believed the other one (RFC 9112, 6.3).

    Args:
        app: what answers all others.
        bytes_max: of a body.
    """

    def __init__(self, app: ASGIApp, *, bytes_max: int) -> None:
        self._app = app
        self._bytes_max = bytes_max
        self._detail = f"a body has at most {bytes_max} bytes"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request pass, and look at its body's size while it is read."""
        names = {key for key, _ in scope["headers"]}
        if {b"content-length", b"transfer-encoding"} <= names:
            detail = "a request has either Content-Length or Transfer-Encoding"
            headers = {"Connection": "close"}
            response = problem_response(400, detail, path=scope["path"], headers=headers)
            await response(scope, receive, send)
            return
        # h11 has checked that the header is a number.
        announced = next((v for k, v in scope["headers"] if k == b"content-length"), b"0")
        if int(announced) > self._bytes_max:
            headers = {"Connection": "close"}
            response = problem_response(413, self._detail, path=scope["path"], headers=headers)
            await response(scope, receive, send)
            return
        received = 0

        async def count() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._bytes_max:
                # The endpoint that reads the body raises this, and it becomes the answer.
                raise HTTPException(413, self._detail, headers={"Connection": "close"})
            return message

        await self._app(scope, count, send)
