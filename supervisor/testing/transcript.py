"""What happened in a test, one line each, and assertions that show the difference.

Example:
    >>> transcript = Transcript()
    >>> transcript.note(0.0, "spawn a")
    >>> transcript.note(0.25, "all up")
    >>> list(transcript)
    ['0.000 spawn a', '0.250 all up']
    >>> transcript.assert_order("spawn a", "all up")
    >>> transcript.times_of("all up")
    [0.25]
    >>> transcript.take()
    ['spawn a', 'all up']
"""

from __future__ import annotations


class Transcript(list[str]):
    """Lines of the shape ``<seconds> <what was done>``, oldest first."""

    def note(self, at_s: float, what: str) -> None:
        """Write a line."""
        self.append(f"{at_s:.3f} {what}")

    def texts(self) -> list[str]:
        """The lines without their times."""
        return [line.split(" ", 1)[1] for line in self]

    def take(self) -> list[str]:
        """The lines without their times, and a new page from here on."""
        lines = self.texts()
        self.clear()
        return lines

    def times_of(self, what: str) -> list[float]:
        """When a thing was done, each time."""
        return [float(line.split(" ", 1)[0]) for line in self if line.split(" ", 1)[1] == what]

    def assert_order(self, *expected: str) -> None:
        """Check that these things were done in this order, whatever was done between them.

        Raises:
            AssertionError: shows the whole transcript, and the first thing that is missing.
        """
        lines = iter(self.texts())
        for what in expected:
            if what not in lines:  # consumes the lines up to the one that is looked for
                raise AssertionError(f"{what!r} is missing, or too early, in:\n{self}")

    def assert_never(self, what: str) -> None:
        """Check that a thing was not done.

        Raises:
            AssertionError: shows the whole transcript.
        """
        if what in self.texts():
            raise AssertionError(f"{what!r} was done in:\n{self}")

    def __str__(self) -> str:
        return "\n".join(self)
