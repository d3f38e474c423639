"""Points in time as an operator types them."""

from __future__ import annotations

import re
import time

import click

_AGO = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d)")
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class Moment(click.ParamType[float]):
    """``5m`` ago, or a local date and time; becomes Unix time."""

    name = "moment"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Turn the text into Unix time."""
        import datetime as dt

        text = str(value)
        if found := _AGO.fullmatch(text):
            return time.time() - float(found[1]) * _UNITS_S[found[2]]
        try:
            return dt.datetime.fromisoformat(text).timestamp()
        except (ValueError, OverflowError):
            self.fail(
                f"{text!r} is neither an age such as 90s, 5m, 4h, 2d nor an ISO time", param, ctx
            )
