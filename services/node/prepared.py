"""What the configuration means for the node, read in a process of its own.

Reading needs libraries that weigh more than the whole root supervisor and that nothing else in
it needs. So a process that ends afterwards reads, and what comes back is plain: the specification
of the tree, and what the root itself has to know. At the start that process is forked; for a
reload a fresh interpreter is executed, since by then the root has threads, and the root goes on
with its own work meanwhile.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import multiprocess

from protocol import codec
from protocol.errors import NovacronError
from protocol.records import from_wire, to_wire
from supervisor.core.spec import SupervisorSpec
from supervisor.runtime.root import Reloaded

# What the state directory, the run directory and the root itself were made from.
FIXED_KEYS = frozenset(
    (
        "environment",
        "database.mode",
        "platform.name",
        "platform.version",
        "platform.nodeId",
        "platform.roles",
        "system.dataDir",
        "system.logDir",
        "system.logLevel",
        "system.serviceUser",
        "system.group",
        "system.shutdownTimeout",
        "security.zeroTrust.continuousAuth",
        "security.zeroTrust.maxTrustDuration",
    )
)
_READ_BYTES = 1 << 16
_STOP_LOOK_S = 0.1
_STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT}


class ConfigurationError(NovacronError):
    """The configuration can't be used; the message is for the operator, one line per problem."""

    code: ClassVar[str] = "node.configuration"


class StoppedError(NovacronError):
    """Somebody wants the node to stop before it has read its configuration."""

    code: ClassVar[str] = "node.stopped"


class FixedKeyError(NovacronError):
    """A reload changes what only a new start can change; everything stays as it was."""

    code: ClassVar[str] = "node.fixed_key"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The command line of ``novacron run``; None or empty where a flag was not given."""

    config_dir: str | None = None
    environment: str | None = None
    state_dir: str | None = None
    roles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Listener:
    """Where a part of the node listens."""

    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """The configuration as the root needs it.

    Attributes:
        spec: the root's children, their settings included; holds secrets.
        digests: a hash of each value by dotted key, to tell what a reload changes.
        listeners: by the configuration key of the port.
        policy: compiled and encoded.
        identity_s: life of the keys that processes call with.
        notes: remarks for the operator.
    """

    spec: SupervisorSpec
    digests: dict[str, str]
    name: str
    node_id: str
    environment: str
    roles: tuple[str, ...]
    state_dir: str
    log_dir: str
    log_level: str
    group: str
    service_user: str
    embedded: bool
    shutdown_timeout_s: float
    listeners: dict[str, Listener]
    policy: bytes
    identity_s: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What the reading process says: one of the two."""

    prepared: Prepared | None = None
    problem: str = field(default="")


def read_in_fork(options: RunOptions) -> Prepared:
    """Read the configuration; for a process that has no threads yet, and blocks its signals.

    Raises:
        ConfigurationError: it can't be used.
        StoppedError: SIGTERM or SIGINT came meanwhile; a provider of secrets may take long.
    """
    read, write = os.pipe()
    process = multiprocess.get_context("fork").Process(
        target=_answer_in_fork, args=(options, read, write)
    )
    process.start()
    os.close(write)
    try:
        data = _read_unless_stopped(read)
    except StoppedError:
        process.kill()
        raise
    finally:
        os.close(read)
        process.join()
    return _understand(data)


class Reloader:
    """Reads the configuration again, without waiting.

    Args:
        options: the command line that the node was started with.
        prepared: what was read last.
    """

    def __init__(self, options: RunOptions, prepared: Prepared) -> None:
        self._options = options
        self._prepared = prepared
        self._process: subprocess.Popen[bytes] | None = None
        self._data = bytearray()

    def start(self) -> int | None:
        """Begin to read; returns the descriptor to watch, or None when that is under way."""
        if self._process is not None:
            return None
        self._data.clear()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-m", "services.node.prepare"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(codec.encode(to_wire(self._options)))
        self._process.stdin.close()
        os.set_blocking(self._process.stdout.fileno(), False)
        return self._process.stdout.fileno()

    def take(self) -> Reloaded | None:
        """Take in what can be read; the result once it is complete, None until then.

        Raises:
            ConfigurationError: the configuration can't be used.
            FixedKeyError: it changes what can't change while the node runs.
        """
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            chunk = os.read(self._process.stdout.fileno(), _READ_BYTES)
        except BlockingIOError:
            return None
        if chunk:
            self._data += chunk
            return None
        self._process.stdout.close()
        self._process.poll()
        self._process = None
        return self._judge(_understand(bytes(self._data)))

    def _judge(self, prepared: Prepared) -> Reloaded:
        changed = _changes(self._prepared.digests, prepared.digests)
        if fixed := [key for key in changed if key in FIXED_KEYS]:
            raise FixedKeyError(
                f"{', '.join(fixed)} can't change while the node runs: stop and start it"
            )
        self._prepared = prepared
        return Reloaded(spec=prepared.spec, changed=changed, policy=prepared.policy)


def _changes(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(key for key in new if old.get(key) != new[key])


def _answer_in_fork(options: RunOptions, read: int, write: int) -> None:
    from services.node import prepare

    os.close(read)
    with os.fdopen(write, "wb") as answer:
        answer.write(prepare.answer(options))
    os._exit(0)


def _read_unless_stopped(descriptor: int) -> bytes:
    data = bytearray()
    while True:
        if select.select([descriptor], [], [], _STOP_LOOK_S)[0]:
            chunk = os.read(descriptor, _READ_BYTES)
            if not chunk:
                return bytes(data)
            data += chunk
        elif signal.sigpending() & _STOP_SIGNALS:
            raise StoppedError("stopped while the configuration was read")


def _understand(data: bytes) -> Prepared:
    if not data:
        raise ConfigurationError("the process that reads the configuration ended without a word")
    answer = from_wire(Answer, codec.decode(data))
    if answer.prepared is None:
        raise ConfigurationError(answer.problem)
    return answer.prepared
