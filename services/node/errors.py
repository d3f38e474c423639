"""What can go wrong before the tree of the node runs; every message says what to do next."""

from __future__ import annotations

from typing import ClassVar

from protocol.errors import NovacronError


class PreflightError(NovacronError):
    """The host, or what the configuration asks of it, does not let the node start.

    The caller ends with exit code 1.
    """

    code: ClassVar[str] = "node.preflight"


class StateDirectoryError(PreflightError):
    """The state directory can't be used; an operator repairs it or names another one."""

    code: ClassVar[str] = "node.state_directory"


class ReadOnlyError(StateDirectoryError):
    """A directory of the node is on a filesystem that is mounted read-only."""

    code: ClassVar[str] = "node.read_only"


class DiskFullError(StateDirectoryError):
    """There is no space left where the node keeps its state."""

    code: ClassVar[str] = "node.disk_full"


class StateFormatError(StateDirectoryError):
    """A program that this one does not know wrote the state directory; nothing was changed."""

    code: ClassVar[str] = "node.state_format"


class NodeRunningError(StateDirectoryError):
    """Another node runs on the state directory; it may succeed once that one is gone."""

    code: ClassVar[str] = "node.already_running"
    retryable: ClassVar[bool] = True


class ServiceUserError(PreflightError):
    """The account that the embedded servers run as does not exist, or can't be used."""

    code: ClassVar[str] = "node.service_user"
