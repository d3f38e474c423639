"""Before a guest is sent: what is known of both nodes, and the disks that it is copied into."""

from __future__ import annotations

from functools import partial

from protocol.errors import NovacronError
from services.vm.errors import LibvirtLostError, LibvirtUnavailableError
from services.vm.migration.checks import SourceFacts, TargetFacts, disks_to_copy, find_refusals
from services.vm.migration.errors import MigrationRefusedError, TargetUnreachableError
from services.vm.migration.needs import NeededDisk
from services.vm.migration.pair import Pair
from services.vm.migration.probes import probes
from services.vm.migration.target import TargetDriver
from services.vm.operations.errors import OperationUnknownError


async def look_at_both(pair: Pair) -> tuple[SourceFacts, TargetFacts]:
    """What is known of both nodes; nothing stands against the move.

    Raises:
        TargetUnreachableError: the target does not answer.
        MigrationRefusedError: something does.
    """
    had = pair.undertaking
    source = await pair.on_source("look at", partial(pair.sender.facts, pair.uuid))
    directories = [disk.directory for disk in source.needs.disks if disk.is_written]

    def look() -> TargetFacts:
        with probes(directories) as made:
            return TargetDriver(pair.other).facts(source, made)

    try:
        target = await pair.on_target(f"look at {had.route.node} for", look)
    except (LibvirtUnavailableError, LibvirtLostError, OperationUnknownError) as exc:
        raise TargetUnreachableError(
            f"{had.name} stays: {had.route.node} does not answer: {exc.message}"
        ) from exc
    refusals = find_refusals(had.request, source, target)
    if refusals:
        raise refusal(had.name, refusals)
    return source, target


async def make_disks(
    pair: Pair, source: SourceFacts, target: TargetFacts
) -> tuple[list[NeededDisk], NovacronError | None]:
    """Make what the disks are copied into; those to be copied, and why it could not be done."""
    copied = disks_to_copy(pair.undertaking.request, source.needs, target)
    for disk in copied:
        if disk.file in target.file_bytes:
            continue
        try:
            work = partial(pair.disks.make, disk, source.disk_bytes[disk.target])
            await pair.on_target(f"make {disk.target} of", work)
        except NovacronError as exc:
            return copied, exc
        # Afterwards, and not before: a file that another has made meanwhile must not be taken for
        # ours, and an empty one that is left after a kill harms nobody.
        await pair.note(made_disks=(*pair.undertaking.made_disks, disk.file))
    return copied, None


def refusal(name: str, reasons: tuple[str, ...]) -> MigrationRefusedError:
    """The error for what stands against moving a guest."""
    return MigrationRefusedError(f"{name} stays: {'; '.join(reasons)}")
