"""What 'novacronctl token' shows; pure."""

from __future__ import annotations

from collections.abc import Sequence

from services.ctl.amounts import age
from services.ctl.styled import Column, Line, Span, Tone, line, printable, table
from services.security.token_model import CreatedToken, TokenEntry

# From here on, the end of a token is near.
_SOON_S = 7 * 86400.0


def note_on_created(created: CreatedToken, *, now_s: float) -> str:
    """What to know of a token that was just made."""
    entry = created.entry
    return (
        f"{entry.role.value} {printable(entry.name)}, id {entry.id}, "
        f"ends in {age(entry.expires_s - now_s)}; the token is not shown again"
    )


def render_tokens(entries: Sequence[TokenEntry], *, now_s: float, width: int) -> list[Line]:
    """A table of tokens."""
    columns = tuple(Column(title) for title in ("ID", "NAME", "ROLE", "STATE", "ENDS", "BY"))
    rows = [
        (
            Span(entry.id),
            Span(printable(entry.name)),
            Span(entry.role.value),
            _state(entry, now_s),
            Span(age(entry.expires_s - now_s) if entry.state == "active" else "-"),
            Span(printable(entry.created_by)),
        )
        for entry in entries
    ]
    return table(columns, rows, width=width)


def render_revoked(entry: TokenEntry) -> list[Line]:
    """One sentence."""
    return [line(f"the token {entry.id} of {printable(entry.name)} is ", _state(entry, 0.0))]


def _state(entry: TokenEntry, now_s: float) -> Span:
    if entry.state != "active":
        return Span(entry.state, Tone.BAD if entry.state == "revoked" else Tone.FAINT)
    return Span(entry.state, Tone.CAUTION if entry.expires_s - now_s < _SOON_S else Tone.GOOD)
