"""The types of configuration values, and the sentence that says what each expects.

Scalars are strict: ``"5432"`` is no number and ``1`` is no ``true``. Texts from variables and
references are turned into numbers before (services.config.convert), with the same strictness.
"""

import enum
import os.path
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    Strict,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel

from services.config.durations import DURATION_PATTERN, EXAMPLES, format_duration, parse_duration

_T = TypeVar("_T")

# RFC 1035 section 2.3.4; underscores are none of DNS's, but container networks use them.
_HOST_NAME_MAX = 253
_HOST_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")
_CORS_ORIGIN = re.compile(r"https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?")
_BRIDGE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}")
_LIBVIRT_URI = re.compile(r"[a-z]+(\+[a-z]+)?://[^\s]*")


class Section(BaseModel):
    """The base of every section: no unknown keys, no change after loading."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=to_camel,
        populate_by_name=True,
    )


@dataclass(frozen=True, slots=True)
class Expected:
    """What a value should be, for the operator; where the type alone does not say it."""

    text: str


class Role(enum.Enum):
    """Which half of the platform a node runs."""

    BACKEND = "backend"
    ORCHESTRATION = "orchestration"


class LogLevel(enum.Enum):
    """The least severe event that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class DatabaseMode(enum.Enum):
    """Whether the node runs PostgreSQL and Redis itself."""

    EMBEDDED = "embedded"
    EXTERNAL = "external"


class SslMode(enum.Enum):
    """libpq's sslmode."""

    DISABLE = "disable"
    ALLOW = "allow"
    PREFER = "prefer"
    REQUIRE = "require"
    VERIFY_CA = "verify-ca"
    VERIFY_FULL = "verify-full"


class CongestionAlgorithm(enum.Enum):
    """TCP congestion control of the DWCP sockets."""

    BBR = "bbr"
    CUBIC = "cubic"
    RENO = "reno"


class CompressionAlgorithm(enum.Enum):
    """How DWCP compresses."""

    ZSTD = "zstd"


class CompressionLevel(enum.Enum):
    """How much time DWCP spends on compression."""

    FAST = "fast"
    BALANCED = "balanced"
    BEST = "best"


class PredictionModel(enum.Enum):
    """How bandwidth is predicted."""

    LSTM = "lstm"


class ConsensusAlgorithm(enum.Enum):
    """How hosts agree."""

    RAFT = "raft"
    GOSSIP = "gossip"
    BYZANTINE = "byzantine"


class FencedGuests(enum.Enum):
    """What is done to a machine that another node has taken over while it ran here."""

    PAUSE = "pause"
    DESTROY = "destroy"
    REPORT = "report"


class EncryptionAlgorithm(enum.Enum):
    """How data at rest and chunks in flight are sealed."""

    AES_256_GCM = "AES-256-GCM"


def _duration(value: object) -> float:
    if not isinstance(value, str):
        raise ValueError("a duration is a text with its unit")
    return parse_duration(value)


def _is_address(family: socket.AddressFamily, text: str) -> bool:
    try:
        socket.inet_pton(family, text)
    except OSError:
        return False
    return True


def _host(text: str) -> str:
    if ":" in text:
        is_host = _is_address(socket.AF_INET6, text)
    elif text.replace(".", "").isdigit():
        is_host = _is_address(socket.AF_INET, text)
    else:
        labels = text.removesuffix(".").split(".")
        is_host = len(text) <= _HOST_NAME_MAX and all(map(_HOST_LABEL.fullmatch, labels))
    if not is_host:
        raise ValueError("no host")
    return text


def _server_host(text: str) -> str:
    return text if text.startswith("/") else _host(text)


def _directory(value: object) -> Path:
    if not isinstance(value, str | Path) or not str(value).startswith("/") or "\0" in str(value):
        raise ValueError("no absolute path")
    path = Path(os.path.normpath(value))
    if path == Path("/"):
        raise ValueError("the root directory")
    return path


def _master_key_source(value: str) -> str:
    kind, _, name = value.partition(":")
    is_credential = kind == "credential" and name and "/" not in name and name[0] != "."
    if value == "file" or is_credential or (kind == "secret" and all(name.partition("/"))):
        return value
    raise ValueError("no source of a master key")


def _cors_origin(text: str) -> str:
    if text != "*" and _CORS_ORIGIN.fullmatch(text) is None:
        raise ValueError("no origin")
    return text


def _bridge_name(text: str) -> str:
    if _BRIDGE_NAME.fullmatch(text) is None:
        raise ValueError("no interface name")
    return text


def _interface_address(text: str) -> str:
    address, slash, length = text.partition("/")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    bits = 128 if family == socket.AF_INET6 else 32
    if not slash or not length.isdecimal() or not 1 <= int(length[:4]) <= bits:
        raise ValueError("no prefix length")
    if not _is_address(family, address):
        raise ValueError("no address")
    return text


def _libvirt_uri(text: str) -> str:
    if _LIBVIRT_URI.fullmatch(text) is None:
        raise ValueError("no URI")
    return text


def _migration_uri(text: str) -> str:
    if "{host}" not in text or _LIBVIRT_URI.fullmatch(text.replace("{host}", "node-2")) is None:
        raise ValueError("no URI of another node")
    return text


def _label(text: str) -> str:
    if not 1 <= len(text) <= 64 or not text.isprintable() or text != text.strip():
        raise ValueError("no name")
    return text


def _distinct(values: tuple[_T, ...]) -> tuple[_T, ...]:
    if len(set(values)) != len(values):
        raise ValueError("a value stands twice")
    return values


Switch = Annotated[bool, Strict()]
Whole = Annotated[int, Strict()]
CpuNumber = Annotated[int, Strict(), Field(ge=0, le=4095)]
Port = Annotated[int, Strict(), Field(ge=1, le=65535)]
Duration = Annotated[
    float,
    BeforeValidator(_duration),
    PlainSerializer(format_duration, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN, "examples": list(EXAMPLES)}),
]
Distinct = AfterValidator(_distinct)

Directory = Annotated[
    Path, BeforeValidator(_directory), Expected("the absolute path of a directory, not /")
]
File = Annotated[Path, BeforeValidator(_directory), Expected("the absolute path of a file")]
Host = Annotated[str, AfterValidator(_host), Expected("a host name or an IP address")]
ServerHost = Annotated[
    str,
    AfterValidator(_server_host),
    Expected("a host name, an IP address, or the absolute path of a socket directory"),
]
MasterKeySource = Annotated[
    str,
    AfterValidator(_master_key_source),
    Expected("file, credential:NAME or secret:PROVIDER/NAME"),
]
CorsOrigin = Annotated[
    str,
    AfterValidator(_cors_origin),
    Expected("origins such as https://app.example.com (scheme, host, port; no path), or *"),
]
BridgeName = Annotated[
    str,
    AfterValidator(_bridge_name),
    Expected("an interface name of 1 to 15 letters, digits, _ . or -"),
]
InterfaceAddress = Annotated[
    str,
    AfterValidator(_interface_address),
    Expected("an IP address with its prefix length, such as 10.20.0.1/24, or null"),
]
LibvirtUri = Annotated[
    str, AfterValidator(_libvirt_uri), Expected("a libvirt URI such as qemu:///system")
]
MigrationUri = Annotated[
    str,
    AfterValidator(_migration_uri),
    Expected("a libvirt URI with {host}, such as qemu+tls://{host}/system"),
]
NodeAddress = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?="
        r"[A-Za-z0-9]([A-Za-z0-9.:-]{0,251}[A-Za-z0-9])?$"
    ),
    Expected("node=address, such as node-002=10.0.0.2"),
]
PlatformName = Annotated[str, AfterValidator(_label), Expected("1 to 64 printable characters")]
Version = Annotated[
    str,
    Field(pattern=r"^\d{1,6}\.\d{1,6}\.\d{1,6}(-[0-9A-Za-z.-]{1,32})?$"),
    Expected("a version such as 1.0.0"),
]
NodeId = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"),
    Expected("1 to 63 letters, digits, . _ or -, such as node-001"),
]
AccountName = Annotated[
    str,
    Field(pattern=r"^[a-z_][a-z0-9_-]{0,31}$"),
    Expected("the name of a system account: up to 32 small letters, digits, _ or -"),
]
DatabaseName = Annotated[
    str,
    Field(pattern=r"^[A-Za-z_][A-Za-z0-9_$-]{0,62}$"),
    Expected("a PostgreSQL name of up to 63 letters, digits, _ $ or -"),
]
RedisUser = Annotated[
    str,
    Field(pattern=r"^[!-~]{1,64}$"),
    Expected("a Redis user name of up to 64 visible ASCII characters, or null"),
]
Password = Annotated[
    SecretStr, Field(min_length=1), Expected("a password that is not empty, or null for none")
]
EnvironmentName = Annotated[
    str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$"), Expected("the name of an environment")
]
