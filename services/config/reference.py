"""The configuration described: the table of all keys in Markdown, and the JSON schema.

``python -m services.config.reference docs/configuration.md`` writes the table anew between the
two marks of the file; a test fails when it is stale.
"""

from __future__ import annotations

import sys
from pathlib import Path

from protocol.records import Plain
from services.config.durations import DURATION_PATTERN, format_duration
from services.config.keys import Key, key_table
from services.config.model import Config

BEGIN = "<!-- keys: written by python -m services.config.reference docs/configuration.md -->"
END = "<!-- keys end -->"


def key_rows() -> str:
    """The Markdown table of all keys, in the order of the model."""
    head = "| key | value | built in | meaning |\n|---|---|---|---|\n"
    return head + "".join(_row(key) for key in key_table().keys.values())


def with_key_rows(text: str) -> str:
    """A document with the table between its marks.

    Raises:
        ValueError: the marks are missing.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the document has no marks for the table")
    return f"{before}{BEGIN}\n{key_rows()}{END}{after}"


def json_schema() -> dict[str, Plain]:
    """The JSON schema of a configuration file; every key may be left out."""
    schema = Config.model_json_schema(by_alias=True)
    for section in schema["$defs"].values():
        for field in section.get("properties", {}).values():
            if field.get("pattern") == DURATION_PATTERN:  # pydantic leaves the seconds as they are
                field["default"] = format_duration(field["default"])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _row(key: Key) -> str:
    cells = (f"`{key.path}`", key.expected, f"`{_default(key.default)}`", key.description)
    return f"| {' | '.join(cells)} |\n"


def _default(value: Plain) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_default, value))}]"
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    return str(value)


def _main() -> None:
    path = Path(sys.argv[1])
    path.write_text(with_key_rows(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    _main()
