"""The locks of QEMU and libvirt: their words, and whether libvirt has one."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.vm.errors import LibvirtRefusedError
from services.vm.leases.locks import libvirt_lock, translate_lock

# QEMU 5 to 9, libvirt's lockd and sanlock.
WORDS = [
    'x: Failed to get "write" lock\nIs another process using the image [/images/web.qcow2]?',
    'Failed to get shared "write" lock Is another process using the image [/images/web.qcow2]?',
    "resource busy: Lockspace resource '/images/web.qcow2' is locked",
    "internal error: Failed to acquire lock: error -243",
]


@pytest.mark.parametrize("words", WORDS)
def test_a_locked_disk_is_told_with_what_to_do(words: str) -> None:
    """The file where it is named, and how to find who has it."""
    found = translate_lock(LibvirtRefusedError(f"libvirt could not start it: {words}"), "web")

    assert found is not None
    assert found.code == "vm.disk_locked"
    assert "fuser -v" in found.message
    assert ("[/images/web.qcow2]" in words) == ("has /images/web.qcow2 open" in found.message)


def test_other_errors_stay_as_they_are() -> None:
    """Words about locks in general are no locked disk."""
    for words in ("cannot acquire state change lock", "no such file", "block device"):
        assert translate_lock(LibvirtRefusedError(words), "web") is None


def test_the_lock_manager_is_read_where_libvirt_is_local(tmp_path: Path) -> None:
    """The last setting counts, a comment does not; another host's file is not ours."""
    conf = tmp_path / "qemu.conf"
    conf.write_text(
        '# lock_manager = "x"\n lock_manager = "sanlock"\nlock_manager="lockd" # ours\n'
    )

    assert libvirt_lock("qemu:///system", conf) == "lockd"
    assert libvirt_lock("qemu+unix:///system?socket=/run/x", conf) == "lockd"
    assert libvirt_lock("qemu+ssh://host/system", conf) == ""
    assert libvirt_lock("test:///default", conf) == ""
    assert libvirt_lock("qemu:///system", tmp_path / "none") == ""
    conf.write_bytes(b"\xff\xfe\x00")
    assert libvirt_lock("qemu:///system", conf) == ""
