"""A record in a JSON file that is whole at every moment and durable once written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Generic, TypeVar

from protocol.errors import NovacronError, RemoteProtocolError
from protocol.records import from_wire, to_wire
from services.files import remove_file, replace_file

R = TypeVar("R")
# The way back of a change of some ten thousand links.
_BYTES_MAX = 32 << 20


class StateFile(Generic[R]):
    """One file; its directory is made when it is first written.

    Args:
        file: where it is.
        record: the class of what it holds, with a field ``format``.
        expected_format: the number that the field must have.
        error: what is raised, with ``file`` as a field.
        advice: what to do about a file that is not understood.
    """

    def __init__(
        self,
        file: Path,
        record: type[R],
        *,
        expected_format: int,
        error: type[NovacronError],
        advice: str,
    ) -> None:
        self._file = file
        self._record = record
        self._format = expected_format
        self._error = error
        self._advice = advice

    def read(self) -> R | None:
        """What it holds; None where it is not there.

        Raises:
            NovacronError: of the class ``error``: it is damaged or from a newer program.
        """
        file = self._file
        try:
            with file.open("rb") as stream:
                data = stream.read(_BYTES_MAX + 1)
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise self._error(f"can't read {file}: {exc.strerror}", file=str(file)) from exc
        try:
            if len(data) > _BYTES_MAX:
                raise ValueError(f"it is larger than {_BYTES_MAX} bytes")
            value = json.loads(data)
            if isinstance(value, dict) and value.get("format") != self._format:
                raise ValueError(f"its format is {value.get('format')!r:.20}, not {self._format}")
            return from_wire(self._record, value)
        except (ValueError, RemoteProtocolError) as exc:
            raise self._error(
                f"{file} is not understood ({exc}): {self._advice}", file=str(file)
            ) from exc

    def write(self, record: R) -> None:
        """Keep a record; durable when it returns.

        Raises:
            NovacronError: of the class ``error``: it could not be written; the old one is whole.
        """
        file = self._file
        text = json.dumps(to_wire(record))  # dump to a file would take ten times as long
        if len(text) > _BYTES_MAX:
            raise self._error(f"{file} would be larger than {_BYTES_MAX} bytes", file=str(file))
        try:
            file.parent.mkdir(mode=0o700, exist_ok=True)
            replace_file(file, text)
        except OSError as exc:
            raise self._error(f"can't write {file}: {exc.strerror}", file=str(file)) from exc

    def remove(self) -> None:
        """Remove it if it is there.

        Raises:
            NovacronError: of the class ``error``: it can't be removed.
        """
        try:
            remove_file(self._file)
        except OSError as exc:
            raise self._error(f"can't remove {self._file}: {exc.strerror}") from exc
