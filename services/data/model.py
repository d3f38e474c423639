"""The settings of the data level's processes, as the tree builder hands them over.

Every record is parsed from plain values with ``protocol.records.from_wire``. Durations are
seconds. A host that begins with ``/`` is a path: PostgreSQL's socket directory, Redis's socket.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresSettings:
    """How to reach PostgreSQL.

    Attributes:
        host: host name, address or socket directory.
        port: also part of the socket's file name, ``.s.PGSQL.<port>``.
        database, user: names.
        password: "" for none.
        pool_size: connections in all, the one that watches the server included.
        max_idle_conns: connections that stay open while there is nothing to do.
        conn_max_lifetime_s: a connection older than this is replaced when it is free.
        ssl_mode: libpq's sslmode; libpq ignores it on Unix sockets.
        ssl_root_cert, ssl_cert, ssl_key: PEM files: whom the server's certificate must come
            from, and our own certificate with its key; "" for libpq's own places.
        connect_timeout_s: for one attempt.
        statement_timeout_s: the server ends a statement that takes longer.
        lock_timeout_s: the server ends one that waits longer for another transaction.
        idle_in_transaction_timeout_s: the server ends the connection of a transaction that does
            nothing for so long.
        retry_attempts, retry_initial_s: attempts in all, and the pause after the first failed
            one, which doubles from one to the next.
        create_database: make the database if the server has none of that name; embedded only.
    """

    host: str
    port: int = 5432
    database: str = "novacron"
    user: str = "novacron"
    password: str = field(default="", repr=False)
    pool_size: int = 20
    max_idle_conns: int = 5
    conn_max_lifetime_s: float = 3600.0
    ssl_mode: str = "require"
    ssl_root_cert: str = ""
    ssl_cert: str = ""
    ssl_key: str = ""
    connect_timeout_s: float = 5.0
    statement_timeout_s: float = 30.0
    lock_timeout_s: float = 10.0
    idle_in_transaction_timeout_s: float = 60.0
    retry_attempts: int = 5
    retry_initial_s: float = 2.0
    create_database: bool = False

    def __post_init__(self) -> None:
        if self.pool_size < 1 or self.max_idle_conns < 0 or self.retry_attempts < 1:
            raise ValueError("pool_size and retry_attempts are at least 1, max_idle_conns 0")
        limits = (self.statement_timeout_s, self.lock_timeout_s, self.idle_in_transaction_timeout_s)
        if min(limits) < 0.001:  # PostgreSQL takes 0 as no limit at all
            raise ValueError("the server's time limits are at least a millisecond")

    @property
    def is_local(self) -> bool:
        """Whether the server is reached by a socket of this host."""
        return self.host.startswith("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSettings:
    """What the process ``data/database`` is told.

    Attributes:
        node_id: whose rows it writes.
        environment, roles: of the node, for the table of nodes.
        postgres: how to reach the server.
        checkpoint_bytes_max: the largest state that a component may save.
        operation_timeout_s: one statement, or the wait for a free connection.
        check_timeout_s: how long the health probe may take.
        lease_s: a node that has not renewed its row for so long is taken for gone.
    """

    node_id: str
    postgres: PostgresSettings
    environment: str = ""
    roles: tuple[str, ...] = ()
    checkpoint_bytes_max: int = 256 * 1024
    operation_timeout_s: float = 10.0
    check_timeout_s: float = 2.0
    lease_s: float = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisTlsSettings:
    """TLS to Redis; PEM files, "" for none.

    Attributes:
        ca_file: whom the server's certificate must come from; "" for the system's authorities.
        check_host: the certificate must name the host.
        cert_file, key_file: our own certificate and its key.
    """

    ca_file: str = ""
    check_host: bool = True
    cert_file: str = ""
    key_file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisSettings:
    """How to reach Redis.

    Attributes:
        host: host name, address or path of the socket.
        port: unused with a socket.
        user: of Redis's ACL; "" for the default user.
        password: "" for none.
        tls: None to speak in the clear, as on a socket.
        database: number of the logical database.
        pool_size: most connections at once.
        connect_timeout_s: for one attempt.
        timeout_s: for one command; a cache that takes longer is worse than none.
        ping_period_s: how often an idle connection is tried.
        retry_initial_s, retry_max_s: pauses between attempts while it is gone, doubling.
    """

    host: str = "localhost"
    port: int = 6379
    user: str = ""
    password: str = field(default="", repr=False)
    tls: RedisTlsSettings | None = None
    database: int = 0
    pool_size: int = 10
    connect_timeout_s: float = 1.0
    timeout_s: float = 0.5
    ping_period_s: float = 5.0
    retry_initial_s: float = 0.25
    retry_max_s: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSettings:
    """What the process ``data/cache`` is told: the node, and how to reach Redis."""

    node_id: str
    redis: RedisSettings = field(default_factory=RedisSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedPostgresSettings:
    """What ``prepare_postgres`` is told.

    Attributes:
        directory: holds the data directory ``data`` and the generated configuration; owned by
            the account that runs the server, or missing below a directory that it may write.
        socket_dir: where the socket is made; the same holds.
        users: further accounts of the system that may log in as ``role`` without a password,
            such as root where the node runs as root.
        role: the database role.
        port: names the socket, ``.s.PGSQL.<port>``.
        connections_max: for all processes of the node together.
        shared_buffers_mib: memory for table pages.
    """

    directory: str
    socket_dir: str
    users: tuple[str, ...] = ()
    role: str = "novacron"
    port: int = 5432
    connections_max: int = 50
    shared_buffers_mib: int = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedRedisSettings:
    """What ``prepare_redis`` is told: its directory, its socket and its memory in MiB."""

    directory: str
    socket: str
    memory_max_mib: int = 64
