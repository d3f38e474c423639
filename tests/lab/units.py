"""Quantities as one writes them on a command line: 200mbit, 50ms, 1%, 256kb."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.lab.errors import LabError

_NUMBER = re.compile(r"(\d+(?:\.\d+)?)([a-z%]*)")
_RATES = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9}
_TIMES = {"us": 1, "ms": 10**3, "s": 10**6}
_SIZES = {"b": 1, "kb": 10**3, "mb": 10**6, "kib": 2**10, "mib": 2**20}
_SHARES = {"%": 10**4, "ppm": 1}
DELAY_MAX_US = 60 * 10**6


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a direction of a link does to packets; None leaves a value as it is.

    Attributes:
        rate_bits_s: bits of whole IP packets per second; 0 for no limit.
        delay_us: from the end of a packet's transmission to its arrival, microseconds.
        queue_bytes: most bytes that wait for their transmission; what comes then is dropped.
        loss_ppm: packets of a million that are lost, each on its own.
        is_cut: nothing passes.
        seed: of the losses; None: by time.
    """

    rate_bits_s: int | None = None
    delay_us: int | None = None
    queue_bytes: int | None = None
    loss_ppm: int | None = None
    is_cut: bool | None = None
    seed: int | None = None

    def words(self) -> str:
        """The values as the link program takes them."""
        named = {
            "rate": self.rate_bits_s,
            "delay": self.delay_us,
            "queue": self.queue_bytes,
            "loss": self.loss_ppm,
            "cut": self.is_cut,
            "seed": self.seed,
        }
        return " ".join(f"{key}={int(value)}" for key, value in named.items() if value is not None)


def parse_shape(
    *, rate: str | None, delay: str | None, queue: str | None, loss: str | None
) -> Shape:
    """A shape from what was written.

    Raises:
        LabError: something is no quantity of its kind, or out of range.
    """
    shape = Shape(
        rate_bits_s=_quantity("rate", rate, _RATES, example="200mbit"),
        delay_us=_quantity("delay", delay, _TIMES, example="50ms"),
        queue_bytes=_quantity("queue", queue, _SIZES, example="256kib"),
        loss_ppm=_quantity("loss", loss, _SHARES, example="1%"),
    )
    if (shape.loss_ppm or 0) > 10**6:
        raise LabError(f"loss is at most 100%, not {loss}")
    if (shape.delay_us or 0) > DELAY_MAX_US:
        raise LabError(f"delay is at most 60s, not {delay}")
    return shape


def _quantity(kind: str, text: str | None, units: dict[str, int], *, example: str) -> int | None:
    if text is None:
        return None
    match = _NUMBER.fullmatch(text.strip().lower())
    if match is None or (match[2] not in units and float(match[1]) != 0):
        raise LabError(f"{kind} is a number with {', '.join(units)}, such as {example}: not {text}")
    return round(float(match[1]) * units.get(match[2], 1))
