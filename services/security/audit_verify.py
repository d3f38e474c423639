"""Verification of a range of a node's audit chain, in pages, within a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from services.security.audit import GENESIS, ChainVerifier
from services.security.model import BadRecord, VerifyReport
from services.security.ports import AuditStore

# Some 150 us per record: the loop is held for 30 ms at a time.
PAGE_RECORDS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """A record that must be in the chain, known from outside the database."""

    seq: int
    hash: bytes


async def verify_range(
    store: AuditStore,
    keys: Mapping[str, Ed25519PublicKey],
    *,
    first: int = 1,
    last: int | None = None,
    anchor: Anchor | None = None,
    time_s: float = 60.0,
) -> VerifyReport:
    """Follow the chain through a range and name the first record that is not good.

    Args:
        store: the chain.
        keys: the node's public keys by key id.
        first: sequence number to begin with.
        last: sequence number to end with, included; None is the newest.
        anchor: the last record that the node's own file holds. Without it a chain whose newest
            records were cut off looks whole.
        time_s: when it has passed the report says where to go on.

    Raises:
        AuditUnavailableError: the store can't be reached.
    """
    deadline_s = time.monotonic() + time_s
    before = await store.before(first)
    verifier = ChainVerifier(keys, prev_hash=GENESIS if before is None else before.hash)
    count, at = 0, first
    while True:
        records = await store.page(first=at, last=last, limit=PAGE_RECORDS)
        for record in records:
            reason = verifier.check(record)
            if not reason and anchor is not None and record.seq == anchor.seq:
                reason = "" if record.hash == anchor.hash else _REPLACED
            if reason:
                return VerifyReport(
                    records=count, first_bad=BadRecord(seq=record.seq, reason=reason), next=None
                )
            count += 1
        if len(records) < PAGE_RECORDS:
            break
        at = records[-1].seq + 1
        if time.monotonic() >= deadline_s:
            return VerifyReport(records=count, first_bad=None, next=at)
        await asyncio.sleep(0)
    bad = await _missing_anchor(store, anchor, first=first, last=last)
    return VerifyReport(records=count, first_bad=bad, next=None)


_REPLACED = "is not the record that the node's own audit file holds"


async def _missing_anchor(
    store: AuditStore, anchor: Anchor | None, *, first: int, last: int | None
) -> BadRecord | None:
    if anchor is None or anchor.seq < first or (last is not None and anchor.seq > last):
        return None
    if await store.page(first=anchor.seq, last=anchor.seq, limit=1):
        return None
    return BadRecord(seq=anchor.seq, reason="was removed: the node's own audit file still holds it")
