"""Every configuration key: its type, range, built-in default and meaning.

Attributes are snake_case; files and errors use the camelCase keys. A section of the files is a
section here, and ``config.dwcp.transport.max_streams`` is ``dwcp.transport.maxStreams``. What
values must fulfil together stands in services.config.rules.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from protocol.messages.access import Role as AccessRole
from protocol.records import Plain
from services.config.kinds import (
    AccountName,
    BridgeName,
    CorsOrigin,
    DatabaseMode,
    DatabaseName,
    Directory,
    Distinct,
    Duration,
    EncryptionAlgorithm,
    EnvironmentName,
    FencedGuests,
    File,
    Host,
    InterfaceAddress,
    LibvirtUri,
    LogLevel,
    MasterKeySource,
    MigrationUri,
    NodeAddress,
    NodeId,
    Password,
    PlatformName,
    Port,
    RedisUser,
    Role,
    Section,
    ServerHost,
    SslMode,
    Switch,
    Version,
    Whole,
)
from services.config.model_dwcp import Dwcp
from services.config.model_secrets import Secrets


class Platform(Section):
    """What this node is."""

    name: PlatformName = Field(
        default="NovaCron", description="Name of the platform in status screens and answers."
    )
    version: Version = Field(
        default="1.0.0", description="Version of the platform that answers state."
    )
    node_id: NodeId = Field(
        default="node-001", description="Name of this host among the platform's hosts; unique."
    )
    roles: Annotated[tuple[Role, ...], Distinct] = Field(
        default=(Role.BACKEND, Role.ORCHESTRATION),
        min_length=1,
        description="Halves of the platform that this node runs.",
    )


class System(Section):
    """The node as a process on its host."""

    data_dir: Directory = Field(
        default=Path("/var/lib/novacron"), description="State directory; one node each."
    )
    log_dir: Directory | None = Field(
        default=None,
        description="Directory of the log files; null for logs in the state directory.",
    )
    log_level: LogLevel = Field(
        default=LogLevel.INFO, description="Least severe event that is logged."
    )
    max_concurrency: Whole = Field(
        default=4, ge=1, le=64, description="Components started at the same time within a phase."
    )
    shutdown_timeout: Duration = Field(
        default=30.0, ge=1, le=3600, description="Time in which the whole tree stops."
    )
    service_user: AccountName = Field(
        default="novacron-data",
        description="Account of PostgreSQL and Redis where root runs the node; not in the group.",
    )
    group: AccountName = Field(
        default="novacron", description="Group whose members may use the control socket."
    )

    @property
    def log_path(self) -> Path:
        """The directory of the log files, with the default filled in."""
        return self.log_dir or self.data_dir / "logs"


class Postgres(Section):
    """The PostgreSQL connection."""

    host: ServerHost = Field(
        default="localhost",
        description="Server, or its socket directory; unused in the embedded mode.",
    )
    port: Port = Field(default=5432, description="Port of the server.")
    database: DatabaseName = Field(default="novacron", description="Database of the platform.")
    user: DatabaseName = Field(default="novacron", description="Role to connect as.")
    password: Password | None = Field(
        default=None, description="Password of the role; null for peer or certificate login."
    )
    pool_size: Whole = Field(
        default=20, ge=1, le=1000, description="Most connections at the same time."
    )
    max_idle_conns: Whole = Field(
        default=5, ge=0, le=1000, description="Connections that are kept open while idle."
    )
    conn_max_lifetime: Duration = Field(
        default=3600.0, ge=1, le=604800, description="Age at which a connection is replaced."
    )
    ssl_mode: SslMode = Field(default=SslMode.REQUIRE, description="How far TLS is required.")
    ssl_root_cert: File | None = Field(
        default=None,
        description="PEM file of the authorities that the server's certificate may come from.",
    )
    ssl_cert: File | None = Field(
        default=None, description="PEM file of the node's own certificate, for certificate login."
    )
    ssl_key: File | None = Field(
        default=None, description="PEM file of its key, which nobody but its owner may read."
    )
    connect_timeout: Duration = Field(
        default=5.0, ge=0.1, le=300, description="Time for one attempt to connect."
    )
    statement_timeout: Duration = Field(
        default=30.0, ge=1, le=3600, description="Time after which the server ends a statement."
    )
    lock_timeout: Duration = Field(
        default=10.0, ge=0.1, le=3600, description="Time a statement waits for other transactions."
    )
    idle_in_transaction_timeout: Duration = Field(
        default=60.0,
        ge=1,
        le=3600,
        description="Time after which the server ends a transaction that does nothing.",
    )


class RedisTls(Section):
    """TLS to Redis."""

    enabled: Switch = Field(
        default=False, description="Speak TLS, with a server whose certificate is in order, only."
    )
    ca_file: File | None = Field(
        default=None,
        description="PEM file of the authorities that it may come from; null for the system's.",
    )
    check_host: Switch = Field(
        default=True, description="Require that the certificate names the host."
    )
    cert_file: File | None = Field(
        default=None, description="PEM file of the node's own certificate, where Redis wants one."
    )
    key_file: File | None = Field(
        default=None, description="PEM file of its key, which nobody but its owner may read."
    )


class Redis(Section):
    """The Redis connection."""

    host: Host = Field(default="localhost", description="Server; unused in the embedded mode.")
    port: Port = Field(default=6379, description="Port of the server.")
    user: RedisUser | None = Field(
        default=None, description="ACL user to log in as; null for the default user."
    )
    password: Password | None = Field(
        default=None, description="Password of the user, or of the server; null for none."
    )
    database: Whole = Field(default=0, ge=0, le=15, description="Number of the database.")
    pool_size: Whole = Field(
        default=10, ge=1, le=1000, description="Most connections at the same time."
    )
    tls: RedisTls = RedisTls()


class Database(Section):
    """The servers that hold the node's data."""

    mode: DatabaseMode = Field(
        default=DatabaseMode.EXTERNAL,
        description="Servers elsewhere, or run by the node on Unix sockets.",
    )
    postgres: Postgres = Postgres()
    redis: Redis = Redis()


class ZeroTrust(Section):
    """Authentication inside the platform."""

    enabled: Switch = Field(
        default=True, description="Refuse calls between parts that no policy allows."
    )
    continuous_auth: Switch = Field(
        default=True, description="Check sessions again while they last."
    )
    max_trust_duration: Duration = Field(
        default=14400.0, ge=60, le=604800, description="Age at which a session between parts ends."
    )
    policy_file: File | None = Field(
        default=None, description="Who may call what; null for policy.yaml beside this file."
    )


class Encryption(Section):
    """Keys and ciphers."""

    algorithm: EncryptionAlgorithm = Field(
        default=EncryptionAlgorithm.AES_256_GCM, description="Cipher for keys and data."
    )
    key_rotation_interval: Duration = Field(
        default=86400.0, ge=3600, le=31536000, description="Age at which a data key is replaced."
    )
    master_key: MasterKeySource = Field(
        default="file", description="Where the key that wraps the data keys comes from."
    )


class Audit(Section):
    """The record of what was done."""

    enabled: Switch = Field(default=True, description="Write the audit record.")
    retention_days: Whole = Field(
        default=90, ge=1, le=3650, description="Days for which audit records are kept."
    )
    checkpoint_dir: Directory | None = Field(
        default=None,
        description="Directory for a further copy of the signed checkpoints, such as another "
        "host's; null for none.",
    )
    checkpoint_syslog: Switch = Field(
        default=False, description="Write each signed checkpoint to the system's log too."
    )


class Security(Section):
    """Who may do what, and what is sealed."""

    zero_trust: ZeroTrust = ZeroTrust()
    encryption: Encryption = Encryption()
    audit: Audit = Audit()
    secrets: Secrets = Secrets()


class Cors(Section):
    """Browsers of other origins."""

    enabled: Switch = Field(default=True, description="Let web sites of other origins use the API.")
    allowed_origins: Annotated[tuple[CorsOrigin, ...], Distinct] = Field(
        default=("https://app.novacron.io",),
        max_length=64,
        description="The origins that may.",
    )


class RateLimit(Section):
    """The limit per client of the API."""

    enabled: Switch = Field(default=True, description="Limit the requests of a client.")
    requests_per_minute: Whole = Field(
        default=1000, ge=1, le=1000000, description="Requests of one client in a minute."
    )


class ApiTls(Section):
    """TLS of the API, and the certificates of its clients."""

    cert_file: File | None = Field(
        default=None, description="PEM file of the certificate with its chain; null for plain HTTP."
    )
    key_file: File | None = Field(
        default=None, description="PEM file of its key, which nobody but its owner may read."
    )
    client_ca_file: File | None = Field(
        default=None,
        description="PEM file of the authorities whose client certificates are identities.",
    )


class ApiAuth(Section):
    """Who may use the API without saying who they are."""

    anonymous_role: AccessRole | None = Field(
        default=None,
        description="What users of this host may do without a token; null for nothing.",
    )


class Api(Section):
    """The HTTP API."""

    host: Host = Field(default="127.0.0.1", description="Address to listen on.")
    port: Port = Field(default=8080, description="Port to listen on.")
    tls: ApiTls = ApiTls()
    auth: ApiAuth = ApiAuth()
    cors: Cors = Cors()
    rate_limit: RateLimit = RateLimit()


class Monitoring(Section):
    """Metrics and health over HTTP."""

    host: Host = Field(default="127.0.0.1", description="Address to listen on.")
    metrics_port: Port = Field(default=9090, description="Port of the Prometheus metrics.")
    health_check_port: Port = Field(default=8081, description="Port of the health endpoints.")
    prometheus_enabled: Switch = Field(default=True, description="Serve the metrics.")


class Bridge(Section):
    """The node's own bridge."""

    enabled: Switch = Field(default=True, description="Keep a bridge of the node's own.")
    name: BridgeName = Field(default="novacron0", description="Interface name of the bridge.")
    address: InterfaceAddress | None = Field(
        default=None, description="Address of the bridge; null for none."
    )


class Network(Section):
    """Links of the host."""

    bridge: Bridge = Bridge()


class Autostart(Section):
    """Machines that start with the host."""

    enabled: Switch = Field(
        default=True,
        description="Start machines whose documents say so, once per boot of the host.",
    )
    parallel: Whole = Field(
        default=2, ge=1, le=64, description="Machines of one priority that are started at once."
    )
    delay: Duration = Field(default=1.0, ge=0.1, le=60, description="Time between two starts.")


class Migration(Section):
    """Moving machines to other nodes."""

    uri: MigrationUri = Field(
        default="qemu+tls://{host}/system",
        description="Another node's hypervisor, as this node and its libvirtd reach it.",
    )
    addresses: Annotated[tuple[NodeAddress, ...], Distinct] = Field(
        default=(),
        max_length=256,
        description="Addresses of nodes whose names are not their hosts'.",
    )
    plain_streams: Switch = Field(
        default=False,
        description="Send memory and disks unencrypted, on a network that nobody else hears.",
    )


class Vm(Section):
    """Virtual machines."""

    libvirt_uri: LibvirtUri = Field(
        default="qemu:///system", description="Hypervisor to connect to."
    )
    image_dirs: Annotated[tuple[Directory, ...], Distinct] = Field(
        default=(Path("/var/lib/libvirt/images"),),
        max_length=16,
        description="Where images may be, beside <dataDir>/images.",
    )
    lease_ttl: Duration = Field(
        default=60.0,
        ge=10,
        le=3600,
        description="How long a node that is not heard of counts as running its machines.",
    )
    fenced_guests: FencedGuests = Field(
        default=FencedGuests.PAUSE,
        description="What is done to a machine that another node has taken over while it ran here.",
    )
    autostart: Autostart = Autostart()
    migration: Migration = Migration()


class Workload(Section):
    """Samples of the host's and the machines' load."""

    enabled: Switch = Field(
        default=True, description="Sample the load of the host and its machines."
    )
    sample_interval: Duration = Field(
        default=10.0, ge=1, le=3600, description="Time between two samples."
    )


class OptionalServices(Section):
    """Parts without which the node works."""

    workload: Workload = Workload()


class Config(Section):
    """The whole configuration of a node."""

    environment: EnvironmentName = Field(
        default="production", description="Name of the environment; chooses the second file."
    )
    platform: Platform = Platform()
    system: System = System()
    database: Database = Database()
    dwcp: Dwcp = Dwcp()
    security: Security = Security()
    api: Api = Api()
    monitoring: Monitoring = Monitoring()
    network: Network = Network()
    vm: Vm = Vm()
    optional: OptionalServices = OptionalServices()

    def secrets_masked(self) -> dict[str, Plain]:
        """The configuration as a file would have it, with secrets masked."""
        return self.model_dump(mode="json", by_alias=True)
