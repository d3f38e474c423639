"""Which of PostgreSQL's sentences end the retrying."""

from __future__ import annotations

import pytest

from services.data.refusal import find_refusal, one_line

_SOCKET = 'connection failed: connection to server on socket "/x/.s.PGSQL.5432" failed: '


@pytest.mark.parametrize(
    "sentence",
    [
        'FATAL:  password authentication failed for user "novacron"',
        'FATAL:  role "novacron" does not exist',
        'FATAL:  no pg_hba.conf entry for host "10.0.0.7", user "a", database "b", no encryption',
        'FATAL:  Peer authentication failed for user "novacron"',
        'FATAL:  role "novacron" is not permitted to log in',
        "fe_sendauth: no password supplied",
        "server does not support SSL, but SSL was required",
        'invalid sslmode value: "sometimes"',
    ],
)
def test_what_a_person_must_change_is_a_refusal_with_advice(sentence: str) -> None:
    """Credentials, rights and TLS settings do not get better by waiting."""
    refusal = find_refusal(_SOCKET + sentence)

    assert refusal is not None
    assert sentence.partition("FATAL:  ")[2] in refusal.sentence
    assert refusal.advice
    assert not refusal.is_missing_database


@pytest.mark.parametrize(
    "sentence",
    [
        "No such file or directory\n\tIs the server running locally?",
        "Connection refused",
        "FATAL:  the database system is starting up",
        "FATAL:  the database system is shutting down",
        "FATAL:  the database system is not yet accepting connections",
        "FATAL:  sorry, too many clients already",
        "could not translate host name",
        "FATAL:  ein Satz, den niemand kennt",
    ],
)
def test_what_may_pass_is_no_refusal(sentence: str) -> None:
    """Everything else is tried again, unknown sentences included."""
    assert find_refusal(_SOCKET + sentence) is None


def test_missing_database_is_told_apart() -> None:
    """Only this refusal may be answered by creating the database."""
    refusal = find_refusal(_SOCKET + 'FATAL:  database "novacron" does not exist')

    assert refusal is not None
    assert refusal.is_missing_database


def test_missing_relation_is_no_missing_database() -> None:
    """The pattern needs the quoted name right after the word."""
    assert find_refusal('database relation "x" does not exist') is None


def test_one_line_is_bounded() -> None:
    """A sentence has no line ends and at most 500 characters."""
    text = one_line("a\n\tb  " + "c" * 1000)

    assert text.startswith("a b c")
    assert len(text) == 500
