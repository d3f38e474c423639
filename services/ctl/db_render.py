"""The database commands' results as lines for a person."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from services.ctl.amounts import size
from services.ctl.styled import Line, Span, Tone, line, printable
from services.data.backup.manifest import Manifest
from services.data.backup.restore import Restored
from services.data.durability import SAFE
from services.data.overview import Overview

_LABEL_WIDTH = 13


def render_overview(found: Overview) -> Iterator[Line]:
    """``db status``."""
    tls = "with TLS" if found.tls else "without TLS"
    where = f"{found.database} at {found.host}:{found.port} as {found.user}, {tls}"
    yield _row("database", printable(where))
    role = "standby, takes no writes" if found.is_standby else "primary"
    yield _row("server", f"PostgreSQL {printable(found.server)}, {role}")
    yield _row("schema", *_schema(found))
    yield _row("size", size(found.size_bytes))
    total = f"{found.server_connections} of {found.connections_max} on the server"
    names = ", ".join(f"{printable(name)} ({n})" for name, n in found.connections.items())
    yield _row("connections", total + (f"; {names}" if names else ""))
    yield _row("durability", *_durability(found))
    for replica in found.replicas:
        behind = f"{size(replica.behind_bytes)} behind"
        state = printable(f"{replica.name} {replica.state}, {replica.sync}")
        yield _row("replica", f"{state}, {behind}")
    for name, size_bytes in found.kept.items():
        yield _row("kept", f"{printable(name)}, {size(size_bytes)}")


def render_backup(made: Manifest, file: Path) -> Iterator[Line]:
    """``db backup``."""
    rows = sum(made.rows.values())
    yield line(
        Span("backed up", Tone.GOOD),
        f" {made.database} (schema {made.schema}, {len(made.rows)} tables, {rows} rows)"
        f" to {file}, {size(made.size_bytes)}",
    )
    yield line(Span(f"SHA-256 {made.sha256}", Tone.FAINT))


def render_restored(done: Restored, file: Path) -> Iterator[Line]:
    """``db restore``."""
    rows = sum(done.manifest.rows.values())
    yield line(
        Span("restored", Tone.GOOD),
        f" {done.database} from {file}: {len(done.manifest.rows)} tables, {rows} rows, "
        f"schema {done.manifest.schema}",
    )
    if done.migrated:
        yield line(
            f"migrated it by {done.migrated} to schema {done.manifest.schema + done.migrated}"
        )
    if done.kept is not None:
        yield line(f"the database before is kept as {done.kept}; to remove it:")
        yield line(f"  novacronctl db discard {done.kept}")
        yield line("the audit log lacks what was recorded since the backup, and says so until:")
        yield line("  novacronctl audit accept --reason 'restored from a backup'")


def _schema(found: Overview) -> Iterator[Span | str]:
    yield f"version {found.schema}, this program has {found.known}"
    if found.problem:
        yield Span(f"; {printable(found.problem)}", Tone.BAD)
    elif found.pending:
        yield Span(f"; pending: {', '.join(found.pending)}", Tone.CAUTION)


def _durability(found: Overview) -> Iterator[Span | str]:
    for number, (name, value) in enumerate(found.durability.items()):
        tone = Tone.PLAIN if value in SAFE[name] else Tone.CAUTION
        yield (", " if number else "") + f"{name} "
        yield Span(printable(value), tone)


def _row(label: str, *parts: Span | str) -> Line:
    return line(Span(label.ljust(_LABEL_WIDTH), Tone.FAINT), *parts)
