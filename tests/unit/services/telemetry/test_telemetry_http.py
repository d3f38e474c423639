"""Reading a request and writing an answer, as bytes."""

from __future__ import annotations

import pytest

from services.telemetry.http import json_answer, parse_request, problem_answer, render


@pytest.mark.parametrize(
    ("request_bytes", "expected"),
    [
        (b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n", ("GET", "/health/live")),
        (b"HEAD /metrics?x=1 HTTP/1.0\r\n\r\n", ("HEAD", "/metrics")),
        (b"GET http://h:1/metrics HTTP/1.1\r\n\r\n", ("GET", "/metrics")),
        (b"GET http://h HTTP/1.1\r\n\r\n", None),
        (b"GET /x\r\n\r\n", None),
        (b"GET /x HTTP/2\r\n\r\n", None),
        (b"GET  /x HTTP/1.1\r\n\r\n", None),
        (b"\x16\x03\x01 / HTTP/1.1\r\n\r\n", None),
        (b"GET x HTTP/1.1\r\n\r\n", None),
        (b"", None),
    ],
)
def test_request_line(request_bytes: bytes, expected: tuple[str, str] | None) -> None:
    """Method and path come from a sound request line; anything else is refused."""
    assert parse_request(request_bytes) == expected


def test_answer_without_its_body_keeps_its_length() -> None:
    """HEAD answers as GET does, without the body."""
    answer = json_answer(200, {"a": 1})

    whole = render(answer, with_body=True)
    head = render(answer, with_body=False)

    assert whole.endswith(b'{"a": 1}\n')
    assert b"Content-Length: 9\r\n" in head
    assert head.endswith(b"\r\n\r\n")


def test_wrong_method_names_the_right_ones() -> None:
    """405 carries Allow."""
    assert b"\r\nAllow: GET, HEAD\r\n" in render(problem_answer(405, "x"), with_body=True)
