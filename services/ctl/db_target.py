"""Which database a node's configuration means, and a server that answers for it."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from protocol.records import Plain, from_wire
from services.config import loader, locate
from services.config.kinds import DatabaseMode
from services.ctl.errors import CtlError, NotRunningError, denied, is_denial
from services.ctl.session import Session
from services.data import addressing
from services.data.backup.temporary import running_server
from services.data.model import PostgresSettings
from services.node import lock
from services.node.errors import NodeRunningError


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The database of a node.

    Attributes:
        node_id: the node.
        settings: how its processes reach the database.
        embedded: settings of the server that the node runs; None where it runs none.
        server_user: account of that server; "" for our own.
        state_dir: of the node.
    """

    node_id: str
    settings: PostgresSettings
    embedded: dict[str, Plain] | None
    server_user: str
    state_dir: Path


def find(session: Session) -> Target:
    """Read the node's configuration as ``novacron run`` does.

    Raises:
        ConfigError: it is not valid; exit code 2.
    """
    directory = locate.config_dir(session.config_dir, os.environ)
    overrides = locate.state_dir_override(session.state_dir_flag)
    config = loader.load(directory, session.environment, os.environ, overrides).config
    run_dir = session.run_dir
    is_embedded = config.database.mode is DatabaseMode.EMBEDDED
    state_dir = config.system.data_dir
    embedded = addressing.embedded_settings(
        config,
        state_dir=state_dir,
        run_dir=run_dir,
        node_user=pwd.getpwuid(os.geteuid()).pw_name,
    )
    return Target(
        node_id=config.platform.node_id,
        settings=from_wire(PostgresSettings, addressing.postgres_settings(config, run_dir)),
        embedded=embedded if is_embedded else None,
        server_user=config.system.service_user if os.geteuid() == 0 else "",
        state_dir=state_dir,
    )


@contextlib.contextmanager
def reachable(target: Target, *, may_start: bool) -> Iterator[PostgresSettings]:
    """The settings of a server that runs, for the time of the block.

    Args:
        target: the database.
        may_start: run the embedded server where the node, which would, does not run. The node
            can't start meanwhile.

    Raises:
        NotRunningError: the embedded server does not run and may not be started.
        DeniedError: only the node's account may start it.
    """
    if target.embedded is None:
        yield target.settings
        return
    held = _lock(target.state_dir)
    if held is None:
        yield target.settings
        return
    try:
        if not may_start:
            raise NotRunningError(
                f"no node runs in {target.state_dir}, and its PostgreSQL runs with the node"
            )
        with running_server(target.settings, target.embedded, user=target.server_user) as settings:
            yield settings
    finally:
        os.close(held)


def _lock(state_dir: Path) -> int | None:
    """The node's lock; None when a node has it."""
    file = state_dir / lock.NAME
    try:
        return lock.acquire(file, timeout_s=0.0)
    except NodeRunningError:
        return None
    except FileNotFoundError:
        raise NotRunningError(f"there is no node in {state_dir}: start it once first") from None
    except OSError as exc:
        if is_denial(exc):
            raise denied(file) from exc
        raise CtlError(f"can't use {file}: {exc.strerror}") from exc
