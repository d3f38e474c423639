"""The caller's side of the cache: get a value, or load it once for all who want it.

    disks = await CacheClient(context).load("disks", read_disks, ttl_s=10, stale_s=60)

A cache that is away, slow or wrong costs the caller a loading and never an error.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from protocol.errors import (
    CallTimeoutError,
    PeerUnavailableError,
    RemoteCallError,
    RemoteProtocolError,
)
from protocol.records import Plain, from_wire, to_wire
from services.data.cache_records import (
    AbandonRequest,
    GetReply,
    GetRequest,
    KeyRequest,
    Scope,
    SetRequest,
)
from supervisor.child.service import ServiceContext

CACHE = "data/cache"
# A cache that takes longer is worse than none.
TIMEOUT_S = 1.0
_AWAY = (PeerUnavailableError, CallTimeoutError, RemoteCallError, RemoteProtocolError)
_MISS = GetReply(found=False, value=None, is_absent=False, is_stale=False, load="")

Loader = Callable[[], Awaitable[Plain]]


class CacheClient:
    """Values that other processes may have as well.

    Args:
        context: of the service.
        timeout_s: of one call, beside the wait for another's loading.
    """

    def __init__(self, context: ServiceContext, *, timeout_s: float = TIMEOUT_S) -> None:
        self._context = context
        self._timeout_s = timeout_s

    async def load(
        self,
        key: str,
        loader: Loader,
        *,
        ttl_s: float,
        stale_s: float = 0.0,
        absent_ttl_s: float = 0.0,
        load_s: float = 10.0,
        wait_s: float = 5.0,
        scope: Scope = Scope.NODE,
    ) -> Plain:
        """The cached value, or what the loader returns, cached.

        Args:
            key: names it, for all callers in the scope.
            loader: gets the value; its error reaches the caller, and another caller tries next.
            ttl_s: how long a value is good.
            stale_s: how long after that it may serve while somebody loads a new one.
            absent_ttl_s: more than 0: None means that there is nothing, and is kept so long.
            load_s: how long loading takes at most; then another caller may try.
            wait_s: how long to wait for another's loading before loading nevertheless.
            scope: this node's or all nodes'.
        """
        request = GetRequest(key=key, scope=scope, load_s=load_s, wait_s=wait_s)
        found = await self._get(request)
        if found.is_absent:
            return None
        if found.found and not found.load:
            return found.value
        try:
            value = await loader()
        except BaseException:
            if found.load:
                body = to_wire(AbandonRequest(key=key, scope=scope, load=found.load))
                await self._context.cast(CACHE, "cache.abandon", body)
            raise
        is_absent = value is None and absent_ttl_s > 0
        if found.load:
            await self._set(
                SetRequest(
                    key=key,
                    value=None if is_absent else value,
                    ttl_s=absent_ttl_s if is_absent else ttl_s,
                    stale_s=0.0 if is_absent else stale_s,
                    scope=scope,
                    is_absent=is_absent,
                    load=found.load,
                )
            )
        return value

    async def forget(self, key: str, *, scope: Scope = Scope.NODE) -> None:
        """Delete a value, on all nodes where it is shared."""
        try:
            await self._call("cache.delete", to_wire(KeyRequest(key=key, scope=scope)))
        except _AWAY as exc:
            self._context.log.warning("cache_not_told", key=key, reason=str(exc))

    async def _get(self, request: GetRequest) -> GetReply:
        try:
            reply = await self._call("cache.get", to_wire(request), wait_s=request.wait_s)
            return from_wire(GetReply, reply)
        except _AWAY as exc:
            self._context.log.debug("cache_away", reason=str(exc))
            return _MISS

    async def _set(self, request: SetRequest) -> None:
        try:
            await self._call("cache.set", to_wire(request))
        except _AWAY as exc:
            self._context.log.debug("cache_away", reason=str(exc))

    async def _call(self, method: str, body: Plain, *, wait_s: float = 0.0) -> Plain:
        return await self._context.call(CACHE, method, body, timeout_s=self._timeout_s + wait_s)
