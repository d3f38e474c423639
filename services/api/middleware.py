"""What happens to a request before an endpoint sees it: limits on number and size.

Both are plain ASGI: they touch neither body nor answer of a request that they let pass.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.api.problem import problem_response
from services.api.rate import RateLimiter, client_of


class RateLimit:
    """Answers 429 with Retry-After to a client that has used its requests up.

    Args:
        app: what answers all others.
        limiter: the buckets.
        clock: monotonic seconds.
    """

    def __init__(
        self, app: ASGIApp, *, limiter: RateLimiter, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._app = app
        self._limiter = limiter
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count the request, and let it pass or answer it."""
        client = scope.get("client")
        address = client_of(client[0]) if client else ""
        permit = self._limiter.take(address, now_s=self._clock())
        if permit.is_granted:
            await self._app(scope, receive, send)
            return
        response = problem_response(
            429,
            f"too many requests; the next one is answered in {permit.retry_after_s} s",
            path=scope["path"],
            headers={"Retry-After": str(permit.retry_after_s)},
        )
        await response(scope, receive, send)


class BodyLimit:
    """Answers 413 to a request whose body is, or turns out to be, too large.

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
