"""Settings, requests and errors: what is refused, and that codes survive the wire."""

import struct

import pytest

from protocol.errors import RemoteProtocolError
from protocol.records import from_wire, to_wire
from services.dwcp import errors, handoff, sockets
from services.dwcp.model import (
    ManagerSettings,
    SendRequest,
    TransportSettings,
)
from services.dwcp.rate import RateMeter

MANAGER = {"run_dir": "/r", "incoming_dir": "/i", "transports": ["transport.0"]}
TRANSPORT = {"run_dir": "/r", "incoming_dir": "/i"}
REQUEST = {"file": "/a", "host": "h", "port": 7800}


def test_settings_need_only_the_places():
    """All else has the defaults of the configuration."""
    manager = from_wire(ManagerSettings, MANAGER)

    assert (manager.host, manager.port) == ("127.0.0.1", 7800)
    assert (manager.min_streams, manager.initial_streams, manager.max_streams) == (16, 32, 256)
    assert from_wire(ManagerSettings, to_wire(manager)) == manager
    assert from_wire(TransportSettings, TRANSPORT).congestion == "bbr"


@pytest.mark.parametrize(
    ("cls", "change"),
    [
        (ManagerSettings, {"transports": []}),
        (ManagerSettings, {"transports": ["a", "a"]}),
        (ManagerSettings, {"port": 65536}),
        (ManagerSettings, {"port": "7800"}),
        (ManagerSettings, {"min_streams": 0}),
        (ManagerSettings, {"initial_streams": 8}),
        (ManagerSettings, {"max_streams": 1025}),
        (ManagerSettings, {"level": "most"}),
        (ManagerSettings, {"preamble_s": 0}),
        (ManagerSettings, {"unknown": 1}),
        (TransportSettings, {"threads": 0}),
        (TransportSettings, {"threads": 65}),
        (TransportSettings, {"stall_s": 0}),
        (TransportSettings, {"connect_s": 0}),
        (TransportSettings, {"buffer_bytes": 1000}),
        (TransportSettings, {"free_reserve_bytes": -1}),
    ],
)
def test_settings_that_can_not_work_are_refused(cls, change):
    """Each limit trips with the field's name."""
    base = MANAGER if cls is ManagerSettings else TRANSPORT

    with pytest.raises(RemoteProtocolError, match=next(iter(change))):
        from_wire(cls, {**base, **change})


@pytest.mark.parametrize(
    "change",
    [
        {"file": "relative"},
        {"file": "/" + "x" * 4096},
        {"file": "/a\0b"},
        {"host": ""},
        {"host": "x" * 254},
        {"host": "a\nb"},
        {"port": 0},
        {"port": 65536},
        {"streams": 0},
        {"streams": 1025},
        {"streams": True},
    ],
)
def test_requests_that_can_not_be_meant_are_refused(change):
    """A request is checked before anything is opened or resolved."""
    with pytest.raises(RemoteProtocolError):
        from_wire(SendRequest, {**REQUEST, **change})


def test_every_error_survives_the_wire():
    """Each code is unique and becomes its own error again."""
    classes = errors.DwcpError.__subclasses__()

    assert len({cls.code for cls in classes}) == len(classes)
    for cls in classes:
        assert type(errors.from_code(cls.code, "why")) is cls


def test_an_unknown_code_is_kept_in_the_sentence():
    """A newer peer's error is still told, within bounds."""
    error = errors.from_code("dwcp.newer", "x" * 5000)

    assert type(error) is errors.DwcpError
    assert error.message.startswith("dwcp.newer: xxx")
    assert len(error.message) < 500


def test_the_descriptor_socket_has_its_documented_name(tmp_path):
    """Manager and transport agree on it without asking anybody."""
    path = handoff.descriptor_socket(tmp_path, "core/dwcp/transport.0")

    assert path == tmp_path / "core.dwcp.transport.0.fd.sock"


def test_tcp_info_is_read_as_far_as_the_kernel_fills_it():
    """An old kernel's shorter record leaves fields unknown."""
    record = bytearray(280)
    struct.pack_into("=I", record, 68, 25_000)
    struct.pack_into("=Q", record, 160, 7_000_000)

    assert sockets.parse_info(bytes(record)) == sockets.TcpInfo(0.025, 7_000_000)
    assert sockets.parse_info(bytes(record[:104])) == sockets.TcpInfo(0.025, None)
    assert sockets.parse_info(b"") == sockets.TcpInfo(None, None)


@pytest.mark.parametrize(
    ("address", "text"),
    [(("127.0.0.1", 1), "127.0.0.1:1"), (("::1", 2, 0, 0), "[::1]:2"), (("host", 3), "host:3")],
)
def test_addresses_read_unambiguously(address, text):
    """An IPv6 address gets its brackets."""
    assert sockets.format_address(address) == text


def test_the_rate_follows_the_counter():
    """The first period counts fully, later ones are smoothed, a moment is not a period."""
    meter = RateMeter(0.0)

    meter.step(0.1, 500)
    assert meter.rate_bytes_s == 0.0
    meter.step(1.0, 1000)
    assert meter.rate_bytes_s == 1000.0
    meter.step(2.0, 1000)
    assert meter.rate_bytes_s == pytest.approx(700.0)
