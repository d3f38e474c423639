"""Keys on an operator's screen."""

from __future__ import annotations

from services.ctl.amounts import age
from services.ctl.styled import Column, Line, Span, Tone, line, table
from services.security.keys.keyset import KeyState
from services.security.keys.model import JobStatus, KeyList, KeysStatus

_TONES = {
    KeyState.ACTIVE: Tone.GOOD,
    KeyState.DECRYPT_ONLY: Tone.PLAIN,
    KeyState.RETIRED: Tone.FAINT,
}
_COLUMNS = (
    Column("KEY"),
    Column("STATE"),
    Column("AGE", right=True),
    Column("VALUES", right=True),
    Column("RESERVED", right=True, rank=1),
    Column("", rank=2),
)


def render_keys(found: KeyList, *, now_s: float, width: int) -> list[Line]:
    """The keys as a table, and what belongs to none of them."""
    rows = [
        (
            Span(key.id),
            Span(key.state.value, _TONES[key.state]),
            Span(age(max(0.0, now_s - key.created_s))),
            Span(str(key.values)),
            Span(f"{key.reserved}"),
            Span("may be removed" if key.is_removable else ""),
        )
        for key in found.keys
    ]
    lines = table(_COLUMNS, rows, width=width)
    lines += [
        line(Span(f"{count} values are sealed with {key_id}, which is not here", Tone.BAD))
        for key_id, count in found.unknown.items()
    ]
    return lines


def render_status(found: KeysStatus, *, now_s: float) -> list[Line]:
    """The keys' state in a few lines."""
    left_s = found.rotates_s - now_s
    due = f"a new one in {age(left_s)}" if left_s > 0 else "a new one is due"
    place = "" if found.master_place == "outside" else f", {found.master_place}"
    lines = [
        line(f"active    {found.active}, {age(max(0.0, now_s - found.active_since_s))} old, {due}"),
        line(f"uses      {found.reserved} of {found.uses_max} reserved"),
        line("keys      ", ", ".join(f"{count} {state}" for state, count in found.counts.items())),
        line(f"master    {found.master_id}, from {found.master_source}{place}"),
    ]
    if found.has_old_master:
        lines.append(line(Span("          the one before is kept until the database is back")))
    if found.backed_up_s is None:
        lines.append(
            line(Span("backup    none of this master key: novacronctl keys backup", Tone.CAUTION))
        )
    else:
        lines.append(line(f"backup    {age(max(0.0, now_s - found.backed_up_s))} ago"))
    mirrored = "current" if found.mirrored == found.generation else f"{found.mirrored} so far"
    lines.append(line(f"keyset    generation {found.generation}; in the database: {mirrored}"))
    lines.append(render_job(found.job))
    if found.trouble:
        lines.append(line(Span(f"trouble   {found.trouble}", Tone.BAD)))
    return lines


def render_job(job: JobStatus) -> Line:
    """The re-encryption in a line."""
    left = sum(job.left.values())
    parts = [f"{job.moved} values done, {left} left"]
    if job.unreadable:
        parts.append(f"{job.unreadable} can't be opened, see the log")
    if job.waits_for:
        parts.append(f"waits: {job.waits_for}")
    return line("re-encryption ", "; ".join(parts))
