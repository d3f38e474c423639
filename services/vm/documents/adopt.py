"""Domain XML as a document: what of a domain a document can say, and what it can't. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from xml.etree import ElementTree as ET

from protocol.errors import RemoteProtocolError
from protocol.records import Plain, from_wire
from services.vm.documents.checks import size_text
from services.vm.documents.errors import AdoptionError
from services.vm.documents.model import NAMESPACE, VmDocument, derived_mac
from services.vm.documents.xml import AGENT_CHANNEL, DEFAULT_MODEL, MODES, Mark, read_mark

XML_BYTES_MAX = 1 << 20
LEFT_OUT_MAX = 100
_ALL = None  # the element with all that is in it: libvirt's own additions, or of no meaning
_UNITS = {"b": 1, "bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_UNITS |= {"": 1 << 10, "k": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_DISK = "devices/disk"
_NIC = "devices/interface"
# Paths that a document can say, with their attributes; all else is reported as left out.
_KNOWN: Mapping[str, frozenset[str] | None] = {
    "": frozenset({"type", "id"}),
    **dict.fromkeys(("name", "uuid", "title", "on_poweroff", "on_reboot", "on_crash"), frozenset()),
    **dict.fromkeys(("metadata", "resource", "pm", "seclabel"), _ALL),
    **dict.fromkeys(("memory", "currentMemory"), frozenset({"unit"})),
    "vcpu": frozenset({"placement", "current"}),
    "cputune": frozenset(),
    "cputune/vcpupin": frozenset({"vcpu", "cpuset"}),
    "os": frozenset({"firmware"}),
    "os/type": frozenset({"arch", "machine"}),
    **dict.fromkeys(("os/boot", "os/firmware", "os/loader", "os/nvram"), _ALL),
    "features": frozenset(),
    **dict.fromkeys(("features/acpi", "features/apic", "features/pae", "features/vmport"), _ALL),
    "features/smm": frozenset({"state"}),
    "cpu": frozenset({"mode", "match", "check", "migratable"}),
    "cpu/model": frozenset({"fallback"}),
    "cpu/topology": frozenset({"sockets", "dies", "cores", "threads"}),
    "clock": frozenset({"offset"}),
    "devices": frozenset(),
    **dict.fromkeys(
        ("devices/emulator", "devices/controller", "devices/input", "devices/audio"), _ALL
    ),
    **dict.fromkeys(("devices/memballoon", "devices/rng", "devices/video"), _ALL),
    _DISK: frozenset({"type", "device", "snapshot", "model"}),
    f"{_DISK}/driver": frozenset({"name", "type", "cache", "discard"}),
    f"{_DISK}/source": frozenset({"file", "pool", "volume", "index"}),
    f"{_DISK}/target": frozenset({"dev", "bus", "tray"}),
    **dict.fromkeys((f"{_DISK}/readonly", f"{_DISK}/serial"), frozenset()),
    **dict.fromkeys((f"{_DISK}/alias", f"{_DISK}/address", f"{_DISK}/backingStore"), _ALL),
    f"{_DISK}/boot": frozenset({"order"}),
    _NIC: frozenset({"type"}),
    f"{_NIC}/mac": frozenset({"address", "type"}),
    f"{_NIC}/source": frozenset({"bridge", "network", "portid"}),
    f"{_NIC}/model": frozenset({"type"}),
    f"{_NIC}/boot": frozenset({"order"}),
    **dict.fromkeys((f"{_NIC}/alias", f"{_NIC}/address", f"{_NIC}/target"), _ALL),
    **dict.fromkeys(("devices/serial", "devices/console"), _ALL),
    "devices/channel": frozenset({"type"}),
    **dict.fromkeys((f"devices/channel/{name}" for name in ("source", "alias", "address")), _ALL),
    "devices/channel/target": _ALL,
    "devices/graphics": frozenset({"type", "port", "autoport", "listen"}),
    **dict.fromkeys(("devices/graphics/listen", "devices/graphics/image"), _ALL),
}
# Timers as common tools set them.
_USUAL_TIMERS = frozenset({"rtc", "pit", "hpet"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """A domain as a document.

    Attributes:
        document: what can be said.
        left_out: what the domain has and a document can't say, each as a path with its value.
        mark: of the platform; None where the domain is somebody else's.
        below: for a disk that is an overlay, such as after a snapshot, the files below it.
    """

    document: VmDocument
    left_out: tuple[str, ...] = ()
    mark: Mark | None = None
    below: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def adopt_xml(text: str) -> Adopted:
    """Read a domain's XML; best the inactive one, which says what the next start will have.

    Raises:
        AdoptionError: it is no domain, or one whose basic values a document can't hold.
    """
    if len(text) > XML_BYTES_MAX or "<!DOCTYPE" in text[:512]:
        raise AdoptionError("the domain's XML is too large, or has a document type")
    try:
        root = ET.fromstring(text)  # noqa: S314 - libvirt's answer; entities need a DOCTYPE
    except ET.ParseError as exc:
        raise AdoptionError(f"the domain's XML can't be read: {exc}") from exc
    if root.tag != "domain":
        raise AdoptionError(f"{root.tag!r:.40} is no domain")
    left_out: list[str] = []
    try:
        value = _document(root, left_out)
        _find_rest(root, "", left_out)
        document = from_wire(VmDocument, value)
    except (RemoteProtocolError, ValueError) as exc:
        raise AdoptionError(
            f"domain {root.findtext('name', '')!r:.70} can't be said by a document: "
            f"{str(exc).removeprefix('VmDocument').lstrip(': .')}"
        ) from exc
    if len(left_out) > LEFT_OUT_MAX:
        left_out = [*left_out[:LEFT_OUT_MAX], f"and {len(left_out) - LEFT_OUT_MAX} more"]
    return Adopted(
        document=document,
        left_out=tuple(left_out),
        mark=read_mark(root),
        below=_files_below(root),
    )


def _document(root: ET.Element, left_out: list[str]) -> Plain:
    name = root.findtext("name", "")
    kind = root.get("type", "")
    own_uuid = root.findtext("uuid", "")
    value: dict[str, Plain] = {
        "name": name,
        "title": root.findtext("title", ""),
        "uuid": "" if own_uuid == str(uuid.uuid5(NAMESPACE, name)) else own_uuid,
        "cpus": _cpus(root, left_out),
        "memory": _memory(root),
        "firmware": _firmware(root, left_out),
        "machine": _attribute(root, "os/type", "machine") or "pc",
        "accelerator": {"kvm": "kvm", "qemu": "tcg"}.get(kind, "auto"),
        "networks": _nics(root, name, left_out),
        "on_crash": _on_crash(root, left_out),
        **_screens(root, left_out),
    }
    value["disks"] = _disks(root, left_out)
    if kind not in ("kvm", "qemu", "test"):
        left_out.append(f"type {kind}")
    return value


def _cpus(root: ET.Element, left_out: list[str]) -> Plain:
    vcpu = root.find("vcpu")
    most = int(vcpu.text or 1) if vcpu is not None else 1
    count = int(vcpu.get("current", most)) if vcpu is not None else most
    found: dict[str, Plain] = {"count": count, "maximum": most if most != count else 0}
    cpu = root.find("cpu")
    if cpu is not None:
        mode = cpu.get("mode", "")
        found["model"] = mode if mode in MODES else cpu.findtext("model") or DEFAULT_MODEL
        topology = cpu.find("topology")
        if topology is not None:
            names = ("sockets", "cores", "threads")
            found["topology"] = {name: int(topology.get(name, "1")) for name in names}
            if topology.get("dies", "1") != "1":
                left_out.append(f"cpu/topology dies {topology.get('dies')}")
    pins = {pin.get("vcpu", ""): pin.get("cpuset", "") for pin in root.iterfind("cputune/vcpupin")}
    if pins and set(pins) == {str(number) for number in range(most)}:
        found["pinning"] = [pins[str(number)] for number in range(most)]
    elif pins:
        left_out.append("cputune/vcpupin of some processors only")
    return found


def _memory(root: ET.Element) -> Plain:
    most = _bytes(root.find("memory"))
    current = root.find("currentMemory")
    size = _bytes(current) if current is not None else most
    return {"size": size_text(size), "maximum": size_text(most) if most > size else ""}


def _firmware(root: ET.Element, left_out: list[str]) -> Plain:
    loader = root.find("os/loader")
    if root.get("firmware") or _attribute(root, "os", "firmware") == "efi":
        features = root.iterfind("os/firmware/feature")
        enabled = {item.get("name") for item in features if item.get("enabled") == "yes"}
        return {"kind": "uefi", "secure_boot": "secure-boot" in enabled}
    if loader is not None:
        left_out.append(f"os/loader {loader.text or ''}")
        return {"kind": "uefi" if loader.get("type") == "pflash" else "bios"}
    return {}


def _disks(root: ET.Element, left_out: list[str]) -> Plain:
    legacy = [item.get("dev", "") for item in root.iterfind("os/boot")]
    found: list[dict[str, Plain]] = []
    for disk in root.iterfind(_DISK):
        target = _attribute(disk, "target", "dev")
        source = disk.find("source")
        given = {} if source is None else source.attrib
        if disk.get("type") not in ("file", "volume") or disk.get("device") not in (
            None,
            "disk",
            "cdrom",
        ):
            left_out.append(f"disk {target}: type {disk.get('type')}, {disk.get('device')}")
            continue
        is_cdrom = disk.get("device") == "cdrom"
        found.append(
            {
                "path": given.get("file", ""),
                "pool": given.get("pool", ""),
                "volume": given.get("volume", ""),
                "device": disk.get("device", "disk"),
                "format": _attribute(disk, "driver", "type") or "raw",
                "bus": _attribute(disk, "target", "bus") or "virtio",
                "cache": _attribute(disk, "driver", "cache") or "default",
                "discard": _attribute(disk, "driver", "discard") or "ignore",
                "serial": disk.findtext("serial", ""),
                "boot": int(_attribute(disk, "boot", "order") or 0),
                # libvirt marks every CD drive so.
                "read_only": disk.find("readonly") is not None and not is_cdrom,
            }
        )
    _legacy_boot(found, legacy, left_out)
    return found


def _files_below(root: ET.Element) -> dict[str, tuple[str, ...]]:
    found = {}
    for disk in root.iterfind(_DISK):
        files = [item.get("file", "") for item in disk.iterfind(".//backingStore/source")]
        top = _attribute(disk, "source", "file")
        if top and any(files):
            found[top] = tuple(file for file in files if file)
    return found


def _legacy_boot(disks: list[dict[str, Plain]], legacy: list[str], left_out: list[str]) -> None:
    """``<boot dev='hd'/>`` means the first disk; some of them have no word in a document."""
    order = 0
    if legacy == ["hd"] or any(disk["boot"] for disk in disks):
        return  # what libvirt adds where no order is said
    for device in legacy:
        wanted = {"hd": "disk", "cdrom": "cdrom"}.get(device)
        found = next((disk for disk in disks if disk["device"] == wanted), None)
        if found is not None:
            order += 1
            found["boot"] = order
        elif wanted is None:
            left_out.append(f"os/boot {device}")


def _nics(root: ET.Element, name: str, left_out: list[str]) -> Plain:
    segments = {
        port.get("mac"): port.get("segment", "")
        for port in root.iterfind("metadata/{urn:novacron:vm:1}vm/port")
    }
    found: list[dict[str, Plain]] = []
    for nic in root.iterfind(_NIC):
        kind = nic.get("type", "")
        mac = _attribute(nic, "mac", "address")
        if kind not in ("bridge", "network"):
            left_out.append(f"interface {mac}: type {kind}")
            continue
        source = _attribute(nic, "source", kind)
        derived = derived_mac(name, len(found))
        found.append(
            {
                kind: source,
                "mac": "" if mac == derived else mac,
                "model": _attribute(nic, "model", "type") or "rtl8139",
                "segment": segments.get(mac, ""),
                "boot": int(_attribute(nic, "boot", "order") or 0),
            }
        )
    return found


def _screens(root: ET.Element, left_out: list[str]) -> dict[str, Plain]:
    console = root.find("devices/console/target")
    kind = "none"
    if root.find("devices/serial") is not None:
        kind = "serial"
    elif console is not None:
        kind = console.get("type", "serial")
    if kind not in ("serial", "virtio", "none"):
        left_out.append(f"console of type {kind}")
        kind = "none"
    channels = [_attribute(item, "target", "name") for item in root.iterfind("devices/channel")]
    left_out += [f"channel {name}" for name in channels if name != AGENT_CHANNEL]
    graphics = root.find("devices/graphics")
    screen = "none" if graphics is None else graphics.get("type", "none")
    if screen not in ("vnc", "spice", "none"):
        left_out.append(f"graphics {screen}")
        screen = "none"
    listens = "" if graphics is None else graphics.get("listen", "")
    if listens not in ("", "127.0.0.1"):
        left_out.append(f"graphics listen {listens}")
    return {"console": kind, "graphics": screen, "guest_agent": AGENT_CHANNEL in channels}


def _on_crash(root: ET.Element, left_out: list[str]) -> str:
    usual = {"on_poweroff": "destroy", "on_reboot": "restart"}
    for tag, value in usual.items():
        if root.findtext(tag, value) != value:
            left_out.append(f"{tag} {root.findtext(tag)}")
    said = root.findtext("on_crash", "destroy")
    if said not in ("destroy", "restart", "preserve"):
        left_out.append(f"on_crash {said}")
        return "destroy"
    return said


def _find_rest(element: ET.Element, path: str, left_out: list[str]) -> None:
    """List what ``_KNOWN`` does not have."""
    known = _KNOWN.get(path, frozenset())
    if known is None:
        return
    for name, value in sorted(element.attrib.items()):
        if name not in known:
            left_out.append(f"{path or 'domain'} {name}={value:.60}".replace("devices/", ""))
    for child in element:
        below = f"{path}/{child.tag}" if path else child.tag
        if below in _KNOWN:
            _find_rest(child, below, left_out)
        elif not _is_usual(below, child):
            text = " ".join(f"{name}={value:.40}" for name, value in sorted(child.attrib.items()))
            left_out.append(f"{below} {text}".removeprefix("devices/").strip())
    if path == "clock" and element.get("offset") != "utc":
        left_out.append(f"clock offset {element.get('offset')}")


def _is_usual(path: str, element: ET.Element) -> bool:
    if path == "clock/timer":
        return element.get("name") in _USUAL_TIMERS
    return path == "devices/watchdog" and element.get("model") == "itco"


def _attribute(element: ET.Element, path: str, name: str) -> str:
    found = element.find(path)
    return "" if found is None else found.get(name, "")


def _bytes(element: ET.Element | None) -> int:
    if element is None or not (element.text or "").strip().isdecimal():
        raise AdoptionError("the domain does not say its memory")
    unit = _UNITS.get(element.get("unit", ""))
    if unit is None:
        raise AdoptionError(f"the domain's memory has the unknown unit {element.get('unit')!r:.20}")
    return int(element.text or "0") * unit
