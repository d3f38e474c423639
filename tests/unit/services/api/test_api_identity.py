"""Identities and lockout: what requests show, and what failing too often leads to."""

from __future__ import annotations

import pytest

from protocol.messages.access import Role
from services.api.identity import (
    CLIENTS_MAX,
    FAILURES_MAX,
    FAILURES_PERIOD_S,
    LOCKED_FIRST_S,
    LOCKED_MAX_S,
    Lockout,
    Means,
    anonymous,
    identity_of_certificate,
    presented,
)
from services.security.tokens import format_token

TOKEN, SHOWN = format_token(bytes(42))


@pytest.mark.parametrize("scheme", [b"Bearer", b"bearer", b"BEARER"])
def test_a_bearer_token_is_presented(scheme: bytes) -> None:
    """The scheme's case does not matter (RFC 9110, 11.1)."""
    assert presented([(b"authorization", scheme + b" " + TOKEN.encode())]) == SHOWN


def test_nothing_shown_is_nothing() -> None:
    """A request without the header is nobody's, and not a wrong one."""
    assert presented([(b"cookie", TOKEN.encode())]) is None


@pytest.mark.parametrize(
    "value", [b"", b"Bearer", b"Bearer x", b"Digest x", b"\xff\xfe", b"Basic a"]
)
def test_what_is_no_token_is_told(value: bytes) -> None:
    """Everything else is a sentence about what is wrong, which never quotes what was sent."""
    assert isinstance(presented([(b"authorization", value)]), str)


@pytest.mark.parametrize(
    "subject",
    [
        (),
        ((("commonName", "a"),),),
        ((("organizationName", "admin"),),),
        ((("commonName", "a"),), (("organizationName", "root"),)),
        ((("commonName", "a"),), (("commonName", "b"),), (("organizationName", "admin"),)),
        ((("commonName", "a"),), (("organizationName", "viewer"), ("organizationName", "admin"))),
    ],
)
def test_certificates_that_name_nobody(subject: tuple[tuple[tuple[str, str], ...], ...]) -> None:
    """A certificate names exactly one name and one role that there is."""
    assert isinstance(identity_of_certificate(subject, "f"), str)


def test_a_certificate_names_its_owner() -> None:
    """CN is the name and O the role."""
    subject = ((("organizationName", "admin"),), (("commonName", "alice"),))
    found = identity_of_certificate(subject, "ff")
    assert not isinstance(found, str)
    assert (found.name, found.role, found.means) == ("alice", Role.ADMIN, Means.CERTIFICATE)
    assert found.actor == "certificate/alice"
    assert anonymous(Role.VIEWER, "127.0.0.1").actor == "anonymous"


def fail(lockout: Lockout, *, now_s: float, times: int = FAILURES_MAX) -> bool:
    """Let a client fail so often; True when the last one locked it out."""
    return [lockout.failed("c", now_s=now_s) for _ in range(times)][-1]


def test_too_many_failures_lock_out_for_longer_each_time() -> None:
    """The lock doubles up to a limit, and others are not concerned."""
    lockout, now_s, locks = Lockout(), 1000.0, []
    for _ in range(6):
        assert not fail(lockout, now_s=now_s, times=FAILURES_MAX - 1)
        assert fail(lockout, now_s=now_s, times=1)
        locks.append(lockout.wait_s("c", now_s=now_s))
        assert lockout.wait_s("other", now_s=now_s) == 0
        now_s += locks[-1]
        assert lockout.wait_s("c", now_s=now_s) == 0
    first = int(LOCKED_FIRST_S)
    assert locks == [first, 2 * first, 4 * first, 8 * first, int(LOCKED_MAX_S), int(LOCKED_MAX_S)]


def test_slow_failures_never_lock_out() -> None:
    """What a person mistypes over a day is not an attack."""
    lockout, now_s = Lockout(), 0.0
    for _ in range(10 * FAILURES_MAX):
        assert not lockout.failed("c", now_s=now_s)
        now_s += FAILURES_PERIOD_S / (FAILURES_MAX - 1) + 1


def test_a_quiet_time_starts_over() -> None:
    """After the longest lock's time without a failure, the next lock is a short one again."""
    lockout = Lockout()
    assert fail(lockout, now_s=0.0)
    assert fail(lockout, now_s=LOCKED_FIRST_S)
    later_s = LOCKED_FIRST_S * 3 + LOCKED_MAX_S + 1
    assert fail(lockout, now_s=later_s)
    assert lockout.wait_s("c", now_s=later_s) == LOCKED_FIRST_S


def test_the_table_is_bounded() -> None:
    """A flood of addresses takes bounded memory; who failed longest ago is forgotten."""
    lockout = Lockout(clients_max=3)
    for client in "abcd":
        lockout.failed(client, now_s=0.0)
    assert lockout.clients() == 3
    assert CLIENTS_MAX < 100_000
