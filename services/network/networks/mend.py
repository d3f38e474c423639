"""Brings what was applied back, network by network where one of them can't be."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any

from services.network.networks.errors import NetworksStepFailedError
from services.network.networks.kernel import Kernel
from services.network.networks.plan import NetworksPlan
from services.network.networks.steps import Step, describe_step

_REASONS_TOLD = 3
# Each failure costs a reading of all links; a kernel that refuses more is not worth it.
_FAILURES_MAX = 8


async def mend(
    kernel: Kernel,
    plan: NetworksPlan,
    again: Callable[[], Awaitable[NetworksPlan]],
    *,
    left_out: Mapping[str, str],
) -> dict[str, str]:
    """Take a plan's steps; where the kernel refuses one, leave its network out and go on.

    Args:
        kernel: takes the steps.
        plan: what is to be done.
        again: makes the plan anew from what there is by then.
        left_out: networks that are not tried, and why.

    Returns:
        The networks that were left out, and why.

    Raises:
        NetworksStepFailedError: more networks can't be mended than are worth trying.
        MissingCapabilityError, NetlinkFailedError: nothing can be changed, or it is not known.
    """
    faults = dict(left_out)
    while True:
        steps = tuple(step for step in plan.steps if step.network not in faults)
        try:
            await kernel.carry_out(steps)
        except NetworksStepFailedError as exc:
            network = str(exc.fields.get("network", ""))
            if network in faults or len(faults) >= _FAILURES_MAX:
                raise
            faults[network] = exc.message
            plan = await again()
        else:
            return faults


def difference(plan: NetworksPlan) -> str:
    """What a plan says is not as it should be, in some words; "" for nothing."""
    return listed((*plan.conflicts, *(f"missing: {describe_step(step)}" for step in plan.steps)))


def describe(steps: Iterable[Step]) -> str:
    """What steps do, in some words."""
    return listed(tuple(describe_step(step) for step in steps))


def listed(reasons: tuple[str, ...]) -> str:
    """The first of some reasons, and how many more there are."""
    more = len(reasons) - _REASONS_TOLD
    text = "; ".join(reasons[:_REASONS_TOLD])
    return f"{text}; and {more} more" if more > 0 else text


async def finished(work: Coroutine[Any, Any, None]) -> None:  # Any: asyncio's own
    """Wait for work that must not be left half done, however often the caller is cancelled."""
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise
    task.result()
