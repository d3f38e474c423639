"""VM documents as texts: what is taken, and where a mistake is said to be."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.records import to_wire
from services.documents import DOCUMENTS_MAX
from services.vm.documents.checks import parse_size, size_text
from services.vm.documents.devices import (
    CloudInit,
    Disk,
    Memory,
    Nic,
)
from services.vm.documents.errors import DocumentError
from services.vm.documents.model import Power, VmDocument, derived_mac
from services.vm.documents.parse import (
    DEPTH_MAX,
    document_from_wire,
    parse_documents,
    render_document,
)
from tests.unit.services.vm.documents.vm_documents import documents

WHOLE = """
name: web-1
title: The shop
cpus: {count: 2, maximum: 4, model: host-model, pinning: ["0-3", "0-3", "0-3", "8"]}
memory: {size: 2GiB, maximum: 4GiB}
firmware: {kind: uefi, secure_boot: true}
disks:
- {path: /images/web-1.qcow2, boot: 1, discard: unmap}
- {pool: fast, volume: data.raw, format: raw, read_only: true}
networks:
- {bridge: br0, mac: 52:54:00:00:00:01, segment: web}
cloud_init:
  user_data: |
    #cloud-config
    packages: [nginx]
console: virtio
placement: {nodes: [node-1], apart_from: [web-2]}
power: on
autostart: true
priority: 900
labels: {count: "7", tier: front}
"""


def one(text: str) -> VmDocument:
    """The only document of a text."""
    (document,) = parse_documents(text, "vm.yaml")
    return document


def test_a_whole_document_is_read() -> None:
    """Numbers, switches and texts are what their fields want, whatever YAML thinks of them."""
    document = one(WHOLE)

    assert document.cpus.maximum == 4
    assert document.memory.bytes_max == 4 << 30
    assert document.power is Power.ON
    assert document.networks[0].mac == "52:54:00:00:00:01"
    assert document.labels == {"count": "7", "tier": "front"}
    assert document.cloud_init == CloudInit(user_data="#cloud-config\npackages: [nginx]\n")


def test_json_is_read_as_well() -> None:
    """The same keys and values, with numbers and switches as JSON has them."""
    document = one(WHOLE)

    assert one(json.dumps(to_wire(document))) == document


@given(documents())
@settings(max_examples=25, deadline=None)
def test_a_document_survives_its_own_text(document: VmDocument) -> None:
    """Rendered and read it is equal, and has the same fingerprint."""
    again = one(render_document(document))

    assert again == document
    assert again.fingerprint == document.fingerprint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "holds no document"),
        ("[]", "line 1: expected a map"),
        ("name: a\nsize: 3", "line 2: has an unknown field 'size'"),
        ("name: a\nname: b", "line 2 repeats the key 'name'"),
        ("name: a b", "line 1: name is 'a b'"),
        ("title: x", "lacks name"),
        ("name: a\n---\nname: a", "a is there 2 times"),
        ("name: &x a\ntitle: *x", "line 1 has an anchor"),
        ("name: [", "no YAML in line"),
        ("name: a\nmemory: {size: 3}", "line 2: memory: size is '3'"),
        ("name: a\nmemory: {size: 2GiB, maximum: 1GiB}", "maximum is 1GiB"),
        ("name: a\ncpus:\n  count: x", "line 3: cpus.count: expected a value of type int"),
        ("name: a\ncpus: {count: 0}", "count is 0"),
        ("name: a\ncpus: {count: 2, topology: {cores: 4}}", "topology has 4"),
        ("name: a\ncpus: {count: 2, pinning: [0-1]}", "one per processor"),
        ("name: a\ncpus: {pinning: [3-1]}", "pinning has '3-1'"),
        ("name: a\ncpus: {count: 4, maximum: 2}", "maximum is 2"),
        ("name: a\ncpus: {model: a b}", "model is 'a b'"),
        ("name: a\nfirmware: {secure_boot: true}", "needs the kind uefi"),
        ("name: a\nmachine: pc\nfirmware: {kind: uefi, secure_boot: true}", "machine q35"),
        ("name: a\ndisks:\n- {}", "line 3: disks[0]: it has no source"),
        ("name: a\ndisks:\n- {path: a}", "absolute path"),
        ("name: a\ndisks:\n- {path: /a/../b}", "absolute path"),
        ("name: a\ndisks:\n- {path: /a, pool: b, volume: c}", "path excludes"),
        ("name: a\ndisks:\n- {pool: b}", "belong together"),
        ("name: a\ndisks:\n- {pool: a/b, volume: c}", "without slashes"),
        ("name: a\ndisks:\n- {path: /a, format: vmdk}", "one of raw, qcow2"),
        ("name: a\ndisks:\n- {path: /a, bus: ide}", "bus is ide"),
        ("name: a\ndisks:\n- {device: cdrom}", "CD drive"),
        ("name: a\ndisks:\n- {path: /a, serial: a b}", "serial is"),
        ("name: a\ndisks:\n- {path: /a}\n- {path: /a}", "path /a is said twice"),
        ("name: a\ndisks:\n- {path: /a, boot: 1}\n- {path: /b, boot: 1}", "boot 1 is said twice"),
        ("name: a\nnetworks:\n- {}", "either bridge or network"),
        ("name: a\nnetworks:\n- {bridge: a-much-too-long-name}", "bridge is"),
        ("name: a\nnetworks:\n- {bridge: b, mac: 53:54:00:00:00:01}", "not multicast"),
        ("name: a\nnetworks:\n- {bridge: b, segment: A}", "segment is"),
        ("name: a\ncloud_init: {}", "cloud_init: it is empty"),
        ("name: a\nuuid: 1", "uuid is '1'"),
        ("name: a\nmachine: Q 35", "machine is"),
        ("name: a\npriority: 1001", "priority is 1001"),
        ("name: a\nlabels: {A: b}", "labels has 'A'"),
        ("name: a\ngraphics: sdl", "one of none, vnc, spice"),
        ("name: a\nplacement: {apart_from: ['']}", "apart_from is ''"),
        (f"name: a\ntitle: {'x' * 201}", "title is too long"),
        ("name: a\nx: " + "[" * (DEPTH_MAX + 2) + "]" * (DEPTH_MAX + 2), "nests too deep"),
        ("\n---\n".join(f"name: a{number}" for number in range(DOCUMENTS_MAX + 1)), "split it"),
        ("? [a]\n: b", "a key that is no word"),
    ],
)
def test_a_mistake_is_said_with_its_place(text: str, expected: str) -> None:
    """The message names the text, the line, the key's path and what is expected."""
    with pytest.raises(DocumentError) as caught:
        parse_documents(text, "vm.yaml")

    assert caught.value.message.startswith("vm.yaml: ")
    assert expected in caught.value.message


@pytest.mark.parametrize(
    "text",
    [
        f"name: {'n' * 63}",
        f"name: a\ntitle: {'x' * 200}",
        "name: a\npriority: 1000",
        "name: a\ncpus: {count: 512}",
        "name: a\nmemory: {size: 16TiB}",
        "\n---\n".join(f"name: a{number}" for number in range(DOCUMENTS_MAX)),
    ],
)
def test_just_below_a_limit_is_taken(text: str) -> None:
    """The largest values pass."""
    assert parse_documents(text, "vm.yaml")


def test_a_document_is_bounded_in_bytes() -> None:
    """Each text for cloud-init, and all of them together."""
    with pytest.raises(ValueError, match="at most 65536"):
        CloudInit(user_data="x" * (65536 + 1))
    text = "\u00e9" * 30000  # six letters each in the canonical form
    with pytest.raises(ValueError, match="more than 160 KiB"):
        VmDocument(name="a", cloud_init=CloudInit(user_data=text))


def test_texts_for_cloud_init_are_not_shown_by_accident() -> None:
    """They may hold passwords: a log of the record does not have them."""
    document = VmDocument(name="a", cloud_init=CloudInit(user_data="password: s3cret"))

    assert "s3cret" not in repr(document)


def test_addresses_and_uuids_follow_from_the_name() -> None:
    """The same for ever: guests know theirs."""
    document = VmDocument(name="web-1", networks=(Nic(bridge="a"), Nic(bridge="b")))

    assert document.mac(0) == derived_mac("web-1", 0)
    assert document.mac(0) == "52:54:00:64:99:4e"
    assert document.mac(0) != document.mac(1)
    assert document.domain_uuid == "ac99b731-6acf-5b46-90e4-ddb6c785ac19"


def test_defaults_do_not_change_a_fingerprint() -> None:
    """Saying a default and leaving it out are the same document."""
    said = one("name: a\nmemory: {size: 1GiB}\npower: keep")

    assert said.fingerprint == one("name: a").fingerprint


@given(st.integers(1 << 20, 16 << 40))
def test_sizes_are_read_as_they_are_written(size_bytes: int) -> None:
    """In the largest unit that fits, in whole KiB."""
    whole = size_bytes & ~1023

    assert parse_size(size_text(whole), "size") == whole


def test_what_comes_from_the_wire_is_checked() -> None:
    """A row or message of a newer program is refused with the key that it has."""
    with pytest.raises(DocumentError, match=r"disks\[0\] has an unknown field 'tier'"):
        document_from_wire({"name": "a", "disks": [{"path": "/a", "tier": 1}]})


def test_a_disk_more_than_there_may_be_is_refused() -> None:
    """The image for cloud-init counts."""
    disks = tuple(Disk(path=f"/{number}") for number in range(32))

    assert VmDocument(name="a", disks=disks, memory=Memory())
    with pytest.raises(ValueError, match="disks has 32"):
        VmDocument(name="a", disks=disks, cloud_init=CloudInit(user_data="#"))
