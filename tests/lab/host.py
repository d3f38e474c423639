"""One host of a lab: its directory, its namespaces, its services, and how one gets inside."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.lab.errors import LabError, require
from tests.lab.marks import marked_environ, reap

ROOT = Path(__file__).parents[2]
NODE, LIBVIRTD = "node", "libvirtd"
HOSTS_MAX = 8
# The network of the hosts, which leads over the links alone, and the one of their guests.
_HOST_NET, _GUEST_NET = "10.77.0", "10.88.0"
# A loaded machine takes ten times what an idle one does.
START_TIMEOUT_S = 60.0
_ANSWER_TIMEOUT_S = 5.0
_BOOTED = re.compile(r"^(ready|degraded) in ", re.MULTILINE)
_BINDS = {
    "etc": "/etc/libvirt",
    "lib": "/var/lib/libvirt",
    "cache": "/var/cache/libvirt",
    "log": "/var/log/libvirt",
    "novacron": "/var/lib/novacron",
    "hosts": "/etc/hosts",
}
_LIBVIRTD_CONF = """
auth_unix_ro = "none"
auth_unix_rw = "none"
listen_tls = 0
listen_tcp = 1
listen_addr = "{address}"
auth_tcp = "none"
host_uuid = "{uuid}"
keepalive_interval = 2
keepalive_count = 5
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
"""
_QEMU_CONF = """
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = []
stdio_handler = "file"
seccomp_sandbox = 0
migration_address = "{address}"
"""


class Host:
    """A host of a lab.

    Args:
        lab: the lab's directory.
        number: 1 to ``HOSTS_MAX``.
        pid: of the first process of its namespaces, where it runs.
    """

    def __init__(self, lab: Path, number: int, *, pid: int = 0) -> None:
        assert 1 <= number <= HOSTS_MAX
        self.number = number
        self.name = f"host{number}"
        self.address = f"{_HOST_NET}.{number}"
        self.guest_side = f"{_GUEST_NET}.{200 + number}"
        self.directory = lab / self.name
        self.pid = pid
        self._lab = lab

    def prepare(self, count: int) -> None:
        """Write all its files."""
        for name in ("etc/qemu", "lib/images", "cache", "log", "novacron"):
            (self.directory / name).mkdir(parents=True)
        identity = uuid.uuid5(uuid.NAMESPACE_URL, f"{self.directory}")
        (self.directory / "etc/libvirtd.conf").write_text(
            _LIBVIRTD_CONF.format(address=self.address, uuid=identity)
        )
        (self.directory / "etc/qemu.conf").write_text(_QEMU_CONF.format(address=self.address))
        names = [f"{_HOST_NET}.{number} host{number}" for number in range(1, count + 1)]
        (self.directory / "hosts").write_text("\n".join(["127.0.0.1 localhost", *names, ""]))
        (self.directory / "host.json").write_text(json.dumps(self._plan(count)))

    def start(self, owner: int | None = None) -> None:
        """Make the namespaces; returns when services can be started in them.

        Args:
            owner: pidfd of the process that the host ends with; None: it stays until it is ended.
        """
        fds = () if owner is None else (owner,)
        argv = [require("unshare"), "--mount", "--uts", "--ipc", "--net", "--pid", "--fork"]
        argv += ["--kill-child", "--mount-proc", "/usr/bin/python3", "-I", "-S"]
        argv += [str(Path(__file__).with_name("host_init.py")), str(self.directory)]
        with (self.directory / "init.log").open("wb") as log:
            outer = subprocess.Popen(
                [*argv, *map(str, fds)],
                env=marked_environ(self._lab),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                pass_fds=fds,
                start_new_session=True,
            )
        assert outer.stdout is not None
        with outer.stdout:
            if outer.stdout.readline() != b"ready\n":
                raise LabError(f"{self.name} can't be made: {self._tail('init.log')}")
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text()
        self.pid = int(children.split()[0])
        reap(outer)

    def connect(self, others: list[int]) -> None:
        """Bring up the ends of its links, and the segment that all hosts' guests share."""
        lines = []
        for other in others:
            peer = f"{_HOST_NET}.{other}"
            lines += [
                f"link set link{other} mtu 1500 txqueuelen 1000 up",
                f"addr add {self.address} peer {peer} dev link{other}",
            ]
        lines += [
            f"link add segment0 type vxlan id 77 dstport 4789 local {self.address}",
            "link set segment0 master lab0 up",
        ]
        self.run("ip", "-batch", "-", text="\n".join([*lines, ""]))
        if others:
            entry = "fdb append 00:00:00:00:00:00 dev segment0 dst"
            flood = "".join(f"{entry} {_HOST_NET}.{other}\n" for other in others)
            self.run("bridge", "-batch", "-", text=flood)

    def start_service(self, name: str) -> None:
        """Start the node or libvirtd; returns when it is ready.

        Raises:
            LabError: it runs already, ended or took too long; the message has the end of its log.
        """
        if self.services()[name] is not None:
            raise LabError(f"{name} of {self.name} runs already")
        # What an earlier start said is not this one's.
        (self.directory / f"{name}.log").unlink(missing_ok=True)
        self._ask({"do": "start", "name": name})
        is_ready = self._is_node_ready if name == NODE else self._is_libvirtd_ready
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not is_ready():
            if self.services()[name] is None:
                raise LabError(f"{name} of {self.name} ended: {self._tail(f'{name}.log')}")
            if time.monotonic() > deadline_s:
                raise LabError(
                    f"{name} of {self.name} is not ready after {START_TIMEOUT_S:.0f} s:"
                    f" {self._tail(f'{name}.log')}"
                )
            time.sleep(0.05)

    def signal_service(
        self, name: str, number: signal.Signals, *, tree: bool = False, wait: bool = True
    ) -> None:
        """Send a signal to a service, or to all processes below it as well.

        Args:
            name: ``node`` or ``libvirtd``.
            number: such as SIGKILL.
            tree: the whole tree.
            wait: until the service has ended.
        """
        request = {"do": "signal", "name": name, "number": int(number), "tree": tree}
        pids = self._ask(request)["signalled"]
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while wait and any(Path(f"/proc/{self.pid}/root/proc/{pid}").exists() for pid in pids):
            if time.monotonic() > deadline_s:
                raise LabError(f"{name} of {self.name} did not end by {number.name}")
            time.sleep(0.02)

    def services(self) -> dict[str, int | None]:
        """Process ids, as the host counts them, of its services; None: not running."""
        found: dict[str, int | None] = self._ask({"do": "list"})
        return found

    def enter(self, *command: str) -> list[str]:
        """The command that runs a command inside."""
        namespaces = ("--mount", "--uts", "--ipc", "--net", "--pid")
        return [require("nsenter"), f"--target={self.pid}", *namespaces, "--wd=/", "--", *command]

    def run(self, *command: str, text: str | None = None, timeout_s: float = 60.0) -> str:
        """Run a command inside; returns what it wrote.

        Raises:
            LabError: it failed or took too long; the message has what it said.
        """
        try:
            done = subprocess.run(
                self.enter(*command),
                env=marked_environ(self._lab),
                input=text if text is not None else "",
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as exc:
            raise LabError(f"{self.name}: {' '.join(command)}: longer than {timeout_s} s") from exc
        if done.returncode:
            said = (done.stderr or done.stdout).strip()[-800:]
            raise LabError(f"{self.name}: {' '.join(command)}: {said or done.returncode}")
        return done.stdout

    def call(self, path: str, method: str, body: Any = None) -> Any:
        """Call a process of the host's node as root does.

        Raises:
            LabError: the call failed; the message has what was said.
        """
        argv = [str(ROOT / ".venv/bin/python"), "-m", "tests.lab.call", path, method]
        place = f"PYTHONPATH={ROOT}"
        return json.loads(self.run("env", place, *argv, json.dumps(body)))

    def place(self, path: str) -> Path:
        """A file of the host's as the machine sees it, while the host runs."""
        return Path(f"/proc/{self.pid}/root{path}")

    @property
    def libvirt_uri(self) -> str:
        """Where this machine's programs reach the host's libvirtd."""
        return f"qemu+unix:///system?socket={self.place('/run/libvirt/libvirt-sock')}"

    def _plan(self, count: int) -> dict[str, Any]:
        environ = marked_environ(self._lab)
        node = {
            **environ,
            "NOVACRON_PLATFORM_NODEID": self.name,
            "NOVACRON_VM_LIBVIRTURI": "qemu:///system",
            "NOVACRON_DWCP_TRANSPORT_HOST": self.address,
        }
        run = [str(ROOT / "bin/novacron"), "run", "--environment", "embedded"]
        return {
            "commands": [
                ["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"],
                ["hostname", self.name],
            ],
            "binds": [(str(self.directory / name), target) for name, target in _BINDS.items()],
            "sysctl": {
                "net.ipv6.conf.all.disable_ipv6": "1",
                "net.ipv6.conf.default.disable_ipv6": "1",
            },
            "network": "link set lo up\n"
            "link add lab0 type bridge\n"
            f"link set lab0 address 52:54:00:77:00:{self.number:02x} up\n"
            f"addr add {self.guest_side}/24 dev lab0\n",
            "services": {
                LIBVIRTD: self._service(LIBVIRTD, ["/usr/sbin/libvirtd", "--listen"], environ),
                NODE: self._service(NODE, run, node),
            },
        }

    def _service(self, name: str, argv: list[str], environ: Mapping[str, str]) -> dict[str, Any]:
        return {"argv": argv, "environ": dict(environ), "log": str(self.directory / f"{name}.log")}

    def _is_node_ready(self) -> bool:
        return _BOOTED.search(self._read("node.log")) is not None

    def _is_libvirtd_ready(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.place("/run/libvirt/libvirt-sock")))
            except OSError:
                return False
        return True

    def _ask(self, request: dict[str, Any]) -> Any:
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(_ANSWER_TIMEOUT_S)
            try:
                peer.connect(str(self.directory / "control"))
                peer.sendall(json.dumps(request).encode())
                answer = json.loads(peer.makefile().readline())
            except (OSError, ValueError) as exc:
                raise LabError(f"{self.name} does not answer: {exc}") from exc
        if "error" in answer:
            raise LabError(f"{self.name}: {answer['error']}")
        return answer

    def _read(self, name: str) -> str:
        try:
            return (self.directory / name).read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def _tail(self, name: str) -> str:
        return self._read(name).strip()[-1500:] or "(it said nothing)"
