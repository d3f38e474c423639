"""Erlang/OTP and s6, where this machine has them."""

from __future__ import annotations

import shutil
import subprocess

from tests.bench.figures import MeasurementError
from tests.bench.supervisor.peers import HERE, Peer, read_line

_ANSWER_S = 30.0
_SCANNED_MAX = 4000


class Otp(Peer):
    """OTP's supervisor in Erlang, with a port per child."""

    name = "erl"
    speaks_on_stdout = True

    @classmethod
    def missing(cls) -> str:
        """It comes as Debian's erlang-base."""
        return "" if shutil.which("erl") and shutil.which("erlc") else "not installed"

    def argv(self) -> list[str]:
        """Compiled before the clock starts."""
        subprocess.run(
            ["erlc", "-o", str(self.directory), str(HERE / "bench_sup.erl")],
            check=True,
            capture_output=True,
        )
        words = [str(self.load.count), *self.child_argv()]
        quoted = ",".join(f'"{word}"' for word in words)
        start = f"spawn(fun() -> bench_sup:main([{quoted}]) end)"
        # It reports every end, and what nobody reads would stop it once the pipe is full.
        log = f'[{{handler,default,logger_std_h,#{{config=>#{{file=>"{self.directory}/log"}}}}}}]'
        log_there = ["-kernel", "logger", log]
        return ["erl", "-noshell", *log_there, "-pa", str(self.directory), "-eval", start]

    def command(self) -> None:
        """Count the children."""
        self._say(b"\n")
        if not read_line(self, _ANSWER_S):
            raise MeasurementError("erl has ended")

    def ask_stop(self) -> None:
        """Stop the supervisor; a SIGTERM would stop the machine and leave the programs."""
        self._say(b"stop\n")

    def _say(self, line: bytes) -> None:
        assert self.main is not None
        assert self.main.stdin is not None
        self.main.stdin.write(line)
        self.main.stdin.flush()


class S6(Peer):
    """s6-svscan, with one s6-supervise per child."""

    name = "s6"
    has_commands = False  # its state is in files that anybody reads

    @classmethod
    def missing(cls) -> str:
        """It comes as Debian's s6."""
        return "" if shutil.which("s6-svscan") else "not installed"

    def argv(self) -> list[str]:
        """A service directory for each child."""
        words = " ".join(self.child_argv())
        scanned = self.directory / "scan"
        for number in range(self.load.count):
            service = scanned / f"c{number}"
            service.mkdir(parents=True)
            run = service / "run"
            run.write_text(f"#!/bin/sh\nexec {words}\n")
            run.chmod(0o755)
        return ["s6-svscan", "-c", str(_SCANNED_MAX), str(scanned)]
