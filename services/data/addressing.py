"""Where a node's PostgreSQL and Redis are, from its configuration: for the tree and others."""

from __future__ import annotations

from pathlib import Path

from protocol.records import Plain
from services.config.kinds import DatabaseMode
from services.config.model import Config

SOCKET_DIR = "pg"
# Names the socket of the embedded server; nothing listens on it as a port.
EMBEDDED_PORT = 5432


def postgres_settings(config: Config, run_dir: Path) -> dict[str, Plain]:
    """``PostgresSettings`` as plain values.

    Args:
        config: of the node.
        run_dir: its run directory, where the embedded server's socket is.
    """
    postgres = config.database.postgres
    is_embedded = config.database.mode is DatabaseMode.EMBEDDED
    return {
        "host": str(run_dir / SOCKET_DIR) if is_embedded else postgres.host,
        "port": EMBEDDED_PORT if is_embedded else postgres.port,
        "database": postgres.database,
        "user": postgres.user,
        "password": "" if postgres.password is None else postgres.password.get_secret_value(),
        "pool_size": postgres.pool_size,
        "max_idle_conns": postgres.max_idle_conns,
        "conn_max_lifetime_s": postgres.conn_max_lifetime,
        "ssl_mode": postgres.ssl_mode.value,
        "ssl_root_cert": _text(postgres.ssl_root_cert),
        "ssl_cert": _text(postgres.ssl_cert),
        "ssl_key": _text(postgres.ssl_key),
        "connect_timeout_s": postgres.connect_timeout,
        "statement_timeout_s": postgres.statement_timeout,
        "lock_timeout_s": postgres.lock_timeout,
        "idle_in_transaction_timeout_s": postgres.idle_in_transaction_timeout,
        "create_database": is_embedded,
    }


def redis_settings(config: Config, embedded_socket: Path) -> dict[str, Plain]:
    """``RedisSettings`` as plain values.

    Args:
        config: of the node.
        embedded_socket: where the embedded server's socket is.
    """
    redis, tls = config.database.redis, config.database.redis.tls
    is_embedded = config.database.mode is DatabaseMode.EMBEDDED
    settings: dict[str, Plain] = {
        "host": str(embedded_socket) if is_embedded else redis.host,
        "port": redis.port,
        "user": redis.user or "",
        "password": "" if redis.password is None else redis.password.get_secret_value(),
        "database": redis.database,
        "pool_size": redis.pool_size,
    }
    if tls.enabled:
        settings["tls"] = {
            "ca_file": _text(tls.ca_file),
            "check_host": tls.check_host,
            "cert_file": _text(tls.cert_file),
            "key_file": _text(tls.key_file),
        }
    return settings


def embedded_settings(
    config: Config, *, state_dir: Path, run_dir: Path, node_user: str
) -> dict[str, Plain]:
    """The settings of the embedded server, ``EmbeddedPostgresSettings``, as plain values.

    Args:
        config: of the node.
        state_dir: its state directory.
        run_dir: its run directory.
        node_user: the account that the node runs as.
    """
    return {
        "directory": str(state_dir / "postgres"),
        "socket_dir": str(run_dir / SOCKET_DIR),
        "users": [node_user],
        "role": config.database.postgres.user,
        # Each process of the node has a pool of its own or a connection; few fill it.
        "connections_max": config.database.postgres.pool_size + 30,
    }


def _text(path: Path | None) -> str:
    return "" if path is None else str(path)
