"""What a process is doing at the moment, for people who ask why it does not answer."""

from __future__ import annotations

import contextlib
import os

_WORDS = {
    "R": "busy",
    "S": "waiting",
    "D": "waiting for a device",
    "T": "stopped by a signal",
    "t": "stopped by a debugger",
    "Z": "ended",
    "X": "ended",
    "I": "idle",
}
_STATE_READ_BYTES = 512


def process_state(pid: int) -> str:
    """In a word or three; "ended" when there is no such process."""
    with contextlib.suppress(OSError):
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = os.read(descriptor, _STATE_READ_BYTES)
        finally:
            os.close(descriptor)
        letter = text[text.rindex(b")") + 2 :][:1].decode()
        return _WORDS.get(letter, letter)
    return "ended"
