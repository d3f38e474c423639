"""VM services on the two hosts of a lab, for tests of migrations between them."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from protocol.records import from_wire
from services.vm.operations.model import OperationRecord
from tests.fixtures.fix_lab import running_lab
from tests.lab.host import LIBVIRTD, ROOT, Host
from tests.lab.lab import Lab
from tests.lab.marks import marked_environ

# Generous: the machine may be loaded. What is waited for ends as soon as it is there.
WAIT_S = 60.0
# A cut line is found within seconds: by the service first, then by libvirt.
_QEMU_CONF = "keepalive_interval = 3\nkeepalive_count = 3\n"


class CallError(Exception):
    """A call was refused; ``code`` says how."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class HostService:
    """A VM service in a process of its own on a host.

    Args:
        lab: that the host is of.
        host: where it runs.
        **settings: of ``VmSettings``, beside those that all have here.
    """

    def __init__(self, lab: Lab, host: Host, **settings: Any) -> None:
        self.host = host
        migration = {"uri": "qemu+tcp://{host}/system", "has_plain_streams": True, "silence_s": 3}
        body = {
            "libvirt_uri": "qemu:///system",
            "node_id": host.name,
            "state_dir": f"/var/lib/libvirt/novacron-{host.name}",
            "migration": {**migration, **settings.pop("migration", {})},
            **settings,
        }
        python = str(ROOT / ".venv/bin/python")
        argv = host.enter(
            "env",
            f"PYTHONPATH={ROOT}",
            python,
            "-m",
            "tests.system.vm_migration_program",
            json.dumps(body),
        )
        with (host.directory / "vm.log").open("a") as log:
            self._process = subprocess.Popen(
                argv,
                env=marked_environ(lab.directory),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                bufsize=1,
            )
        self._numbers = itertools.count(1)
        self._answers: dict[int, Any] = {}
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._answer(0)

    def call(self, method: str, **body: Any) -> Any:
        """Call a method, and wait for the answer.

        Raises:
            CallError: it was refused.
        """
        number = next(self._numbers)
        assert self._process.stdin is not None
        line = json.dumps({"number": number, "method": method, "body": body or None})
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._answer(number)

    def migrate(self, name: str, node: str, **body: Any) -> OperationRecord:
        """Begin to move a guest."""
        asked = {"storage": "copy", **body}
        return from_wire(OperationRecord, self.call("vm.migrate", domain=name, node=node, **asked))

    def operation(self, number: int, **body: Any) -> OperationRecord:
        """An operation as it is."""
        return from_wire(OperationRecord, self.call("vm.operation", id=number, **body))

    def ended(self, number: int) -> OperationRecord:
        """An operation, once it has ended."""
        deadline_s = time.monotonic() + WAIT_S
        while not (record := self.operation(number, wait_s=5.0)).state.is_final:
            assert time.monotonic() < deadline_s, f"it does not end: {record}"
        return record

    def sent(self, number: int, share: float) -> OperationRecord:
        """An operation, once so much has been sent, or it has ended."""
        deadline_s = time.monotonic() + WAIT_S
        while True:
            record = self.operation(number)
            if record.state.is_final or (record.progress or 0.0) >= share:
                return record
            assert time.monotonic() < deadline_s, f"it does not move: {record}"
            time.sleep(0.02)

    def operations(self) -> list[OperationRecord]:
        """All that are remembered."""
        found = self.call("vm.operations")
        return [from_wire(OperationRecord, item) for item in found.get("operations", [])]

    def events(self) -> list[str]:
        """Names of all events of migrations, in order."""
        return [name for name, _ in self.call("events") if "migrat" in name]

    def kill(self) -> None:
        """As a crash would."""
        self._process.send_signal(signal.SIGKILL)
        # nsenter stands before it.
        self.host.run("pkill", "-KILL", "-f", f'"node_id": "{self.host.name}"')
        self._over()

    def close(self) -> None:
        """End it in order."""
        self._over()

    def _over(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(WAIT_S)
        self._reader.join(WAIT_S)
        self._process.stdout.close()

    def _answer(self, number: int) -> Any:
        with self._changed:
            is_there = self._changed.wait_for(
                lambda: number in self._answers or self._process.poll() is not None, WAIT_S
            )
            assert is_there, "the service does not answer"
            assert number in self._answers, "the service has ended"
            said = self._answers.pop(number)
        if "error" in said:
            raise CallError(*said["error"])
        return said.get("reply")

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            with self._changed:
                self._answers[said["number"]] = said
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()


@contextmanager
def migration_lab(name: str) -> Iterator[Lab]:
    """Two hosts with libvirt, which soon see that a line is cut."""
    with running_lab(name) as lab:
        for host in lab.hosts:
            with (host.directory / "etc/qemu.conf").open("a") as file:
                file.write(_QEMU_CONF)
            host.start_service(LIBVIRTD)
        yield lab


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Wait until it holds."""
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_s, f"no {what} within {WAIT_S} s"
        time.sleep(0.05)


def images(host: Host) -> Path:
    """Where a host's guests have their disks, as seen from here."""
    return host.place("/var/lib/libvirt/images")
