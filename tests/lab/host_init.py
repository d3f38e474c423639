"""The first process of a lab's host: makes it, starts its services, reaps, ends with its owner.

Runs alone (``python3 -I -S``) inside fresh namespaces; its argument is the host's directory, with
``host.json`` as ``tests.lab.host`` writes it. Each QEMU probe of libvirt waits seconds for an
orphan to be reaped, so this one reaps at once. The kernel ends all that runs here when it goes.

``control`` in the directory is a Unix socket; a connection carries one JSON request and one answer:
    {"do": "start", "name": service}           -> {"pid": inside}
    {"do": "signal", "name": service, "number": n, "tree": bool} -> {"signalled": [inside pids]}
    {"do": "list"}                             -> {service: pid or null}
"""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

LINE_MAX_BYTES = 4096
ANSWER_TIMEOUT_S = 2.0


def main() -> None:
    """Make the host, say so, and serve until told to end or the owner is gone."""
    directory = Path(sys.argv[1])
    owner = [int(fd) for fd in sys.argv[2:]]
    plan = json.loads((directory / "host.json").read_text())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _make(plan)
    control = socket.socket(socket.AF_UNIX)
    control.bind(str(directory / "control"))
    control.listen(8)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[str, int] = {}
    waits: list[Any] = [control, reader, *owner]
    while True:
        readable, _, _ = select.select(waits, [], [])
        if any(fd in readable for fd in owner):
            return
        if reader in readable:
            os.read(reader, 512)
        _reap(running)
        if control in readable:
            _serve(control, plan, running)


def _make(plan: dict[str, Any]) -> None:
    for argv in plan["commands"]:
        subprocess.run(argv, check=True)
    # libvirt would leave directories in the machine's control groups; /sys shows the old network.
    subprocess.run(("umount", "-R", "-l", "/sys/fs/cgroup"), check=False)
    subprocess.run(("mount", "-t", "sysfs", "sysfs", "/sys"), check=True)
    for source, target in plan["binds"]:
        subprocess.run(("mount", "--bind", source, target), check=True)
    for name, value in plan["sysctl"].items():
        with contextlib.suppress(FileNotFoundError):
            Path("/proc/sys", *name.split(".")).write_text(value)
    # The network last: its commands are one batch for one process.
    subprocess.run(("ip", "-batch", "-"), input=plan["network"], text=True, check=True)


def _reap(running: dict[str, int]) -> None:
    with contextlib.suppress(ChildProcessError):
        while (pid := os.waitpid(-1, os.WNOHANG)[0]) != 0:
            for name in [name for name, known in running.items() if known == pid]:
                del running[name]


def _serve(control: socket.socket, plan: dict[str, Any], running: dict[str, int]) -> None:
    peer, _ = control.accept()
    with peer, contextlib.suppress(OSError):
        peer.settimeout(ANSWER_TIMEOUT_S)
        try:
            answer = _carry_out(json.loads(peer.recv(LINE_MAX_BYTES)), plan, running)
        except (KeyError, ValueError, OSError) as exc:
            answer = {"error": f"{type(exc).__name__}: {exc}"}
        peer.sendall(json.dumps(answer).encode() + b"\n")


def _carry_out(
    request: dict[str, Any], plan: dict[str, Any], running: dict[str, int]
) -> dict[str, Any]:
    if request["do"] == "list":
        return {name: running.get(name) for name in plan["services"]}
    name = request["name"]
    if request["do"] == "start":
        if name not in running:
            running[name] = _start(plan["services"][name])
        return {"pid": running[name]}
    if request["do"] == "signal":
        if name not in running:
            return {"signalled": []}
        pids = _tree(running[name]) if request["tree"] else [running[name]]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, request["number"])
        return {"signalled": pids}
    raise ValueError(request["do"])


def _start(service: dict[str, Any]) -> int:
    with open(service["log"], "ab") as log, open(os.devnull, "rb") as nothing:
        process = subprocess.Popen(
            service["argv"],
            env=service["environ"],
            stdin=nothing,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    # The loop reaps it; Popen must not think that it is a zombie of its own.
    process.returncode = 0
    return process.pid


def _tree(root: int) -> list[int]:
    """A process and all that descend from it."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += parents.get(pid, [])
    return found


if __name__ == "__main__":
    main()
