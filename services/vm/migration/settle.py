"""Finds out where a guest is after its migration, and brings that to its end, step by step.

``truth`` decides; here both sides are looked at before each step and after it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial

from protocol.errors import NovacronError
from services.vm.migration.errors import MigrationDisputedError
from services.vm.migration.owner import Owners
from services.vm.migration.pair import Pair
from services.vm.migration.truth import Next, Presence, Side, decide
from services.vm.operations.errors import OperationUnknownError

LOOK_S = 0.25
# The guest stands still meanwhile, so a database that is away is not waited for.
HAND_OVER_TIMEOUT_S = 3.0


async def settle(
    pair: Pair, owners: Owners, *, within_s: float, follow: Callable[[], Awaitable[None]]
) -> Next:
    """Look and act until the guest is on one side and nothing is left to be done.

    Args:
        pair: both sides.
        owners: told before it is let go on the target.
        within_s: how long nothing may come of it.
        follow: called while it is still being sent; returns after a moment.

    Returns:
        STAYED, MOVED or ENDED; STAYS where it runs here and the target does not answer.

    Raises:
        MigrationDisputedError: nothing can be done without a person.
        OperationUnknownError: nobody knew within the time.
        OSError: what was about to be done can't be written down, and so was not.
    """
    until_s = time.monotonic() + within_s
    while True:
        source, target = await pair.look()
        found = decide(source, target, pair.goal)
        if found is Next.DISPUTED:
            raise _disputed(pair, source, target)
        if found.is_final or found is Next.STAYS:
            return found
        if found is Next.FOLLOW:
            await follow()
            until_s = time.monotonic() + within_s
            continue
        trouble = _words(source, target, pair)
        if found is Next.HAND_OVER:
            await hand_over(pair, owners)
        elif found.is_change:
            try:
                await _change(pair, found)
                continue
            except NovacronError as exc:  # both sides are looked at anew, whatever it was
                trouble = exc.message
        if time.monotonic() >= until_s:
            raise OperationUnknownError(
                f"it is not known yet where {pair.undertaking.name} is: {trouble}"
            )
        if found is not Next.HAND_OVER:
            await asyncio.sleep(LOOK_S)


async def hand_over(pair: Pair, owners: Owners) -> None:
    """Tell who owns it; a database that is away is told later.

    Raises:
        MigrationDisputedError: another node has become its owner meanwhile.
    """
    had = pair.undertaking
    try:
        async with asyncio.timeout(HAND_OVER_TIMEOUT_S):
            await owners.hand_over(had.uuid, to_node=had.route.node, epoch=had.epoch)
    except TimeoutError:
        pair.is_hand_over_postponed = True
    except NovacronError as exc:
        if not exc.retryable:
            raise MigrationDisputedError(
                f"{had.name} has arrived on {had.route.node} and is not let go there, as this node "
                f"has lost it meanwhile: {exc.message}"
            ) from exc
        pair.is_hand_over_postponed = True
    else:
        await pair.note(is_handed_over=True)
        pair.is_hand_over_postponed = False


async def clean_target(pair: Pair) -> str:
    """Remove what was made on the target for a guest that stays here; what could not be, in words.

    Call it once ``settle`` has said STAYED: only then does it surely not run there.
    """
    had, left = pair.undertaking, []
    if not had.was_defined_there:
        try:
            await pair.on_target("forget", partial(pair.target.undefine, pair.uuid))
        except NovacronError as exc:
            left.append(exc.message)
    for file in had.made_disks:
        try:
            await pair.on_target("clean up after", partial(pair.disks.remove, file))
        except NovacronError as exc:
            left.append(exc.message)
    return "; ".join(left)


async def _change(pair: Pair, found: Next) -> None:
    uuid, had = pair.uuid, pair.undertaking
    match found:
        case Next.REMOVE_TARGET:
            work = partial(pair.target.remove, uuid, keep_definition=had.was_defined_there)
            await pair.on_target("remove the rest of", work)
        case Next.RESUME_SOURCE:
            await pair.on_source("let go on", partial(pair.source.resume, uuid))
        case Next.RESUME_TARGET:
            if not had.was_let_go:
                await pair.note(was_let_go=True)
            await pair.on_target("let go on", partial(pair.target.resume, uuid))
            pair.has_run = True
        case Next.PERSIST_TARGET:
            await pair.on_target("define", partial(pair.target.persist, uuid))
        case Next.UNDEFINE_SOURCE:
            await pair.on_source("undefine", partial(pair.source.undefine, uuid))
        case _:
            raise AssertionError(found)


def _words(source: Side, target: Side, pair: Pair) -> str:
    had = pair.undertaking
    said = []
    for node, side in ((had.from_node or "this node", source), (had.route.node, target)):
        is_known = side.presence is not Presence.UNKNOWN
        said.append(f"on {node} it is {side.reason}" if is_known else f"{node}: {side.reason}")
    return "; ".join(said)


def _disputed(pair: Pair, source: Side, target: Side) -> MigrationDisputedError:
    return MigrationDisputedError(
        f"{pair.undertaking.name} is on both sides: {_words(source, target, pair)}. Nothing is "
        "done by itself: look at both, and end the one that is wrong"
    )
