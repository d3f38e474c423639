"""How a supervisor knows that a command is up, and when to look for it.

A program that speaks sd_notify says so itself, which is the best of the kinds; for all others
something is looked at, often in the beginning and then less. Python children need none of this:
they say that they are up over ZeroMQ.

Source: systemd.service(5), Type=notify and Type=exec; sd_notify(3).
"""

from __future__ import annotations

import enum
import re

from protocol.dataclass import dataclass

# A Unix socket's path holds at most 107 bytes.
_SUN_PATH_MAX = 107
# Most programs that are up at once are so within milliseconds; a second look costs nothing then.
PROBE_FIRST_S = 0.001
PROBE_GROWTH = 1.5
# What takes longer takes seconds, of which a tenth more is not noticed.
PROBE_MAX_S = 0.1


class ReadinessKind(enum.Enum):
    """What shows that a command is up.

    NOTIFY  it says READY=1 on the socket that NOTIFY_SOCKET names
    EXEC    the program is being executed, whatever it does then
    TCP     it accepts connections on a port
    UNIX    it accepts connections, or datagrams, on a Unix socket
    LOG     it writes a line that a regular expression is found in
    """

    NOTIFY = "notify"
    EXEC = "exec"
    TCP = "tcp"
    UNIX = "unix"
    LOG = "log"


class ReadinessError(ValueError):
    """A readiness that can't be looked for; the message is the rule that it breaks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """When a command counts as up.

    Attributes:
        kind: what shows it.
        host, port: of TCP; the host as an address, since a name would have to be looked up.
        path: of UNIX, absolute.
        pattern: of LOG, a regular expression that is searched for in each line of standard output
            and standard error.
        watchdog_s: a command that then says WATCHDOG=1 on NOTIFY_SOCKET at least this often; one
            that falls silent is killed as unresponsive. None for none. It goes with every kind.
    """

    kind: ReadinessKind = ReadinessKind.NOTIFY
    host: str = "127.0.0.1"
    port: int = 0
    path: str = ""
    pattern: str = ""
    watchdog_s: float | None = None

    @property
    def needs_socket(self) -> bool:
        """Whether the command gets NOTIFY_SOCKET."""
        return self.kind is ReadinessKind.NOTIFY or self.watchdog_s is not None

    def __str__(self) -> str:
        match self.kind:
            case ReadinessKind.TCP:
                return f"tcp:{self.host}:{self.port}"
            case ReadinessKind.UNIX:
                return f"unix:{self.path}"
            case ReadinessKind.LOG:
                return f"log:{self.pattern}"
            case ReadinessKind.NOTIFY | ReadinessKind.EXEC:
                return str(self.kind.value)


NOTIFY = Readiness()
EXEC = Readiness(kind=ReadinessKind.EXEC)


def parse(text: str, *, watchdog_s: float | None = None) -> Readiness:
    """Read a readiness as people write it.

    Args:
        text: ``notify``, ``exec``, ``tcp:PORT``, ``tcp:ADDRESS:PORT``, ``unix:PATH`` or
            ``log:REGULAR EXPRESSION``.
        watchdog_s: see Readiness.

    Raises:
        ReadinessError: it is none of these, or breaks a rule.
    """
    word, _, rest = text.partition(":")
    match word:
        case "notify" | "exec" if not rest:
            found = Readiness(kind=ReadinessKind(word), watchdog_s=watchdog_s)
        case "tcp":
            host, _, port = rest.rpartition(":")
            if not (port.isascii() and port.isdigit()):
                raise ReadinessError(f"the port in {text!r} is not a number")
            found = Readiness(
                kind=ReadinessKind.TCP,
                host=host.strip("[]") or "127.0.0.1",
                port=int(port),
                watchdog_s=watchdog_s,
            )
        case "unix":
            found = Readiness(kind=ReadinessKind.UNIX, path=rest, watchdog_s=watchdog_s)
        case "log":
            found = Readiness(kind=ReadinessKind.LOG, pattern=rest, watchdog_s=watchdog_s)
        case _:
            raise ReadinessError(
                f"{text!r} is none of notify, exec, tcp:[ADDRESS:]PORT, unix:PATH, log:PATTERN"
            )
    check(found)
    return found


def check(readiness: Readiness) -> None:
    """Check that it can be looked for.

    Raises:
        ReadinessError: the rule that it breaks.
    """
    if readiness.watchdog_s is not None and not readiness.watchdog_s > 0:
        raise ReadinessError(f"watchdog_s is {readiness.watchdog_s}; more than 0")
    match readiness.kind:
        case ReadinessKind.TCP:
            _check_address(readiness)
        case ReadinessKind.UNIX:
            _check_path(readiness.path)
        case ReadinessKind.LOG:
            _check_pattern(readiness.pattern)
        case ReadinessKind.NOTIFY | ReadinessKind.EXEC:
            pass


def next_pause_s(pause_s: float | None) -> float:
    """How long to wait for the next look.

    Args:
        pause_s: the pause before the last look; None when there was none yet.
    """
    return PROBE_FIRST_S if pause_s is None else min(PROBE_MAX_S, pause_s * PROBE_GROWTH)


def _check_address(readiness: Readiness) -> None:
    from ipaddress import ip_address  # five milliseconds, which few trees have to pay

    try:
        ip_address(readiness.host)
    except ValueError:
        raise ReadinessError(f"host is {readiness.host!r}; an IP address") from None
    if not 0 < readiness.port < 1 << 16:
        raise ReadinessError(f"port is {readiness.port}; 1 to 65535")


def _check_path(path: str) -> None:
    if not path.startswith("/"):
        raise ReadinessError(f"path is {path!r}; absolute")
    if (length := len(path.encode())) > _SUN_PATH_MAX:
        raise ReadinessError(f"path has {length} bytes; a Unix socket's has {_SUN_PATH_MAX}")


def _check_pattern(pattern: str) -> None:
    if not pattern:
        raise ReadinessError("pattern is empty, and would be found in any line")
    try:
        re.compile(pattern)
    except re.error as exc:
        raise ReadinessError(f"pattern {pattern!r}: {exc}") from exc
