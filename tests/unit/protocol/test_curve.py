"""Who gets in is decided by the published keys alone."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from zmq.utils import z85

from protocol.errors import PeerUnavailableError
from protocol.transports.curve import (
    ZAP_DOMAIN,
    KeyDirectory,
    key_pair,
    load_operator_key,
    publish,
    published_key,
    subtree_secret,
    withdraw,
    write_operator_key,
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


def test_a_published_key_is_admitted_under_its_path(tmp_path: Path) -> None:
    """The user id that a server sees is the path of the key's owner."""
    pair = key_pair(SECRET, "database")
    publish(tmp_path, "data/database", pair.public)

    reply = zap_reply(request(pair.public), KeyDirectory(tmp_path).path_of)

    assert reply is not None
    assert reply[2:5] == [b"200", b"OK", b"data/database"]


@pytest.mark.parametrize("case", ["unknown", "withdrawn", "domain", "mechanism"])
def test_everybody_else_is_refused(tmp_path: Path, case: str) -> None:
    """An unknown key, a withdrawn one, another domain, another mechanism."""
    pair = key_pair(SECRET, "a")
    directory = KeyDirectory(tmp_path)
    message = request(pair.public)
    if case != "unknown":
        publish(tmp_path, "a", pair.public)
        assert directory.path_of(pair.public) == "a"
    if case == "withdrawn":
        withdraw(tmp_path, "a")
    if case == "domain":
        message = request(pair.public, domain=b"other")
    if case == "mechanism":
        message = request(pair.public, mechanism=b"PLAIN")

    reply = zap_reply(message, directory.path_of)

    assert reply is not None
    assert reply[2] == b"400"


def test_what_is_not_zap_gets_no_answer(tmp_path: Path) -> None:
    """A malformed request is dropped."""
    assert zap_reply([b"2.0"], KeyDirectory(tmp_path).path_of) is None


def test_a_process_that_never_ran_has_no_key(tmp_path: Path) -> None:
    """The caller is told that it is not running."""
    with pytest.raises(PeerUnavailableError, match="not running"):
        published_key(tmp_path, "a")


def test_the_operators_key_is_for_the_group_only(tmp_path: Path) -> None:
    """Nobody else may read the secret half, and it reads back."""
    pair = key_pair(SECRET, "operator")

    write_operator_key(tmp_path, pair)

    mode = stat.S_IMODE((tmp_path / "operator.secret").stat().st_mode)
    assert mode == 0o640
    assert load_operator_key(tmp_path) == pair
