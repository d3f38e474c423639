"""A small Debian in which systemd is PID 1, to run the shipped unit as it will be run.

systemd-nspawn starts it on a directory with the host's /usr, its own /etc and /var, and a network
of its own that has the loopback alone. /opt/novacron is an environment as a wheel's installation
makes it, except that it finds the packages of this checkout.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from supervisor.posix.processes import children_of
from tests.fixtures.fix_node import ROOT, alive, wait_until

# Where this checkout appears inside; systemd covers the host's /tmp with one of its own.
_CHECKOUT = "/opt/checkout"
UNIT = ROOT / "etc/systemd/novacron.service"
PROGRAMS = ("systemd-nspawn", "nsenter")
# Of the host's files in /etc, what programs of /usr need to run.
_ETC = ("passwd", "group", "nsswitch.conf", "ld.so.cache", "ld.so.conf", "alternatives")
# The embedded profile has its own; the distribution's would only cost time.
_MASKED = ("libvirtd", "postgresql", "redis-server", "systemd-networkd-wait-online")
_HAS_SYSTEMD = Path("/run/systemd/system").exists()


class Machine:
    """One booted system; ``close`` ends it and leaves nothing.

    Attributes:
        root: its root directory.
        leader: the host's process id of its systemd.
    """

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="novacron-machine-", dir="/tmp"))
        self.root.chmod(0o755)
        self.leader = 0
        self._cgroups = [] if _HAS_SYSTEMD else _own_cgroups()
        self._process: subprocess.Popen[bytes] | None = None

    def boot(self, *, variables: str, drop_in: str = "") -> Machine:
        """Install the node and its unit, and boot to where services can be started.

        Args:
            variables: content of /etc/novacron/environment.
            drop_in: content of a drop-in of the unit.
        """
        self._make_system()
        self._install()
        environment = self.root / "etc/novacron/environment"
        environment.write_text(variables)
        environment.chmod(0o600)
        if drop_in:
            directory = self.root / "etc/systemd/system/novacron.service.d"
            directory.mkdir()
            (directory / "test.conf").write_text(drop_in)
        command = ["systemd-nspawn", "--quiet", f"--directory={self.root}", "--private-network"]
        command += [
            "--bind-ro=/usr",
            f"--bind-ro={ROOT}:{_CHECKOUT}",
            "--register=no",
            "--link-journal=no",
        ]
        command += [] if _HAS_SYSTEMD else ["--keep-unit"]
        command += ["--boot", "systemd.unit=basic.target"]
        # cgroup v2, as Debian 12 has it: in a container, v1 tells nobody that a group is empty.
        environ = {**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
        with self._console.open("wb") as console:
            self._process = subprocess.Popen(
                command,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
            )
        self.leader = wait_until(self._find_leader, f"systemd: {self._said}")
        wait_until(
            lambda: self.run("systemctl", "is-active", "basic.target").strip() == "active",
            f"basic.target: {self._said}",
        )
        return self

    def run(self, *command: str, timeout_s: float = 30.0) -> str:
        """Run a command in it as root; returns what it wrote, whatever its exit code is."""
        enter = [
            "nsenter",
            f"--target={self.leader}",
            "--mount",
            "--uts",
            "--ipc",
            "--net",
            "--pid",
        ]
        environ = {"PATH": "/usr/sbin:/usr/bin", "NO_COLOR": "1", "SYSTEMD_PAGER": ""}
        done = subprocess.run(
            [*enter, *command],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        return done.stdout

    def show(self, name: str) -> str:
        """A property of the node's unit."""
        return self.run("systemctl", "show", "novacron", "--value", f"--property={name}").strip()

    def log(self, lines: int = 60) -> str:
        """The end of what the unit wrote, and of what systemd says about it."""
        return self.run("journalctl", "--unit=novacron", f"--lines={lines}", "--output=cat")

    def close(self) -> None:
        """Shut it down and remove it."""
        if self._process is not None:
            if self.leader:
                self.run("systemctl", "exit", "0", "--force")
            try:
                self._process.wait(20.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(5.0)
            if self.leader:
                wait_until(lambda: not alive([self.leader]), "the machine's systemd is gone")
        left = self._remove_cgroups()
        shutil.rmtree(self.root)
        self._console.unlink(missing_ok=True)
        assert left == []

    @property
    def _console(self) -> Path:
        return self.root.with_suffix(".console")

    @property
    def _said(self) -> str:
        return self._console.read_text(errors="replace")[-2000:]

    def _find_leader(self) -> int:
        assert self._process is not None
        assert self._process.poll() is None, self._said
        for pid in children_of(self._process.pid):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().strip() == "systemd":
                    return pid
        return 0

    def _make_system(self) -> None:
        for name in (
            "usr",
            "etc/systemd/system",
            "etc/novacron",
            "var",
            "tmp",
            "run",
            "proc",
            "sys",
        ):
            (self.root / name).mkdir(parents=True)
        (self.root / _CHECKOUT.lstrip("/")).mkdir(parents=True)
        for name in ("bin", "sbin", "lib", "lib64"):
            (self.root / name).symlink_to(f"usr/{name}")
        for name in _ETC:
            source = Path("/etc", name)
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(
                source, self.root / "etc" / name, **({"symlinks": True} if source.is_dir() else {})
            )
        shutil.copy("/usr/lib/os-release", self.root / "etc/os-release")
        (self.root / "etc/machine-id").touch()
        units = self.root / "etc/systemd/system"
        for name in _MASKED:
            (units / f"{name}.service").symlink_to("/dev/null")
        shutil.copy(UNIT, units)

    def _install(self) -> None:
        home = self.root / "opt/novacron"
        subprocess.run(
            ["/usr/bin/python3.11", "-m", "venv", "--without-pip", str(home)],
            check=True,
            timeout=30,
        )
        packages = "lib/python3.11/site-packages"
        paths = f"{_CHECKOUT}\n{_CHECKOUT}/.venv/{packages}\n"
        (home / packages / "novacron.pth").write_text(paths)
        for program in ("novacron", "novacronctl"):
            shutil.copy(ROOT / "bin" / program, home / "bin")
        for file in (ROOT / "etc/novacron").glob("config.*.yaml"):
            shutil.copy(file, self.root / "etc/novacron")

    def _remove_cgroups(self) -> list[str]:
        """Remove the control groups that systemd-nspawn leaves where no systemd is the host's."""
        deadline_s = time.monotonic() + 5.0
        while True:
            for cgroup in self._cgroups:
                for name in ("payload", "supervisor"):
                    for directory, _below, _files in os.walk(cgroup / name, topdown=False):
                        with contextlib.suppress(OSError):
                            Path(directory).rmdir()
            left = [
                str(cgroup / name)
                for cgroup in self._cgroups
                for name in ("payload", "supervisor")
                if (cgroup / name).exists()
            ]
            if not left or time.monotonic() > deadline_s:
                return left
            time.sleep(0.05)


def _own_cgroups() -> list[Path]:
    """The directories of this process's control groups in the hierarchies that systemd uses."""
    found = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _number, controllers, path = line.split(":", 2)
        for mount in {"name=systemd": ("systemd",), "": ("unified", ".")}.get(controllers, ()):
            directory = Path("/sys/fs/cgroup", mount, path.lstrip("/"))
            if (directory / "cgroup.procs").exists():
                found.append(directory)
    return found
