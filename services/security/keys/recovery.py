"""What a start makes of the files that it finds, whatever cut off the process before: no effects.

    master.key         the master key; or a secret from outside, see sources.py
    master.key.next    one that is about to take its place
    master.key.old     the one before, until the database has the keyset under the new one
    keyset             the keys; written first
    keyset.copy        the same; written second, and no change counts before it is there
    .has-keyset        there has been a keyset
    the database       a mirror of the keyset, written third

A change of the keyset: keyset, keyset.copy, use it, mirror. A change of the master key: next, then
the keyset under it (which is such a change), then old and master.key change places, then the
mirror, then old goes away. Each arrow is one rename or one link, synced before the next, so a
crash leaves one of the states below.

    keyset        copy         masters                  decision
    n             n            current                  use it
    n             n - k        current                  use n, write the copy: nobody used n yet
    torn/missing  n            current                  use n, write the keyset: as above
    n under next  any          current, next            use n, write the copy, promote next
    n             n            current, next            next was never used: drop it
    n             n            outside, and current     current was left: put it into old's place
    missing       missing      -, no mark, no mirror    first start: make all
    missing       missing      current, the same        a node from before keysets: import
    everything else                                     refuse, with what to do

Invariant: whatever is used has a generation not below any that was used before, as far as the
files, the mirror and the master keys show; and no decision loses a key.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from services.security.keys.codec import Judged, Verdict


class Step(enum.Enum):
    """What brings the files into order; each can be repeated."""

    WRITE_KEYSET = "write the keyset"
    WRITE_COPY = "write its copy"
    PROMOTE = "put the next master key into its place"
    DROP_NEXT = "remove the next master key"
    LEAVE_CURRENT = "put the file's master key into the old one's place"
    SET_ASIDE = "set aside the keyset that is replaced"


class Origin(enum.Enum):
    """Where the keyset comes from."""

    KEYSET = "keyset"
    COPY = "copy"
    MIRROR = "mirror"
    IMPORT = "import"
    NEW = "new"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What a start finds.

    Attributes:
        current, next, old: ids of the master keys in files; "" for none.
        outside: ids of master keys that were given from outside.
        keyset, copy, mirror: what the three turned out to be.
        is_marked: the node has had a keyset.
        has_data: the node has written what only a node with a master key writes.
        adopts: a person asked for the database's keyset.
        node_id: of this node.
    """

    current: str = ""
    next: str = ""
    old: str = ""
    outside: frozenset[str] = frozenset()
    keyset: Judged = field(default=Judged(Verdict.MISSING))
    copy: Judged = field(default=Judged(Verdict.MISSING))
    mirror: Judged = field(default=Judged(Verdict.MISSING))
    is_marked: bool = False
    has_data: bool = False
    adopts: bool = False
    node_id: str = ""


@dataclass(frozen=True, slots=True)
class Use:
    """Take the keyset from there, after these steps in this order.

    ``remark`` is what an operator should know; "" for nothing.
    """

    origin: Origin
    steps: tuple[Step, ...] = ()
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Use nothing; ``reason`` says what was found and what to do."""

    reason: str


_ADOPT = (
    "'novacronctl keys adopt' has the next start take the database's keyset, which is "
    "authenticated with this node's master key"
)
_REPAIR = (
    "restore it from a backup ('novacronctl keys restore' or the state directory's own); " + _ADOPT
)


def decide(seen: Observed) -> Use | Refuse:
    """What to do at a start."""
    if not (seen.current or seen.next or seen.old or seen.outside):
        return _without_master(seen)
    if seen.adopts and seen.mirror.verdict is not Verdict.MISSING:
        return _adopt(seen)
    for name, found in (("keyset", seen.keyset), ("keyset.copy", seen.copy)):
        if refusal := _unusable(name, found):
            return refusal
    good = [found for found in (seen.keyset, seen.copy) if found.verdict is Verdict.GOOD]
    if not good:
        return _without_keyset(seen)
    newest = max(good, key=lambda found: found.generation)
    return _foreign_node(seen, newest) or _older(seen, newest) or _use(seen, newest)


def _without_master(seen: Observed) -> Use | Refuse:
    verdicts = {seen.keyset.verdict, seen.copy.verdict, seen.mirror.verdict}
    if verdicts == {Verdict.MISSING} and not seen.is_marked and not seen.has_data:
        return Use(Origin.NEW)
    return Refuse(
        "the master key is gone, and this node has had one: restore it from a backup "
        "('novacronctl keys restore', or put the file back); without it nothing that was sealed "
        "can be opened, and no new one is made"
    )


def _unusable(name: str, found: Judged) -> Refuse | None:
    if found.verdict is Verdict.EDITED:
        return Refuse(
            f"{name} was changed by something other than this program: find out what did; {_REPAIR}"
        )
    if found.verdict is Verdict.FOREIGN:
        return Refuse(
            f"{name} belongs to master key {found.master_id}, which is not here: the master key "
            "was replaced; put the right one back from a backup, the keys are not made anew"
        )
    return None


def _without_keyset(seen: Observed) -> Use | Refuse:
    is_torn = Verdict.TORN in (seen.keyset.verdict, seen.copy.verdict)
    if is_torn:
        return Refuse(f"neither the keyset nor its copy is whole: {_REPAIR}")
    if seen.is_marked or seen.mirror.verdict is not Verdict.MISSING:
        return Refuse(f"the keyset and its copy are gone, and this node has had them: {_REPAIR}")
    if seen.next or seen.old:
        return Refuse(
            "there is a second master key and no keyset, which no crash leaves behind: restore the "
            "keyset from a backup"
        )
    return Use(Origin.IMPORT)


def _foreign_node(seen: Observed, newest: Judged) -> Refuse | None:
    assert newest.keyset is not None
    if newest.keyset.node_id == seen.node_id:
        return None
    return Refuse(
        f"the keyset is that of node {newest.keyset.node_id!r} and this is {seen.node_id!r}: each "
        "node has its own state directory; if the node was renamed, give it its old platform.nodeId"
    )


def _older(seen: Observed, newest: Judged) -> Refuse | None:
    if seen.keyset.verdict is Verdict.GOOD and seen.copy.generation > seen.keyset.generation:
        return Refuse(
            f"the keyset is of generation {seen.keyset.generation} and its copy of "
            f"{seen.copy.generation}, which is written later: an older keyset was put in its "
            f"place; find out what did; {_REPAIR}"
        )
    if newest.master_id == seen.old and seen.old != seen.current and not seen.next:
        return Refuse(
            "the keyset is older than the master key's last change: an older one was put in its "
            f"place; {_REPAIR}"
        )
    mirror = seen.mirror
    if mirror.verdict not in (Verdict.GOOD, Verdict.FOREIGN):
        return None  # it proves nothing, and is written anew
    if mirror.generation > newest.generation:
        which = "" if mirror.verdict is Verdict.GOOD else f", under master key {mirror.master_id}"
        return Refuse(
            f"the database knows the keyset's generation {mirror.generation}{which}, and the one "
            f"here is {newest.generation}: an older keyset was put in its place, or an older state "
            f"directory; keys may be missing; {_ADOPT}"
        )
    is_same_age = mirror.verdict is Verdict.GOOD and mirror.generation == newest.generation
    if is_same_age and mirror.content != newest.content:
        return Refuse(
            f"the keyset and the database's differ in the same generation {newest.generation}: the "
            f"state directory was in use twice, each with keys of its own; {_ADOPT}, and sets the "
            "one here aside"
        )
    return None


def _use(seen: Observed, newest: Judged) -> Use:
    steps: list[Step] = []
    remark = ""
    is_first = newest is seen.keyset
    if not is_first:
        steps.append(Step.WRITE_KEYSET)
        remark = f"the keyset was {seen.keyset.verdict.value} and is written anew from its copy"
    elif seen.copy.content != newest.content:
        steps.append(Step.WRITE_COPY)
        remark = "the keyset's copy was behind and is written anew"
    steps += _master_steps(seen, newest.master_id)
    return Use(Origin.KEYSET if is_first else Origin.COPY, tuple(steps), remark)


def _master_steps(seen: Observed, master_id: str) -> list[Step]:
    if seen.next:
        return [Step.PROMOTE if master_id == seen.next else Step.DROP_NEXT]
    if seen.current and master_id in seen.outside and master_id != seen.current:
        return [Step.LEAVE_CURRENT]
    return []


def _adopt(seen: Observed) -> Use | Refuse:
    mirror = seen.mirror
    if mirror.verdict is not Verdict.GOOD:
        return Refuse(
            f"the database's keyset can't be adopted: it is {mirror.verdict.value}"
            + (f", under master key {mirror.master_id}" if mirror.master_id else "")
            + "; restore the master key or the state directory from a backup"
        )
    if refusal := _foreign_node(seen, mirror):
        return refusal
    newest = max(seen.keyset.generation, seen.copy.generation)
    if Verdict.GOOD in (seen.keyset.verdict, seen.copy.verdict) and newest > mirror.generation:
        return Refuse(
            f"the keyset here is of generation {newest} and the database's of {mirror.generation}: "
            "adopting it would lose keys; remove the file adopt-keyset to start with the one here"
        )
    steps = (Step.SET_ASIDE, Step.WRITE_KEYSET, Step.WRITE_COPY)
    remark = "the database's keyset takes the place of the files'"
    return Use(Origin.MIRROR, (*steps, *_master_steps(seen, mirror.master_id)), remark)
