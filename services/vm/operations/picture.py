"""A hypervisor's screenshot as PNG. Pure.

Source: Netpbm's PPM (P6) and the PNG specification (RFC 2083), sections 3, 4 and 6.
"""

from __future__ import annotations

import re
import struct
import zlib

from services.vm.operations.errors import OperationFailedError, OperationRefusedError

# A message holds a mebibyte; the rest is for what surrounds the picture.
PNG_BYTES_MAX = 1_000_000
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = 3
# One white-space byte ends the head; what follows may look like more of it.
_PPM_HEAD = re.compile(rb"P6\s+(\d{1,6})\s+(\d{1,6})\s+(\d{1,5})\s")


def as_png(mime: str, data: bytes) -> bytes:
    """The picture as PNG.

    Args:
        mime: what libvirt says it is.
        data: the picture, PNG or PPM; QEMU makes the latter.

    Raises:
        OperationFailedError: it is neither.
        OperationRefusedError: it fits into no message.
    """
    if data.startswith(_SIGNATURE):
        found = data
    elif data.startswith(b"P6"):
        found = _from_ppm(data)
    else:
        raise OperationFailedError(f"the hypervisor sent {mime}, which is neither PNG nor PPM")
    if len(found) > PNG_BYTES_MAX:
        raise OperationRefusedError(
            f"the picture takes {len(found)} bytes; at most {PNG_BYTES_MAX} can be sent"
        )
    return found


def _from_ppm(data: bytes) -> bytes:
    match = _PPM_HEAD.match(data)
    if match is None:
        raise OperationFailedError("the hypervisor's picture has no head")
    width, height, depth = (int(number) for number in match.groups())
    pixels = data[match.end() :]
    row_bytes = width * _CHANNELS
    if depth != 255 or len(pixels) != row_bytes * height or not pixels:
        raise OperationFailedError("the hypervisor's picture is not whole")
    rows = b"".join(
        b"\0" + pixels[start : start + row_bytes] for start in range(0, len(pixels), row_bytes)
    )
    head = struct.pack("!IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    return _SIGNATURE + b"".join(_chunk(kind, body) for kind, body in parts)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack("!I", len(body)) + kind + body + struct.pack("!I", zlib.crc32(kind + body))
