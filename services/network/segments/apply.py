"""Brings segments in force: journal, one transaction, health check, confirmation or restoration.

    state      from          to
    idle       apply         journal written -> changed -> checked -> confirmed, journal removed
    changed    check fails   restored, journal removed
    any        kill -9       at the next start: a journal is there -> restored, journal removed

Invariant: at every moment either the confirmed set is in force, or a journal on disk says what to
put back. Only the table ``bridge novacron-segments`` is ever written.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace

from services.network.segments import render
from services.network.segments.changes import TableChanges
from services.network.segments.compile import compile_document
from services.network.segments.errors import (
    NftFailedError,
    NftMissingError,
    NftTimeoutError,
    SegmentsBusyError,
    SegmentsNotWantedError,
    SegmentsRestoreFailedError,
    SegmentsStateError,
)
from services.network.segments.messages import Applied, SegmentsState, SegmentsStatus
from services.network.segments.model import SegmentDocument
from services.network.segments.nft import Listing, Nft
from services.network.segments.plan import SegmentPlan, plan_steps
from services.network.segments.probe import Probe
from services.network.segments.ruleset import Ruleset
from services.network.segments.store import FORMAT, Confirmed, Journal, SegmentStore


class Segments:
    """The segments of one host. Use it in one loop.

    Args:
        nft: runs the program.
        store: keeps what is wanted.
        changes: follows the table; None where nobody does, so that each change reads it first.
    """

    def __init__(
        self, nft: Nft, store: SegmentStore, *, changes: TableChanges | None = None
    ) -> None:
        self._nft = nft
        self._store = store
        self._changes = changes
        self._confirmed: Confirmed | None = None
        # What is in force as far as we know; None after anything that leaves doubts.
        self._known: Ruleset | None = None
        self._lock = asyncio.Lock()
        self._is_changing = False
        self._status = SegmentsStatus(state=SegmentsState.NONE)

    @property
    def status(self) -> SegmentsStatus:
        """How they are, as last seen."""
        return self._status

    @property
    def document(self) -> SegmentDocument | None:
        """What is wanted."""
        return None if self._confirmed is None else self._confirmed.document

    async def open(self) -> str:
        """Finish what a dead process left, and put back what is wanted.

        Returns:
            What was restored, for an event; "" where nothing had to be.

        Raises:
            SegmentsStateError: a file is damaged; nothing is touched.
        """
        async with self._lock:
            self._confirmed = self._store.read_confirmed()
            journal = self._store.read_journal()
            if journal is None and self._confirmed is None:
                return ""
            try:
                return await self._recover(journal)
            except (NftFailedError, NftMissingError, NftTimeoutError) as exc:
                self._note(SegmentsState.FAILED, exc.message)
                return ""

    async def plan(self, document: SegmentDocument) -> SegmentPlan:
        """What applying the document would do; changes nothing.

        Raises:
            SegmentsTooLargeError: see ``compile``.
        """
        wanted = compile_document(document)
        known = SegmentDocument() if self.document is None else self.document
        commands = (
            render.replace(None, wanted)
            if self._known is None
            else render.change(self._known, wanted)
        )
        drifted = self._status.state is not SegmentsState.IN_FORCE
        return SegmentPlan(
            revision=self._status.revision,
            steps=plan_steps(known, document),
            drift=self._status.reason if drifted else "",
            commands=len(commands),
            rules=_count_rules(document),
            elements=sum(len(item.elements) for item in wanted.sets.values()),
        )

    async def apply(self, document: SegmentDocument | None, probe: Probe) -> Applied:
        """Put a document in force, or what is wanted anew; keep it if the probe is content.

        Raises:
            SegmentsBusyError: another change is under way.
            SegmentsNotWantedError: no document, and none was ever applied.
            SegmentsTooLargeError, NftMissingError, NftFailedError: nothing was changed.
            SegmentsCheckFailedError, NftTimeoutError: the previous set is in force again.
            SegmentsStateError: the confirmation could not be written; restored as well.
            SegmentsRestoreFailedError: it could not be restored.
        """
        if self._is_changing:
            raise SegmentsBusyError("another change of the segments is under way")
        self._is_changing = True
        try:
            async with self._lock:
                return await self._apply(document, probe)
        finally:
            self._is_changing = False

    async def verify(self) -> bool:
        """Compare the kernel's table with what was applied; True where it is.

        Raises:
            NftMissingError, NftFailedError, NftTimeoutError: the table can't be read.
        """
        if self._confirmed is None:
            return True
        async with self._lock:
            if self._changes is not None:
                self._changes.forget()
            listing = await self._nft.read()
            if not self._confirmed.fingerprint and self._known is not None:
                self._confirmed = replace(self._confirmed, fingerprint=listing.fingerprint)
                self._store.write_confirmed(self._confirmed)
            if listing.present is not None and listing.fingerprint == self._confirmed.fingerprint:
                self._note(SegmentsState.IN_FORCE)
                return True
            self._known = None
            self._note(SegmentsState.DRIFTED, _drift(listing))
            return False

    async def _apply(self, document: SegmentDocument | None, probe: Probe) -> Applied:
        began_s = time.monotonic()
        target = document if document is not None else self.document
        if target is None:
            raise SegmentsNotWantedError("no segments were ever applied: name a document")
        wanted = compile_document(target)
        commands = await self._commands_to(wanted)
        revision = self._revision() + 1
        self._store.write_journal(await self._journal(revision))
        try:
            commit_s = await self._change(commands, probe)
            self._confirm(
                Confirmed(format=FORMAT, revision=revision, document=target, applied_s=time.time())
            )
        except (NftFailedError, NftMissingError):
            self._store.end_journal()  # nft is atomic: nothing has changed
            raise
        except BaseException as exc:
            await asyncio.shield(self._take_back(exc))
            raise
        steps = len(plan_steps(self.document or SegmentDocument(), target))
        self._known = wanted
        self._note(SegmentsState.IN_FORCE)
        return Applied(
            revision=revision,
            steps=steps,
            commands=len(commands),
            commit_s=commit_s,
            total_s=time.monotonic() - began_s,
        )

    async def _recover(self, journal: Journal | None) -> str:
        restored = ""
        if journal is not None and (
            self._confirmed is None or journal.revision > self._confirmed.revision
        ):
            await self._restore(journal)
            restored = f"change {journal.revision} was not confirmed and is taken back"
        self._store.end_journal()
        if self._confirmed is None:
            return restored
        self._known = compile_document(self._confirmed.document)
        if not restored:
            listing = await self._nft.read()
            if listing.present is None or listing.fingerprint != self._confirmed.fingerprint:
                await self._commit(render.replace(listing.present, self._known))
                restored = "the segments were not in force and are put back"
                self._confirmed = replace(self._confirmed, fingerprint="")
        self._note(SegmentsState.IN_FORCE)
        self._status = replace(self._status, restored=restored)
        return restored

    async def _commands_to(self, wanted: Ruleset) -> list[render.Command]:
        """The shortest safe way: the difference where the table is surely ours, else all of it."""
        is_watched = self._changes is not None and not self._changes.has_changed()
        if self._known is not None and is_watched:
            return render.change(self._known, wanted)
        listing = await self._nft.read()
        expected = "" if self._confirmed is None else self._confirmed.fingerprint
        if self._known is not None and expected and listing.fingerprint == expected:
            return render.change(self._known, wanted)
        return render.replace(listing.present, wanted)

    async def _journal(self, revision: int) -> Journal:
        if self._confirmed is not None:
            return Journal(format=FORMAT, revision=revision, previous=self._confirmed.document)
        return Journal(format=FORMAT, revision=revision, snapshot=await self._nft.snapshot())

    async def _change(self, commands: list[render.Command], probe: Probe) -> float:
        began_s = time.monotonic()
        await self._commit(commands)
        commit_s = time.monotonic() - began_s
        await probe()
        return commit_s

    async def _commit(self, commands: list[render.Command]) -> None:
        with self._changes.ours() if self._changes is not None else contextlib.nullcontext():
            await self._nft.commit(commands)

    def _confirm(self, confirmed: Confirmed) -> None:
        self._store.write_confirmed(confirmed)
        self._confirmed = confirmed
        with contextlib.suppress(SegmentsStateError):  # left over, it means nothing
            self._store.end_journal()

    async def _take_back(self, reason: BaseException) -> None:
        journal = self._store.read_journal()
        if journal is None or journal.revision == self._revision():
            return  # confirmed already
        try:
            await self._restore(journal)
        except (NftFailedError, NftMissingError, NftTimeoutError) as exc:
            self._note(SegmentsState.FAILED, f"could not restore the segments: {exc.message}")
            raise SegmentsRestoreFailedError(
                f"the change failed ({reason}) and so did restoring what was before: "
                f"{exc.message}; restart core/network to try again"
            ) from exc
        self._store.end_journal()
        self._known = None if self.document is None else compile_document(self.document)
        if self._confirmed is None:
            self._note(SegmentsState.NONE)
        else:
            self._confirmed = replace(self._confirmed, fingerprint="")
            self._note(SegmentsState.IN_FORCE)

    async def _restore(self, journal: Journal) -> None:
        listing = await self._nft.read()
        if journal.previous is not None:
            previous = compile_document(journal.previous)
            await self._commit(render.replace(listing.present, previous))
        elif journal.snapshot:
            await self._commit(render.restore(listing.present, journal.snapshot))
        elif listing.present is not None:
            await self._commit(render.remove(listing.present))

    def _revision(self) -> int:
        return 0 if self._confirmed is None else self._confirmed.revision

    def _note(self, state: SegmentsState, reason: str = "") -> None:
        confirmed = self._confirmed
        self._status = SegmentsStatus(
            state=state,
            reason=reason,
            revision=self._revision(),
            applied_s=None if confirmed is None else confirmed.applied_s,
            interfaces=0 if confirmed is None else len(confirmed.document.interfaces),
            rules=0 if confirmed is None else _count_rules(confirmed.document),
            restored=self._status.restored,
        )


def _count_rules(document: SegmentDocument) -> int:
    return sum(len(interface.rules) for interface in document.interfaces)


def _drift(listing: Listing) -> str:
    if listing.present is None:
        return "the segments' table was removed; 'novacronctl net segments apply' puts it back"
    return (
        "the segments' table was changed by somebody else; "
        "'novacronctl net segments apply' puts it back"
    )
