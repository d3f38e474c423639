"""The configuration of the embedded servers, as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from services.data.model import EmbeddedPostgresSettings, EmbeddedRedisSettings

_MAP = "novacron"
_HEADER = "# Generated at each start; changes are lost.\n"


# Given on the command line too, where ALTER SYSTEM does not reach: an appliance loses power.
DURABLE: Mapping[str, str] = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}


def postgres_options(settings: EmbeddedPostgresSettings) -> Mapping[str, str | int]:
    """PostgreSQL's options: durable, quick to start, small, and reachable by the socket only."""
    return {
        "listen_addresses": "",
        "port": settings.port,
        "unix_socket_directories": settings.socket_dir,
        "unix_socket_permissions": "0770",
        "max_connections": settings.connections_max,
        "hba_file": f"{settings.directory}/pg_hba.conf",
        "ident_file": f"{settings.directory}/pg_ident.conf",
        **DURABLE,
        # Room for one pg_basebackup.
        "wal_level": "replica",
        "max_wal_senders": 2,
        "min_wal_size": "32MB",
        "max_wal_size": "256MB",
        # Small, and few processes beside the connections'.
        "shared_buffers": f"{settings.shared_buffers_mib}MB",
        "huge_pages": "off",
        "jit": "off",
        "max_worker_processes": 2,
        "max_parallel_workers": 0,
        "max_logical_replication_workers": 0,
        "autovacuum_naptime": "5min",
        "bgwriter_delay": "1s",
        # The supervisor keeps what goes to stderr. Errors are told apart by English text.
        "log_destination": "stderr",
        "logging_collector": "off",
        "log_min_messages": "warning",
        "log_checkpoints": "off",
        "log_line_prefix": "%m [%p] ",
        "lc_messages": "C.UTF-8",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "cluster_name": "novacron",
    }


def postgres_conf(options: Mapping[str, str | int]) -> str:
    """``postgresql.conf``; text values are quoted, a quote in them doubled."""
    lines = (
        f"{name} = {value}" if isinstance(value, int) else f"{name} = {_quoted(value)}"
        for name, value in options.items()
    )
    return _HEADER + "\n".join(lines) + "\n"


def pg_hba() -> str:
    """``pg_hba.conf``: the socket's peer, mapped by ``pg_ident.conf``, and nobody else."""
    rules = (f"local {what:12} all peer map={_MAP}" for what in ("all", "replication"))
    return _HEADER + "\n".join(rules) + "\n"


def pg_ident(users: Iterable[str], role: str) -> str:
    """``pg_ident.conf``: the accounts of the system that may be ``role``."""
    lines = (f'{_MAP} "{user}" "{role}"' for user in dict.fromkeys(users))
    return _HEADER + "\n".join(lines) + "\n"


def redis_arguments(settings: EmbeddedRedisSettings) -> tuple[str, ...]:
    """Redis's options: a cache that may be lost, on a socket only."""
    options = {
        "port": "0",
        "unixsocket": settings.socket,
        "unixsocketperm": "770",
        "dir": settings.directory,
        "save": "",
        "appendonly": "no",
        "maxmemory": f"{settings.memory_max_mib}mb",
        "maxmemory-policy": "allkeys-lru",
        "supervised": "systemd",  # says READY=1
        "daemonize": "no",
        "logfile": "",
        "loglevel": "warning",
        "always-show-logo": "no",
    }
    return tuple(part for name, value in options.items() for part in (f"--{name}", value))


def socket_file(socket_dir: str, port: int) -> Path:
    """The file of PostgreSQL's socket."""
    return Path(socket_dir) / f".s.PGSQL.{port}"


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
