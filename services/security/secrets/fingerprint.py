"""What tells whether two processes of this boot have the same value, without telling the value."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_DIGITS = 32


def fingerprint(name: str, value: str) -> str:
    """The fingerprint of a secret's value.

    The same on every call, or a reload would find changes where there are none; of no use on
    another host or after another boot.

    Args:
        name: of the secret, so that equal values of two secrets do not show as equal.
        value: the value.
    """
    key = BOOT_ID.read_bytes()
    return hmac.new(key, f"{name}\0{value}".encode(), hashlib.sha256).hexdigest()[:_DIGITS]
