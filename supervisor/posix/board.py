"""The board: shared memory in which children beat and leave their last words.

A beat as a message would have to be received, decrypted and decoded by the supervisor, for every
child and period. A beat here is one store into shared memory, and the supervisor reads all of
them in one pass when the next one could be overdue. Last words live here because a message that
is sent just before an exit can arrive after the news of the exit.

Layout: SLOTS slots of SLOT_BYTES; in each::

    0   u64  CLOCK_MONOTONIC of the last beat, nanoseconds; 0 before the first
    8   u16  length of the last words; 0 for none
    10  ...  last words, msgpack of LastWords
"""

from __future__ import annotations

import mmap
import os
import struct
import time

from protocol import codec
from protocol.dataclass import dataclass
from protocol.errors import NovacronError
from protocol.records import from_wire, to_wire
from supervisor.core.spec import CHILDREN_MAX

SLOT_BYTES = 1024
_BEAT = struct.Struct("=Q")
_LENGTH = struct.Struct("=H")
_HEADER_BYTES = _BEAT.size + _LENGTH.size
_SENTENCE_LENGTH_MAX = 600


@dataclass(frozen=True, slots=True)
class LastWords:
    """Why a child ends itself; the fields are those of ExitReason."""

    code: str
    detail: str
    origin: str = ""
    phase: int = 0


class Board:
    """One supervisor's board; inherited by its children over fork.

    Args:
        descriptor: a memory file that another process created; None to create one.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        size = SLOT_BYTES * CHILDREN_MAX
        if descriptor is None:
            descriptor = os.memfd_create("novacron-board", os.MFD_CLOEXEC)
            os.ftruncate(descriptor, size)
        self.descriptor = descriptor
        self._memory = mmap.mmap(descriptor, size)

    def beat(self, slot: int) -> None:
        """Say that the loop of the slot's owner turns."""
        _BEAT.pack_into(self._memory, slot * SLOT_BYTES, time.monotonic_ns())

    def last_beat_s(self, slot: int) -> float | None:
        """Monotonic time of the slot's last beat, or None before the first."""
        (beat_ns,) = _BEAT.unpack_from(self._memory, slot * SLOT_BYTES)
        return beat_ns / 1e9 if beat_ns else None

    def leave(self, slot: int, words: LastWords) -> None:
        """Leave last words; the first ones stay, since what follows is their consequence."""
        start = slot * SLOT_BYTES
        if _LENGTH.unpack_from(self._memory, start + _BEAT.size)[0]:
            return
        sentence = words.detail[:_SENTENCE_LENGTH_MAX]
        data = codec.encode(
            to_wire(LastWords(words.code[:64], sentence, words.origin[:64], words.phase))
        )
        data = data if len(data) <= SLOT_BYTES - _HEADER_BYTES else b""
        self._memory[start + _HEADER_BYTES : start + _HEADER_BYTES + len(data)] = data
        _LENGTH.pack_into(self._memory, start + _BEAT.size, len(data))

    def last_words(self, slot: int) -> LastWords | None:
        """What the slot's owner left, or None; what can't be read counts as nothing."""
        start = slot * SLOT_BYTES
        (length,) = _LENGTH.unpack_from(self._memory, start + _BEAT.size)
        if not 0 < length <= SLOT_BYTES - _HEADER_BYTES:
            return None
        data = self._memory[start + _HEADER_BYTES : start + _HEADER_BYTES + length]
        try:
            return from_wire(LastWords, codec.decode(data))
        except NovacronError:
            return None

    def clear(self, slot: int) -> None:
        """Make the slot ready for its next owner."""
        start = slot * SLOT_BYTES
        self._memory[start : start + _HEADER_BYTES] = bytes(_HEADER_BYTES)
