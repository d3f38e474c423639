"""novacronctl vm console on a terminal: a real node, a real libvirtd, a real guest."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fixtures.fix_libvirt import private_libvirtd
from tests.fixtures.fix_node import ROOT, Node
from tests.fixtures.vm_orders import OBEDIENT, boot_disk, disk_guest

pytestmark = [
    pytest.mark.process,
    pytest.mark.postgres,
    pytest.mark.redis,
    pytest.mark.libvirt,
]


def read_until(descriptor: int, text: bytes, timeout_s: float = 20.0) -> bytes:
    """What a terminal shows, up to a text."""
    shown, deadline_s = b"", time.monotonic() + timeout_s
    while text not in shown:
        assert time.monotonic() < deadline_s, shown
        if select.select([descriptor], [], [], 0.2)[0]:
            with contextlib.suppress(OSError):  # its other end is closed
                shown += os.read(descriptor, 4096)
    return shown


def test_a_console_is_attached_and_left(make_node: Callable[..., Node], tmp_path: Path) -> None:
    """The firmware's words are shown; Ctrl-] leaves the guest running and the terminal sane."""
    with (
        private_libvirtd() as daemon,
        disk_guest(daemon, boot_disk(tmp_path / "web1.qcow2", OBEDIENT)),
    ):
        node = make_node(NOVACRON_VM_LIBVIRTURI=daemon.uri).start()
        node.wait_ready()
        started = node.ctl("vm", "start", "web1", "--paused", timeout_s=60)
        assert started.stdout == "web1 is paused\n", started
        master, slave = pty.openpty()
        argv = [sys.executable, "-m", "services.ctl", "vm", "console", "web1"]
        with subprocess.Popen(
            [*argv, "--state-dir", str(node.state_dir)],
            cwd=ROOT,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        ) as console:
            try:
                read_until(master, b"Ctrl-] ends it")
                assert node.ctl("vm", "resume", "web1").returncode == 0
                read_until(master, b"SeaBIOS")
                os.write(master, b"x\x1d")
                read_until(master, b"detached from web1")
                assert console.wait(10) == 0
            finally:
                console.kill()
        os.close(master)
        os.close(slave)
        again = node.ctl("vm", "stop", "web1", "--agent-time", "0", "--no-force", timeout_s=60)
        assert "power button" in again.stdout, again
