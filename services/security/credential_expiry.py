"""How long something lasts, and what is to be said about that."""

from __future__ import annotations

from collections.abc import Iterator

from services.security.credentials_model import Finding, Severity

DAY_S = 86400.0
# From the latest to the earliest; the first one degrades.
STAGES_DAYS = (1, 7, 30)


def expiry_findings(name: str, ends_s: float | None, now_s: float) -> Iterator[Finding]:
    """What is to be said about the end of anything."""
    if ends_s is None:
        return
    left_s = ends_s - now_s
    if left_s <= 0:
        text = f"{name} has run out {days(-left_s)} ago: replace it"
        yield Finding(severity=Severity.DEGRADED, code="expired", message=text)
        return
    for stage in STAGES_DAYS:
        if left_s <= stage * DAY_S:
            is_last = stage == STAGES_DAYS[0]
            severity = Severity.DEGRADED if is_last else Severity.WARNING
            text = f"{name} runs out in {days(left_s)}: replace it"
            yield Finding(severity=severity, code=f"expires_in_{stage}d", message=text)
            return


def days(seconds: float) -> str:
    """A time for a sentence, in days or hours."""
    count = seconds / DAY_S
    return f"{count:.0f} days" if count >= 2 else f"{seconds / 3600:.0f} hours"
