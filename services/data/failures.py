"""What went wrong in the database, by what the caller may do about it: from SQLSTATE, no I/O.

| class        | such as                                     | the same work again?                |
|--------------|---------------------------------------------|-------------------------------------|
| conflict     | serialization failure, deadlock             | at once; it was rolled back         |
| locked       | lock_timeout                                | yes; nothing was done               |
| lost         | connection gone, server stops or starts     | if the COMMIT was not yet sent      |
| slow         | statement_timeout, no answer in time        | no: it would take as long again     |
| exhausted    | disk full, out of memory                    | no: somebody has to make room       |
| constraint   | unique, foreign key, check, not null        | no                                  |
| permission   | the role may not                            | no                                  |
| syntax       | unknown table or column, wrong SQL          | no                                  |
| data         | a value out of range or of the wrong form   | no                                  |
| other        | everything else                             | no                                  |

The invariant: what is not known to be worth another try is not tried again.
"""

from __future__ import annotations

import enum


class FailureClass(enum.Enum):
    """See the table above; the values are labels of metrics."""

    CONFLICT = "conflict"
    LOCKED = "locked"
    LOST = "lost"
    SLOW = "slow"
    EXHAUSTED = "exhausted"
    CONSTRAINT = "constraint"
    PERMISSION = "permission"
    SYNTAX = "syntax"
    DATA = "data"
    OTHER = "other"


# Source: PostgreSQL 15 manual, appendix A. Whole codes win over classes of two characters.
_BY_CODE = {
    "40001": FailureClass.CONFLICT,
    "40P01": FailureClass.CONFLICT,
    "55P03": FailureClass.LOCKED,
    "57014": FailureClass.SLOW,
    "25P04": FailureClass.SLOW,  # transaction_timeout, from version 17 on
    # What ends a connection, the idle ones included.
    "57P01": FailureClass.LOST,
    "57P02": FailureClass.LOST,
    "57P03": FailureClass.LOST,
    "57P04": FailureClass.LOST,
    "57P05": FailureClass.LOST,
    "25P03": FailureClass.LOST,
    "53300": FailureClass.LOST,  # too many connections: so far there is none
    "25006": FailureClass.LOST,  # a standby that was not promoted yet
    "40003": FailureClass.OTHER,  # the server itself does not know whether it was done
    "42501": FailureClass.PERMISSION,
    "55006": FailureClass.LOCKED,
}
_BY_CLASS = {
    "08": FailureClass.LOST,
    "22": FailureClass.DATA,
    "23": FailureClass.CONSTRAINT,
    "28": FailureClass.PERMISSION,
    "42": FailureClass.SYNTAX,
    "53": FailureClass.EXHAUSTED,
    "58": FailureClass.EXHAUSTED,
}
CONFLICTS = frozenset((FailureClass.CONFLICT, FailureClass.LOCKED))
# After a COMMIT that ended so nobody knows yet whether it was carried out.
UNKNOWN_AT_COMMIT = frozenset((FailureClass.LOST, FailureClass.SLOW, FailureClass.OTHER))


def classify(sqlstate: str | None, *, is_connection_lost: bool = False) -> FailureClass:
    """The class of a failure.

    Args:
        sqlstate: what the server said; None when it said nothing.
        is_connection_lost: the connection can't be used any more, whatever was said.
    """
    found = FailureClass.OTHER
    if sqlstate is not None:
        found = _BY_CODE.get(sqlstate) or _BY_CLASS.get(sqlstate[:2], FailureClass.OTHER)
    if is_connection_lost and found in (FailureClass.OTHER, FailureClass.SLOW):
        return FailureClass.LOST
    return found
