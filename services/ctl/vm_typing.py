"""What is typed into a console: all goes to the guest but the key that leaves. Pure."""

from __future__ import annotations

# Ctrl-], as telnet and virsh have it.
LEAVE = b"\x1d"
LEAVE_HINT = "Ctrl-] ends it"


def split_typed(typed: bytes, *, is_terminal: bool) -> tuple[bytes, bool]:
    """What goes to the guest, and whether the operator leaves after that.

    Args:
        typed: what was read from standard input.
        is_terminal: it is a terminal; in a file or pipe the key is a byte like others.
    """
    if not is_terminal:
        return typed, False
    data, found, _ = typed.partition(LEAVE)
    return data, bool(found)
