"""A link between two hosts: starts the program that carries the packets, and speaks to it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protocol.records import from_wire
from tests.lab.compiler import build_program
from tests.lab.errors import LabError
from tests.lab.marks import marked_environ, reap
from tests.lab.units import Shape

# Packets on the way in one direction: 1 s of 1 Gbit/s, in a map that is touched as it is needed.
LINE_PACKETS = 1 << 17
_ANSWER_TIMEOUT_S = 5.0
_START_TIMEOUT_S = 10.0
_ANSWER_MAX_BYTES = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class Direction:
    """One direction of a link: its values, and what it has counted since it began.

    ``lost`` is by the loss that was asked for, ``cut`` while the line was cut, ``queue_full`` by a
    queue without room, ``line_full`` by more packets on the way than the program holds,
    ``refused`` by the receiving host.
    """

    rate_bits_s: int
    delay_us: int
    queue_bytes: int
    loss_ppm: int
    is_cut: bool
    packets_in: int
    bytes_in: int
    packets_out: int
    bytes_out: int
    lost: int
    cut: int
    queue_full: int
    line_full: int
    refused: int
    waiting: int
    waiting_max: int


class Link:
    """The link of two hosts.

    Args:
        directory: the lab's.
        first, second: numbers of the hosts, the lower one first.
    """

    def __init__(self, directory: Path, first: int, second: int) -> None:
        assert first < second
        self._directory = directory
        self.first = first
        self.second = second

    @property
    def name(self) -> str:
        """Such as ``1-2``."""
        return f"{self.first}-{self.second}"

    def start(self, first_pid: int, second_pid: int) -> None:
        """Make the devices, one in the network namespace of each process, and begin to carry.

        Raises:
            LabError: the program says why it could not begin.
        """
        program = build_program(Path(__file__).with_name("link.c"))
        fds = [os.pidfd_open(first_pid), os.pidfd_open(second_pid)]
        log = (self._directory / f"link-{self.name}.log").open("wb")
        try:
            argv = [str(program), str(self._control)]
            argv += [f"/proc/{first_pid}/ns/net", f"link{self.second}"]
            argv += [f"/proc/{second_pid}/ns/net", f"link{self.first}"]
            process = subprocess.Popen(
                [*argv, str(LINE_PACKETS), *map(str, fds)],
                env=marked_environ(self._directory),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                pass_fds=fds,
                start_new_session=True,
            )
        finally:
            log.close()
            for fd in fds:
                os.close(fd)
        assert process.stdout is not None
        with process.stdout:
            if process.stdout.readline() != b"ready\n":
                process.wait(_START_TIMEOUT_S)
                raise LabError(f"link {self.name}: {Path(log.name).read_text()[-500:]}")
        reap(process)

    def change(self, shape: Shape, *, sender: int | None = None) -> None:
        """Give values, to the direction from one host or to both.

        Raises:
            LabError: the link is gone, or the sender is none of its hosts.
        """
        if words := shape.words():
            self._ask(f"set {self._letter(sender)} {words}")

    def cut(self, *, sender: int | None = None) -> None:
        """Let nothing through, in one direction or both."""
        self.change(Shape(is_cut=True), sender=sender)

    def mend(self, *, sender: int | None = None) -> None:
        """Undo a cut."""
        self.change(Shape(is_cut=False), sender=sender)

    def direction(self, *, sender: int) -> Direction:
        """Values and counters of the direction from one host."""
        return from_wire(Direction, self._ask("stats")[self._letter(sender)])

    def _letter(self, sender: int | None) -> str:
        letters = {None: "both", self.first: "a", self.second: "b"}
        if sender not in letters:
            raise LabError(f"link {self.name} does not begin at host{sender}")
        return letters[sender]

    @property
    def _control(self) -> Path:
        return self._directory / f"link-{self.name}"

    def _ask(self, line: str) -> Any:
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(_ANSWER_TIMEOUT_S)
            try:
                peer.connect(str(self._control))
                peer.sendall(line.encode() + b"\n")
                parts = []
                while part := peer.recv(_ANSWER_MAX_BYTES):
                    parts.append(part)
                answer = json.loads(b"".join(parts))
            except (OSError, ValueError) as exc:
                raise LabError(f"link {self.name} does not answer: {exc}") from exc
        if "error" in answer:
            raise LabError(f"link {self.name}: {answer['error']}")
        return answer
