"""Who gets in is decided by the published keys alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from zmq.utils import z85

from protocol.errors import PeerUnavailableError
from protocol.transports.curve import (
    ZAP_DOMAIN,
    client_pair,
    key_pair,
    publish,
    published_key,
    raw_key,
    subtree_secret,
    withdraw,
    zap_reply,
)

SECRET = bytes(range(32))


def request(
    public: bytes, *, domain: bytes = ZAP_DOMAIN, mechanism: bytes = b"CURVE"
) -> list[bytes]:
    """A ZAP request as libzmq makes it."""
    return [b"1.0", b"1", domain, b"", b"peer", mechanism, z85.decode(public)]


def test_a_restarted_process_keeps_its_keys() -> None:
    """Keys follow from the supervisor's secret and the child's id."""
    assert key_pair(SECRET, "a") == key_pair(SECRET, "a")
    assert key_pair(SECRET, "a") != key_pair(SECRET, "b")
    assert key_pair(subtree_secret(SECRET, "a"), "a") != key_pair(SECRET, "a")


def test_a_key_pair_does_not_print_its_secret() -> None:
    """Not even by accident in a log."""
    pair = key_pair(SECRET, "a")

    assert pair.secret.decode() not in repr(pair)


def test_generations_have_different_keys() -> None:
    """Both sides derive them from the process's own secret."""
    assert client_pair(SECRET, 0) == client_pair(SECRET, 0)
    assert client_pair(SECRET, 0) != client_pair(SECRET, 1)
    assert client_pair(SECRET, 0) != client_pair(bytes(32), 0)


def test_an_admitted_key_is_the_user_id() -> None:
    """A server sees the key of each message's connection, in hexadecimal."""
    pair = key_pair(SECRET, "database")
    user_id = raw_key(pair.public).hex()

    reply = zap_reply(request(pair.public), {user_id}.__contains__)

    assert reply is not None
    assert reply[2:5] == [b"200", b"OK", user_id.encode()]


@pytest.mark.parametrize("case", ["unknown", "short", "domain", "mechanism", "two"])
def test_everybody_else_is_refused(case: str) -> None:
    """A key that is not admitted or no key, another domain, another mechanism."""
    pair = key_pair(SECRET, "a")
    message = request(pair.public)
    if case == "short":
        message[-1] = message[-1][:-1]
    if case == "domain":
        message = request(pair.public, domain=b"other")
    if case == "mechanism":
        message = request(pair.public, mechanism=b"PLAIN")
    if case == "two":
        message.append(message[-1])

    reply = zap_reply(message, lambda _user_id: case != "unknown")

    assert reply is not None
    assert reply[2] == b"400"


def test_what_is_not_zap_gets_no_answer() -> None:
    """A malformed request is dropped."""
    assert zap_reply([b"2.0"], lambda _user_id: True) is None


def test_a_published_key_can_be_withdrawn(tmp_path: Path) -> None:
    """What is published is what others read, until it is taken away."""
    pair = key_pair(SECRET, "database")
    publish(tmp_path, "data/database", pair.public)
    assert published_key(tmp_path, "data/database") == pair.public

    withdraw(tmp_path, "data/database")

    with pytest.raises(PeerUnavailableError, match="not running"):
        published_key(tmp_path, "data/database")


def test_a_process_that_never_ran_has_no_key(tmp_path: Path) -> None:
    """The caller is told that it is not running."""
    with pytest.raises(PeerUnavailableError, match="not running"):
        published_key(tmp_path, "a")
