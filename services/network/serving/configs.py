"""The files of all dnsmasq of the node: tested before they are used, replaced as a whole."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from services.network.serving import place
from services.network.serving.errors import DnsmasqConfigError, ServingStateError
from services.network.serving.files import write

# It reads one file; the rest is for a machine that is very busy.
_TEST_DEADLINE_S = 20.0
_MESSAGE_LETTERS = 300
_BYTES_MAX = 4 << 20


class Configs:
    """The configurations below a node's state directory."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir

    def names(self) -> list[str]:
        """The networks that have one."""
        try:
            return sorted(path.parent.name for path in self._base.glob("*/dnsmasq.conf"))
        except OSError:
            return []

    def read(self, network: str) -> str:
        """What is in use for a network; "" for nothing."""
        try:
            return place.config_file(self._state_dir, network).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return ""

    def publish(self, network: str, text: str) -> None:
        """Put a tested text in place.

        Raises:
            ServingStateError: it can't be written; the one before is whole.
            DnsmasqMissingError: the host has no account for dnsmasq.
        """
        place.make_directory(self._state_dir, network)
        who = place.account()
        file = place.config_file(self._state_dir, network)
        write(file, text, mode=0o640, owner=(-1, who.gid))

    def read_started(self, network: str) -> str:
        """What a network's dnsmasq was last started with, as ``note_started`` was told."""
        try:
            return (self._base / network / "started").read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return ""

    def note_started(self, network: str, mark: str) -> None:
        """Note what a network's dnsmasq was started with; errors as in ``publish``."""
        write(self._base / network / "started", mark, mode=0o600)

    def remove_all(self) -> None:
        """Forget that anything was ever served."""
        shutil.rmtree(self._base, ignore_errors=True)

    def remove(self, networks: Iterable[str]) -> None:
        """Forget networks, with what they gave out."""
        for network in networks:
            place.end_left_over(self._state_dir, network)
            with contextlib.suppress(FileNotFoundError):
                place.config_file(self._state_dir, network).unlink()
            shutil.rmtree(self._base / network, ignore_errors=True)

    def leases(self, network: str, bytes_max: int) -> str:
        """A network's leases as dnsmasq keeps them.

        Raises:
            ServingStateError: they can't be read.
        """
        file = place.lease_file(self._state_dir, network)
        try:
            with file.open("rb") as stream:
                return stream.read(bytes_max).decode(errors="replace")
        except FileNotFoundError:
            return ""
        except OSError as exc:
            raise ServingStateError(f"can't read {file}: {exc.strerror}", file=str(file)) from exc

    @property
    def _base(self) -> Path:
        return place.base(self._state_dir)


async def test(texts: Mapping[str, str]) -> None:
    """Have dnsmasq read texts as it would, in files that nobody uses.

    Raises:
        DnsmasqMissingError: there is no dnsmasq.
        DnsmasqConfigError: it refuses one; the message names the network and the line.
        ServingStateError: there is no room for a file.
    """
    program = place.program()
    try:
        with tempfile.TemporaryDirectory(prefix="novacron-dnsmasq-") as directory:
            for network, text in texts.items():
                draft = Path(directory, f"{network}.conf")
                draft.write_text(text, encoding="utf-8")  # noqa: ASYNC240 - a few KiB
                await _test(program, network, draft)
    except OSError as exc:
        raise ServingStateError(f"can't try a configuration: {exc.strerror}") from exc


async def _test(program: str, network: str, draft: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        program,
        "--test",
        *place.arguments(draft, draft.with_suffix(".leases")),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={"LC_ALL": "C", "PATH": place.PATH},
    )
    try:
        async with asyncio.timeout(_TEST_DEADLINE_S):
            _, error = await process.communicate()
    except TimeoutError:
        raise DnsmasqConfigError(
            f"network {network}: dnsmasq did not read its configuration within "
            f"{_TEST_DEADLINE_S:g} s",
            network=network,
        ) from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode != 0:
        said = error.decode(errors="replace").strip().replace(str(draft), "its file")
        raise DnsmasqConfigError(
            f"network {network}: dnsmasq refuses the configuration: "
            f"{said.removeprefix('dnsmasq: ')[:_MESSAGE_LETTERS]}",
            network=network,
        )
