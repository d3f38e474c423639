"""A configuration directory that a test fills, and loading from it."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest

from protocol.records import Plain
from services.config.errors import ConfigError, Problem
from services.config.host import HostFacts
from services.config.loader import LoadedConfig, load

HOST = HostFacts(rdma_devices=(), cpus=frozenset({0, 1}))


@dataclasses.dataclass(frozen=True, slots=True)
class Directory:
    """A configuration directory with an environment called ``lab``."""

    path: Path

    def write(self, default: str = "{}", lab: str = "{}", suffix: str = "yaml") -> None:
        """Write the two files."""
        for name, text in (("default", default), ("lab", lab)):
            file = self.path / f"config.{name}.{suffix}"
            file.write_text(textwrap.dedent(text), encoding="utf-8")

    def load(
        self,
        environ: Mapping[str, str] | None = None,
        overrides: Mapping[str, Plain] | None = None,
        host: HostFacts = HOST,
    ) -> LoadedConfig:
        """Load the lab's configuration."""
        return load(self.path, "lab", environ or {}, overrides, host)

    def problems(
        self, environ: Mapping[str, str] | None = None, host: HostFacts = HOST
    ) -> tuple[Problem, ...]:
        """What is wrong with the lab's configuration."""
        with pytest.raises(ConfigError) as caught:
            self.load(environ, host=host)
        return caught.value.problems

    def problem(self, environ: Mapping[str, str] | None = None, host: HostFacts = HOST) -> Problem:
        """The one thing that is wrong."""
        (problem,) = self.problems(environ, host)
        return problem


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    """An empty configuration directory, with two empty tiers written."""
    made = Directory(tmp_path / "etc")
    made.path.mkdir()
    made.write()
    return made
