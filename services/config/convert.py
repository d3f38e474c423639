"""Values written as text, in variables and references, to what a file would have had there."""

from __future__ import annotations

import re

from protocol.records import Plain
from services.config.keys import Key, KeyKind

# At most 18 digits, as in files.
_WHOLE = re.compile(r"[-+]?[0-9]{1,18}")


def from_text(key: Key, text: str) -> Plain:
    """Turn a text into the key's plain value.

    Lists are separated by commas, and an empty text is the empty list. An empty text is null for
    a key that may be null, except for a secret: an empty password is a mistake, not a wish. What
    can't be turned stays a text, and validation refuses it with the key's own sentence.
    """
    if key.is_list:
        return [_single(key, part.strip()) for part in text.split(",")] if text.strip() else []
    if text == "" and key.is_optional and not key.is_secret:
        return None
    return _single(key, text)


def _single(key: Key, text: str) -> Plain:
    if key.kind is KeyKind.SWITCH and text in ("true", "false"):
        return text == "true"
    if key.kind is KeyKind.WHOLE and _WHOLE.fullmatch(text):
        return int(text)
    return text
