"""The nft program: one transaction per call, with a deadline; its errors become ours.

An asynchronous process rather than a thread: namespaces belong to threads, and a killed nft has
either committed all or nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from services.network.segments.errors import NftFailedError, NftMissingError, NftTimeoutError
from services.network.segments.render import Command, Present, to_json
from services.network.segments.ruleset import FAMILY, TABLE

# Where the program is looked for; a service need not have it in its own PATH.
PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
# A thousand interfaces take less than a second; the rest is for a machine that is very busy.
DEADLINE_S = 20.0
# A million elements; what is longer is nothing that we made.
_OUTPUT_BYTES_MAX = 64 << 20
_MESSAGE_LETTERS = 300
_ABSENT = "No such file or directory"


@dataclass(frozen=True, slots=True)
class Listing:
    """What the kernel has in our table.

    Attributes:
        present: the names in it; None where there is no table.
        fingerprint: digest of everything but counts, handles and flows; "" without a table.
        drops: packets dropped so far, by set and interface.
        flows: remembered flows.
    """

    present: Present | None = None
    fingerprint: str = ""
    drops: dict[tuple[str, str], int] | None = None
    flows: int = 0


class Nft:
    """Runs nft on our table.

    Args:
        deadline_s: how long one run may take.
        program: the executable; None to find it where the system has it.
        family, table: which table; that of the segments unless said.
    """

    def __init__(
        self,
        *,
        deadline_s: float = DEADLINE_S,
        program: str | None = None,
        family: str = FAMILY,
        table: str = TABLE,
    ) -> None:
        self._deadline_s = deadline_s
        self._program = program
        self._place = (family, table)

    def find(self) -> str:
        """The program's path.

        Raises:
            NftMissingError: there is none.
        """
        found = shutil.which(self._program or "nft", path=PATH)
        if found is None:
            raise NftMissingError(
                "there is no program nft on this host: install the package nftables"
            )
        return found

    async def commit(self, commands: Sequence[Command]) -> None:
        """Carry all commands out, or none.

        Raises:
            NftMissingError, NftTimeoutError: see there.
            NftFailedError: refused; the message names the interface whose document is at fault.
        """
        code, _, error = await self._run(["-j", "-f", "-"], to_json(commands))
        if code != 0:
            origin = await self._culprit(commands)
            where = f"{origin}: " if origin else ""
            raise NftFailedError(
                f"{where}nft refused the change, nothing of it is in force: {_short(error)}",
                interface=origin,
            )

    async def snapshot(self) -> str:
        """The table as ``render.restore`` puts it back, without flows; "" where there is none.

        Raises: as ``read``.
        """
        code, text, error = await self._run(["-j", "list", "table", *self._place])
        if code == 0:
            return take_snapshot(text)
        if _ABSENT in error:
            return ""
        raise NftFailedError(f"nft could not read the table: {_short(error)}")

    async def read(self) -> Listing:
        """What is in force now.

        Raises:
            NftMissingError, NftTimeoutError: see there.
            NftFailedError: the table can't be read.
        """
        code, text, error = await self._run(["-j", "list", "table", *self._place])
        if code == 0:
            return parse_listing(text)
        if _ABSENT in error:
            return Listing()
        raise NftFailedError(f"nft could not read the table: {_short(error)}")

    async def read_drops(self, names: Sequence[str]) -> dict[tuple[str, str], int]:
        """Counts of the sets alone, which is far less than the table; errors as in ``read``."""
        found: dict[tuple[str, str], int] = {}
        for name in names:
            code, text, error = await self._run(["-j", "list", "set", *self._place, name])
            if code != 0:
                raise NftFailedError(f"nft could not read the set {name}: {_short(error)}")
            found.update(parse_listing(text).drops or {})
        return found

    async def _culprit(self, commands: Sequence[Command]) -> str:
        """The interface of the first command that nft does not accept, by halving; or ""."""
        with contextlib.suppress(NftTimeoutError, NftMissingError):
            async with asyncio.timeout(self._deadline_s):
                good, bad = 0, len(commands)
                while bad - good > 1:
                    middle = (good + bad) // 2
                    text = to_json(commands[:middle])
                    code, _, _ = await self._run(["-c", "-j", "-f", "-"], text)
                    good, bad = (middle, bad) if code == 0 else (good, middle)
                return commands[bad - 1].origin if commands else ""
        return ""

    async def _run(self, arguments: list[str], text: str = "") -> tuple[int, bytes, str]:
        program = self.find()
        try:
            process = await asyncio.create_subprocess_exec(
                program,
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={"LC_ALL": "C", "PATH": PATH},
                limit=_OUTPUT_BYTES_MAX,
            )
        except OSError as exc:
            raise NftMissingError(f"{program} can't be run: {exc}") from exc
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(self._deadline_s):
                out, error = await process.communicate(text.encode())
        except TimeoutError:
            raise NftTimeoutError(
                f"nft did not end within {self._deadline_s:g} s and was killed",
                elapsed_s=time.monotonic() - began_s,
            ) from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        assert process.returncode is not None, "communicate waits for the end"
        return process.returncode, out, error.decode(errors="replace")


def parse_listing(text: bytes) -> Listing:
    """Read nft's answer to ``list table`` or ``list set``.

    Raises:
        NftFailedError: it is not nft's JSON.
    """
    names: dict[str, set[str]] = {"set": set(), "map": set(), "chain": set()}
    drops: dict[tuple[str, str], int] = {}
    flows = 0
    parts: dict[tuple[str, str], list[str]] = {}
    try:
        for item in json.loads(text)["nftables"]:
            ((kind, body),) = item.items()
            if kind == "metainfo":
                continue
            if kind in names:
                names[kind].add(body["name"])
            if kind == "set":
                flows += _take_set(body, drops)
            body.pop("handle", None)
            # Rules have an order in their chain; of all else the kernel's order is an accident.
            place = kind, str(body.get("chain", body.get("name", "")))
            parts.setdefault(place, []).append(json.dumps(body, sort_keys=True))
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise NftFailedError(f"nft's answer is not understood: {exc!r}") from exc
    present = Present(*(frozenset(names[kind]) for kind in ("set", "map", "chain")))
    digest = hashlib.sha256(json.dumps(sorted(parts.items())).encode())
    return Listing(present, digest.hexdigest(), drops, flows)


def take_snapshot(text: bytes) -> str:
    """Keep of nft's answer to ``list table`` what is put back: neither handles nor flows."""
    kept = []
    for item in json.loads(text)["nftables"]:
        ((kind, body),) = item.items()
        if kind != "metainfo":
            body.pop("handle", None)
            if "timeout" in body:
                body.pop("elem", None)
            kept.append({kind: body})
    return json.dumps(kept)


def _take_set(body: dict[str, Any], drops: dict[tuple[str, str], int]) -> int:
    """Take flows and counts out of a set, so that they do not count as a difference."""
    if "timeout" in body:
        return len(body.pop("elem", ()))
    keys = []
    for element in body.get("elem", ()):
        if isinstance(element, dict) and "elem" in element:
            inner = element["elem"]
            if "counter" in inner:
                drops[body["name"], str(inner["val"])] = int(inner["counter"]["packets"])
            keys.append(json.dumps(inner["val"], sort_keys=True))
        else:
            keys.append(json.dumps(element, sort_keys=True))
    body["elem"] = sorted(keys)  # the kernel's order of a hash is none
    return 0


def _short(error: str) -> str:
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    told = next((line for line in lines if "rror:" in line), lines[0] if lines else "no reason")
    return told.removeprefix("internal:0:0-0: ").removeprefix("Error: ")[:_MESSAGE_LETTERS]
