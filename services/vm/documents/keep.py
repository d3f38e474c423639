"""A new definition that keeps the places of the devices that stay. Pure.

libvirt gives every device without an address the next free one. Without this a disk that is taken
away would move the network cards behind it, and the guest would find them under other names.
"""

from __future__ import annotations

import copy
from xml.etree import ElementTree as ET

_SINGLE = ("memballoon", "rng", "video")


def keep_places(new: str, old: str) -> str:
    """The new domain XML, with PCI addresses, controllers and machine of the old one.

    Disks are the same where their sources are, cards where their MACs are. The machine's version
    stays where the new definition says none, and so does the file of the firmware's variables.

    Args:
        new: from ``domain_xml``.
        old: the inactive XML of the domain as libvirt has it.
    """
    root, before = ET.fromstring(new), ET.fromstring(old)  # noqa: S314 - ours and libvirt's
    _keep_system(root, before)
    devices, old_devices = root.find("devices"), before.find("devices")
    if devices is not None and old_devices is not None and _is_same_machine(root, before):
        _keep_chains(devices, old_devices)
        known = {key: item for item in old_devices if (key := _key(item)) is not None}
        for item in devices:
            found = known.get(_key(item) or ("", ""))
            address = found.find("address") if found is not None else None
            if address is not None and address.get("type") == "pci":
                item.append(copy.deepcopy(address))
        _keep_controllers(devices, old_devices)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"


def _keep_system(root: ET.Element, before: ET.Element) -> None:
    kind, old_kind = root.find("os/type"), before.find("os/type")
    if kind is not None and old_kind is not None:
        machine, old_machine = kind.get("machine", ""), old_kind.get("machine", "")
        families = {"q35": "pc-q35-", "pc": "pc-i440fx-"}
        if machine in families and old_machine.startswith(families[machine]):
            kind.set("machine", old_machine)
    variables, system, old_system = before.find("os/nvram"), root.find("os"), before.find("os")
    if variables is None or system is None or old_system is None:
        return
    if system.get("firmware") == old_system.get("firmware") == "efi":
        system.append(copy.deepcopy(variables))


def _is_same_machine(root: ET.Element, before: ET.Element) -> bool:
    """Addresses of another machine's buses mean nothing."""
    one, other = root.find("os/type"), before.find("os/type")
    return one is not None and other is not None and one.get("machine") == other.get("machine")


def _keep_chains(devices: ET.Element, old_devices: ET.Element) -> None:
    """What is below a disk's file, which libvirt would otherwise have to find out."""
    known = {_key(item): item for item in old_devices.iterfind("disk")}
    for item in devices.iterfind("disk"):
        found = known.get(_key(item))
        chain = None if found is None or _key(item) is None else found.find("backingStore")
        if chain is not None:
            item.append(copy.deepcopy(chain))


def _keep_controllers(devices: ET.Element, old_devices: ET.Element) -> None:
    """All of the old ones: addresses refer to them. Ours is left away where it is there."""
    said = {(item.get("type"), item.get("index", "0")) for item in old_devices.iter("controller")}
    for item in list(devices.iter("controller")):
        if (item.get("type"), item.get("index", "0")) in said:
            devices.remove(item)
    for item in old_devices.iter("controller"):
        devices.append(copy.deepcopy(item))


def _key(item: ET.Element) -> tuple[str, str] | None:
    """What makes a device the same one; None where nothing does."""
    if item.tag == "disk":
        source = item.find("source")
        given = {} if source is None else source.attrib
        text = given.get("file") or f"{given.get('pool', '')}/{given.get('volume', '')}"
        return ("disk", text) if text != "/" else None
    if item.tag == "interface":
        mac = item.find("mac")
        return None if mac is None else ("interface", mac.get("address", "").lower())
    return (item.tag, "") if item.tag in _SINGLE else None
