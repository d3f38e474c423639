"""Steps as rtnetlink messages. Pure.

    nlmsghdr     length u32, type u16, flags u16, sequence u32, port u32
    ifinfomsg    family u8, -, type u16, index i32, flags u32, change u32     of a link
    ifaddrmsg    family u8, prefix length u8, flags u8, scope u8, index u32   of an address
    ndmsg        family u8, -, -, index i32, state u16, flags u8, type u8     of a remote
    rtattr       length u16, type u16, value

Source: rtnetlink(7), linux/if_link.h, linux/neighbour.h; the kernel's rtnl_newlink, which takes
attributes of a link that is there in one message, and its kind's in the same.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Mapping

from services.network.networks.steps import CREATING, Step, StepKind

HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_NEIGHBOUR = struct.Struct("=BxxxiHBB")
_ATTRIBUTE = struct.Struct("=HH")
_U32 = struct.Struct("=I")

_NEW_LINK, _DELETE_LINK, _GET_LINK = 16, 17, 18
_NEW_ADDRESS, _DELETE_ADDRESS = 20, 21
_NEW_NEIGHBOUR, _DELETE_NEIGHBOUR = 28, 29
_REQUEST, _ACK = 0x001, 0x004
_REPLACE, _EXCLUSIVE, _CREATE, _APPEND = 0x100, 0x200, 0x400, 0x800
_NESTED = 0x8000
_IFF_UP = 1
_AF_BRIDGE = 7

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER = 1, 3, 4, 5, 10
_IFLA_LINKINFO, _IFLA_IFALIAS, _IFLA_EXT_MASK = 18, 20, 29
_IFLA_INFO_KIND, _IFLA_INFO_DATA = 1, 2
_IFLA_BR_STP_STATE = 5
_IFLA_VLAN_ID = 1
_IFLA_VXLAN_ID, _IFLA_VXLAN_GROUP, _IFLA_VXLAN_LINK, _IFLA_VXLAN_LOCAL = 1, 2, 3, 4
_IFLA_VXLAN_PORT, _IFLA_VXLAN_GROUP6, _IFLA_VXLAN_LOCAL6 = 15, 16, 17
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_NDA_DST, _NDA_LLADDR = 1, 2
_NUD_NOARP, _NUD_PERMANENT = 0x40, 0x80
_NTF_SELF = 0x02
_SKIP_STATISTICS = 1 << 3

# No card has it, so the kernel refuses to make a bridge with it, and by then knows what one is.
_MULTICAST_MAC = b"\x01\x00\x5e\x00\x00\x01"
_FEATURES = {"bridge": "bridges", "vlan": "VLANs (8021q)", "vxlan": "VXLAN"}


def pack_step(step: Step, sequence: int, indexes: Mapping[str, int]) -> bytes:
    """The message for a step; the kernel answers it with an acknowledgement of its sequence.

    Args:
        step: what is to be done.
        sequence: identifies the answer.
        indexes: numbers of the links that ``needs`` names.

    Raises:
        KeyError: one of them is missing.
    """
    if step.kind in CREATING:
        return _create(step, sequence, indexes)
    index = step.index or indexes[step.link]
    match step.kind:
        case StepKind.DELETE:
            return _link(sequence, _DELETE_LINK, 0, index, b"")
        case StepKind.ADD_ADDRESS | StepKind.REMOVE_ADDRESS:
            return _address(step, sequence, index)
        case StepKind.ADD_REMOTE | StepKind.REMOVE_REMOTE:
            return _remote(step, sequence, index)
        case _:
            up, attributes = _changes(step, indexes)
            return _link(sequence, _NEW_LINK, 0, index, attributes, up=up)


def needs(step: Step) -> tuple[str, ...]:
    """The names of links whose numbers the message holds."""
    if step.kind in CREATING:
        return (step.carrier,) if step.carrier else ()
    own = () if step.index else (step.link,)
    return (*own, step.bridge) if step.kind is StepKind.ATTACH else own


def pack_lookup(name: str, sequence: int) -> bytes:
    """Ask for a link by its name."""
    mask = _attribute(_IFLA_EXT_MASK, _U32.pack(_SKIP_STATISTICS))
    payload = _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + _text(_IFLA_IFNAME, name) + mask
    return _message(_GET_LINK, _REQUEST, sequence, payload)


def pack_probe(kind: str, sequence: int) -> bytes:
    """A request that makes nothing, and whose error tells whether the kernel knows the kind.

    A kind's own check of a request comes before anything is made, and the request fails it: a
    VLAN without an id, VXLAN without attributes, a bridge with a multicast address.
    """
    address = _attribute(_IFLA_ADDRESS, _MULTICAST_MAC) if kind == "bridge" else b""
    payload = (
        _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        + _text(_IFLA_IFNAME, "novacron-probe")
        + address
        + _attribute(_IFLA_LINKINFO | _NESTED, _text(_IFLA_INFO_KIND, kind))
    )
    return _message(_NEW_LINK, _REQUEST | _ACK | _CREATE | _EXCLUSIVE, sequence, payload)


def missing_feature(kind: str, code: int) -> str:
    """What the kernel lacks, by the error number of a probe; "" where it knows the kind."""
    return _FEATURES[kind] if code == errno.EOPNOTSUPP else ""


def kinds_made(steps: tuple[Step, ...]) -> tuple[str, ...]:
    """The kinds of links that steps make."""
    found = {
        StepKind.CREATE_BRIDGE: "bridge",
        StepKind.CREATE_VLAN: "vlan",
        StepKind.CREATE_VXLAN: "vxlan",
    }
    return tuple(sorted({found[step.kind] for step in steps if step.kind in found}))


def _create(step: Step, sequence: int, indexes: Mapping[str, int]) -> bytes:
    carrier = indexes[step.carrier] if step.carrier else 0
    attributes = [_text(_IFLA_IFNAME, step.link)]
    if step.mac:
        attributes.append(_attribute(_IFLA_ADDRESS, bytes.fromhex(step.mac.replace(":", ""))))
    kind, data = "bridge", b""
    if step.kind is StepKind.CREATE_BRIDGE:
        # A bridge whose MTU was never changed follows its ports'. Changed by one it is kept.
        attributes.append(_attribute(_IFLA_MTU, _U32.pack(step.mtu - 1)))
    else:
        attributes.append(_attribute(_IFLA_MTU, _U32.pack(step.mtu)))
    if step.kind is StepKind.CREATE_VLAN:
        kind, data = "vlan", _attribute(_IFLA_VLAN_ID, struct.pack("=H", step.number))
        attributes.append(_attribute(_IFLA_LINK, _U32.pack(carrier)))
    elif step.kind is StepKind.CREATE_VXLAN:
        kind, data = "vxlan", _vxlan(step, carrier)
    info = _text(_IFLA_INFO_KIND, kind)
    if data:
        info += _attribute(_IFLA_INFO_DATA | _NESTED, data)
    attributes.append(_attribute(_IFLA_LINKINFO | _NESTED, info))
    return _link(sequence, _NEW_LINK, _CREATE | _EXCLUSIVE, 0, b"".join(attributes))


def _vxlan(step: Step, carrier: int) -> bytes:
    local = ipaddress.ip_address(step.local)
    is_6 = local.version == 6
    data = _attribute(_IFLA_VXLAN_ID, _U32.pack(step.number))
    data += _attribute(_IFLA_VXLAN_LOCAL6 if is_6 else _IFLA_VXLAN_LOCAL, local.packed)
    if step.group:
        group = ipaddress.ip_address(step.group).packed
        data += _attribute(_IFLA_VXLAN_GROUP6 if is_6 else _IFLA_VXLAN_GROUP, group)
    if carrier:
        data += _attribute(_IFLA_VXLAN_LINK, _U32.pack(carrier))
    return data + _attribute(_IFLA_VXLAN_PORT, struct.pack("!H", step.port))


def _changes(step: Step, indexes: Mapping[str, int]) -> tuple[bool | None, bytes]:
    """Of a link that is there: whether it becomes up, and attributes."""
    match step.kind:
        case StepKind.SET_UP:
            mtu = _attribute(_IFLA_MTU, _U32.pack(step.mtu))
            return True, _text(_IFLA_IFALIAS, step.alias) + mtu
        case StepKind.MARK:
            return None, _text(_IFLA_IFALIAS, step.alias)
        case StepKind.SET_MTU:
            return None, _attribute(_IFLA_MTU, _U32.pack(step.mtu))
        case StepKind.RAISE | StepKind.LOWER:
            return step.kind is StepKind.RAISE, b""
        case StepKind.ATTACH:
            return True, _attribute(_IFLA_MASTER, _U32.pack(indexes[step.bridge]))
        case StepKind.DETACH:
            return None, _attribute(_IFLA_MASTER, _U32.pack(0))
        case _:  # STP_OFF, STP_ON
            state = _attribute(_IFLA_BR_STP_STATE, _U32.pack(step.kind is StepKind.STP_ON))
            info = _text(_IFLA_INFO_KIND, "bridge") + _attribute(_IFLA_INFO_DATA | _NESTED, state)
            return None, _attribute(_IFLA_LINKINFO | _NESTED, info)


def _address(step: Step, sequence: int, index: int) -> bytes:
    interface = ipaddress.ip_interface(step.address)
    family = socket.AF_INET if interface.version == 4 else socket.AF_INET6
    payload = _ADDRESS.pack(family, interface.network.prefixlen, 0, 0, index)
    payload += _attribute(_IFA_LOCAL, interface.ip.packed)
    payload += _attribute(_IFA_ADDRESS, interface.ip.packed)
    if step.kind is StepKind.REMOVE_ADDRESS:
        return _message(_DELETE_ADDRESS, _REQUEST | _ACK, sequence, payload)
    # Taken where it is there already: it may have been, by a step that was cut off.
    return _message(_NEW_ADDRESS, _REQUEST | _ACK | _CREATE | _REPLACE, sequence, payload)


def _remote(step: Step, sequence: int, index: int) -> bytes:
    state, flags = _NUD_NOARP | _NUD_PERMANENT, _NTF_SELF
    payload = _NEIGHBOUR.pack(_AF_BRIDGE, index, state, flags, 0)
    payload += _attribute(_NDA_LLADDR, bytes(6))  # all zeros: what is not known to be elsewhere
    payload += _attribute(_NDA_DST, ipaddress.ip_address(step.address).packed)
    if step.kind is StepKind.REMOVE_REMOTE:
        return _message(_DELETE_NEIGHBOUR, _REQUEST | _ACK, sequence, payload)
    return _message(_NEW_NEIGHBOUR, _REQUEST | _ACK | _CREATE | _APPEND, sequence, payload)


def _link(
    sequence: int, kind: int, flags: int, index: int, attributes: bytes, *, up: bool | None = None
) -> bytes:
    change = 0 if up is None else _IFF_UP
    payload = _LINK.pack(socket.AF_UNSPEC, 0, index, _IFF_UP if up else 0, change) + attributes
    return _message(kind, _REQUEST | _ACK | flags, sequence, payload)


def _message(kind: int, flags: int, sequence: int, payload: bytes) -> bytes:
    return HEADER.pack(HEADER.size + len(payload), kind, flags, sequence, 0) + payload


def _text(kind: int, text: str) -> bytes:
    return _attribute(kind, text.encode() + b"\0")


def _attribute(kind: int, value: bytes) -> bytes:
    size = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(size, kind) + value + bytes(-size % 4)
