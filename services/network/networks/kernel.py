"""Carries steps out in the kernel, many at a time. Adapter for route sockets; lives in one loop."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from services.network.errors import MissingCapabilityError, NetlinkFailedError
from services.network.netlink import NO_CAPABILITY
from services.network.networks.batch import BATCH_MAX, BatchSocket
from services.network.networks.errors import NetworksStepFailedError, NetworksUnsupportedError
from services.network.networks.pack import (
    kinds_made,
    missing_feature,
    needs,
    pack_lookup,
    pack_probe,
    pack_step,
)
from services.network.networks.steps import CREATING, Step, StepKind, describe_step
from services.threads import start_thread, wait_done

T = TypeVar("T")
# A thousand links deleted on a busy host take some ten seconds: the kernel waits for each to be
# let go of by everybody.
STEPS_TIMEOUT_S = 60.0
_DENIED = (errno.EPERM, errno.EACCES)


class Kernel:
    """The host's links. Use it in one loop, opened in the network namespace's thread.

    Attributes:
        requests: how many requests were sent so far.
    """

    def __init__(self) -> None:
        self.requests = 0

    async def check_features(self, steps: Sequence[Step]) -> None:
        """Find out whether the kernel can make the kinds of links that steps need.

        Raises:
            NetworksUnsupportedError: it lacks one; nothing was changed.
            MissingCapabilityError: this process may not change links.
            NetlinkFailedError: the kernel did not answer.
        """
        kinds = kinds_made(tuple(steps))
        if not kinds:
            return
        requests = [pack_probe(kind, number) for number, kind in enumerate(kinds, 1)]
        answers = await self._run(lambda sock: sock.send(requests, 1), "ask for features")
        for kind, answer in zip(kinds, answers, strict=True):
            if answer.code in _DENIED:
                raise MissingCapabilityError(NO_CAPABILITY)
            if feature := missing_feature(kind, answer.code):
                links = sorted(step.link for step in steps if step.kind in CREATING
                               and kinds_made((step,)) == (kind,))  # fmt: skip
                raise NetworksUnsupportedError(
                    f"this kernel has no {feature}, which {', '.join(links[:5])} needs: load or "
                    "build the module, or take them out of the document",
                    feature=kind,
                )

    async def carry_out(self, steps: Sequence[Step]) -> None:
        """Carry steps out in their order.

        Raises:
            NetworksStepFailedError: the kernel refused one; some after it may have been carried
                out, so look at what there is.
            MissingCapabilityError: this process may not change links.
            NetlinkFailedError: it is not known what was carried out.
        """
        if steps:
            stop = threading.Event()
            try:
                await self._run(lambda sock: self._carry_out(sock, steps, stop), "change links")
            finally:
                stop.set()

    def _carry_out(self, sock: BatchSocket, steps: Sequence[Step], stop: threading.Event) -> None:
        """In a thread: batch by batch, with the numbers of new links looked up between."""
        indexes: dict[str, int] = {}
        sequence = 1
        for batch in _batches(steps):
            if stop.is_set():
                return  # nobody waits any more
            unknown = sorted(
                {name for step in batch for name in needs(step) if name not in indexes}
            )
            for some in _slices(unknown):
                lookups = [pack_lookup(name, sequence + n) for n, name in enumerate(some)]
                found = sock.look_up(lookups, sequence)
                sequence += len(lookups)
                indexes |= {name: index for name, index in zip(some, found, strict=True) if index}
            requests = []
            for number, step in enumerate(batch):
                lost = [name for name in needs(step) if name not in indexes]
                if lost:
                    raise NetworksStepFailedError(
                        f"{describe_step(step)}: {lost[0]} vanished meanwhile",
                        link=lost[0],
                        network=step.network,
                    )
                requests.append(pack_step(step, sequence + number, indexes))
            answers = sock.send(requests, sequence)
            self.requests += len(requests)
            sequence += len(requests)
            for step in batch:
                if step.kind in CREATING:
                    indexes.pop(step.link, None)  # of one that was deleted under that name
            for step, answer in zip(batch, answers, strict=True):
                if answer.code in _DENIED:
                    raise MissingCapabilityError(NO_CAPABILITY, doing=describe_step(step))
                if answer.code and not _is_done(step, answer.code):
                    raise NetworksStepFailedError(
                        f"{describe_step(step)}: {answer.reason}",
                        link=step.link,
                        network=step.network,
                        errno=answer.code,
                    )

    async def _run(self, work: Callable[[BatchSocket], T], doing: str) -> T:
        # Opened here: a socket belongs to the namespace of the thread that opens it.
        sock = BatchSocket()
        future = start_thread(lambda: _closing(sock, work), "network-batch")
        try:
            is_done = await wait_done(future, STEPS_TIMEOUT_S)
        except asyncio.CancelledError:
            # What comes next must not meet a batch that is still being worked off.
            await wait_done(future, STEPS_TIMEOUT_S)
            raise
        if not is_done:
            raise NetlinkFailedError(f"could not {doing} within {STEPS_TIMEOUT_S:g} s")
        return future.result()


def _closing(sock: BatchSocket, work: Callable[[BatchSocket], T]) -> T:
    try:
        return work(sock)
    finally:
        sock.close()


def _batches(steps: Sequence[Step]) -> Iterator[list[Step]]:
    """Cut before a step that needs the number of a link which an earlier step makes."""
    batch: list[Step] = []
    made: set[str] = set()
    for step in steps:
        if len(batch) == BATCH_MAX or made.intersection(needs(step)):
            yield batch
            batch, made = [], set()
        batch.append(step)
        if step.kind in CREATING:
            made.add(step.link)
    if batch:
        yield batch


def _slices(names: list[str]) -> Iterator[list[str]]:
    # An answer to a look-up is a whole link, some 1.5 KiB.
    size = BATCH_MAX // 4
    for start in range(0, len(names), size):
        yield names[start : start + size]


def _is_done(step: Step, code: int) -> bool:
    """Tell whether an error means that what is to be taken away is gone already."""
    if step.kind is StepKind.REMOVE_ADDRESS:
        return code == errno.EADDRNOTAVAIL  # the network's first address took it along
    if step.kind is StepKind.REMOVE_REMOTE:
        return code == errno.ENOENT
    if step.kind is StepKind.ADD_REMOTE:
        return code == errno.EEXIST
    return False
