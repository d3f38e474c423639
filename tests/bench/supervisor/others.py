"""supervisord and circus, installed by the benchmark from PyPI into an environment of their own."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import socket
import subprocess
import xmlrpc.client
from pathlib import Path
from typing import Any

import zmq

from tests.bench.figures import MeasurementError, note
from tests.bench.supervisor.peers import HERE, Load, Peer, python

_REQUIREMENTS = HERE / "requirements.txt"
_TIMEOUT_S = 30.0
# Of the supervisors that look at their children from time to time, as often as they can be told.
_LOOK_S = 1.0


def environment_directory() -> Path:
    """Where the environment is kept between runs; named by what is in it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256(_REQUIREMENTS.read_bytes()).hexdigest()[:12]
    return cache / "novacron" / f"bench-supervisor-{digest}"


def install() -> str:
    """Make the environment where there is none; returns why that failed, or ""."""
    directory = environment_directory()
    done = directory / "complete"
    if done.exists():
        return ""
    note(f"installing supervisord and circus into {directory}")
    steps = (
        [python(), "-m", "venv", "--clear", str(directory)],
        [str(directory / "bin" / "pip"), "install", "-q", "--no-input", "-r", str(_REQUIREMENTS)],
    )
    for argv in steps:
        # A venv's pip must not see the packages that this process sees.
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        ended = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
        if ended.returncode:
            return f"can't be installed: {(ended.stderr or ended.stdout).strip()[-300:]}"
    done.touch()
    return ""


class _FromPyPI(Peer):
    program: str

    @classmethod
    def missing(cls) -> str:
        """Installs it."""
        return install()

    @classmethod
    def installed(cls) -> str:
        """Its program."""
        return str(environment_directory() / "bin" / cls.program)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_TIMEOUT_S)
        self.sock.connect(self._path)


class _UnixTransport(xmlrpc.client.Transport):
    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: Any) -> _UnixConnection:
        """One per call, as supervisorctl does."""
        return _UnixConnection(self._path)


class Supervisord(_FromPyPI):
    """supervisord with one program of many processes."""

    name = "supervisord"
    program = "supervisord"

    def __init__(self, load: Load) -> None:
        super().__init__(load)
        path = str(self.directory / "s.sock")
        self._proxy = xmlrpc.client.ServerProxy("http://localhost", transport=_UnixTransport(path))

    def argv(self) -> list[str]:
        """Restarts at once; what ends before a second has passed is retried for ever."""
        argv = " ".join(self.child_argv())
        descriptors = 1024 + 8 * self.load.count
        # A child counts as up at once, except where it is to count as failed.
        up_s = 1 if self.load.storm else 0
        (self.directory / "conf").write_text(
            f"""[supervisord]
nodaemon=true
silent=true
minfds={descriptors}
logfile={self.directory}/log
pidfile={self.directory}/pid
childlogdir={self.directory}
user=root
[unix_http_server]
file={self.directory}/s.sock
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[program:c]
command={argv}
process_name=c%(process_num)d
numprocs={self.load.count}
startsecs={up_s}
startretries=1000000
autorestart=true
stdout_logfile=NONE
stderr_logfile=NONE
""".replace("user=root\n", "user=root\n" if os.geteuid() == 0 else "")
        )
        return [self.installed(), "-c", str(self.directory / "conf")]

    def command(self) -> None:
        """What ``supervisorctl status`` asks."""
        self._proxy.supervisor.getAllProcessInfo()


class Circus(_FromPyPI):
    """circus with one watcher of many processes."""

    name = "circus"
    program = "circusd"

    def __init__(self, load: Load) -> None:
        super().__init__(load)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()

    @property
    def _endpoint(self) -> str:
        return f"ipc://{self.directory}/c"

    def argv(self) -> list[str]:
        """Looks at its children every second, and starts them for ever."""
        program, *arguments = self.child_argv()
        (self.directory / "conf").write_text(
            f"""[circus]
endpoint = {self._endpoint}
pubsub_endpoint = ipc://{self.directory}/p
check_delay = {_LOOK_S:g}
[watcher:c]
cmd = {program}
args = {" ".join(arguments)}
numprocesses = {self.load.count}
max_retry = -1
warmup_delay = 0
copy_env = True
"""
        )
        return [self.installed(), str(self.directory / "conf")]

    def command(self) -> None:
        """What ``circusctl status`` asks."""
        self._call("status", {})

    def ask_stop(self) -> None:
        """What ``circusctl quit`` asks; a SIGTERM is lost while it looks at its children."""
        while self.main is not None and self.main.poll() is None:
            if self._call("quit", {"waiting": False}).get("status") == "ok":
                return

    def _call(self, command: str, properties: dict[str, Any]) -> dict[str, Any]:
        request = {"id": "1", "command": command, "properties": properties}
        client = self._context.socket(zmq.DEALER)
        client.linger = 0
        client.rcvtimeo = int(_TIMEOUT_S * 1000)
        client.connect(self._endpoint)
        try:
            client.send(json.dumps(request).encode())
            answer: dict[str, Any] = json.loads(client.recv_multipart()[-1])
            return answer
        except zmq.Again:
            raise MeasurementError("circus did not answer") from None
        finally:
            client.close()

    def close(self) -> None:
        """Also close the connection."""
        super().close()
        self._context.term()
