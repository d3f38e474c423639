"""This project's supervisor in the benchmark."""

from __future__ import annotations

import json
import shutil
import sys

import supervisor
from protocol import names
from supervisor.client import Client
from tests.bench.supervisor.peers import HERE, Load, Peer


class Ours(Peer):
    """This project's supervisor; its Python child is a service."""

    name = "novacron"

    def __init__(self, load: Load) -> None:
        super().__init__(load)
        self._client: Client | None = None

    def argv(self) -> list[str]:
        """As any program that runs a tree."""
        wanted = {
            "state_dir": str(self.directory / "state"),
            "kind": self.load.kind,
            "count": self.load.count,
            "to": str(self.ear.path),
            "argv": self.child_argv(),
            "storm": self.load.storm,
        }
        return [sys.executable, str(HERE / "ours_tree.py"), json.dumps(wanted)]

    def environment(self) -> dict[str, str]:
        """With this checkout's packages first."""
        return {**super().environment(), "PYTHONPATH": str(HERE.parents[2])}

    def command(self) -> None:
        """Ask for the status of the tree."""
        if self._client is None:
            self._client = supervisor.connect(self.directory / "state")
        self._client.call("novacron", "status")

    def close(self) -> None:
        """Also close the connection, and remove what a killed supervisor leaves."""
        if self._client is not None:
            self._client.close()
        run_dir = names.run_dir(self.directory / "state")
        super().close()
        shutil.rmtree(run_dir, ignore_errors=True)
