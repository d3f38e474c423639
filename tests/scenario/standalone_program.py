"""A program that runs a tree of its own, as the test that starts it wants it.

Arguments: the state directory, a mode, and what the mode needs.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path

import supervisor
from supervisor import CriticalError, Request, Service, ServiceContext, command, run, subtree
from supervisor.child.service import CallHandler
from supervisor.core.spec import ChildSpec

SLEEP = ("sleep", "1000")


class Counter(Service):
    """Counts calls."""

    async def init(self, context: ServiceContext) -> None:
        """Begin at what the settings say."""
        self._count = context.settings["begin"]

    def calls(self) -> Mapping[str, CallHandler]:
        """One call."""
        return {"count": self._add}

    def _add(self, _request: Request) -> int:
        assert isinstance(self._count, int)
        self._count += 1
        return self._count


class Hopeless(Service):
    """Says that trying again would not help."""

    async def init(self, _context: ServiceContext) -> None:
        """Fail."""
        raise CriticalError("it can't be helped")


def listed(file: str) -> Iterable[ChildSpec]:
    """A ``sleep`` for each word of a file."""
    words = Path(file).read_text().split()
    return [
        command(word, [word if word == "nothing-like-it" else "sleep", "1000"]) for word in words
    ]


def main() -> int:
    """Run what the arguments say; returns the exit code."""
    state_dir, mode, *rest = sys.argv[1:]
    counter = supervisor.service("counter", Counter, settings={"begin": 10})
    match mode:
        case "tree":
            below = subtree("below", [command("one", SLEEP), command("two", SLEEP)])
            children = [command("first", SLEEP), counter, below]
            return run(children, state_dir=state_dir, name="test", intensity=10, period_s=60.0)
        case "threaded":
            threading.Thread(target=threading.Event().wait, daemon=True).start()
            return run([counter], state_dir=state_dir)
        case "pool":
            jobs = subtree("jobs", [command("job", ["sleep", "60"])], strategy="simple_one_for_one")
            return run([jobs], state_dir=state_dir)
        case "named":
            return run([command(name, SLEEP) for name in rest], state_dir=state_dir)
        case "list":
            return run(listed(rest[0]), state_dir=state_dir, reload=lambda: listed(rest[0]))
        case "escalate":
            at_once = supervisor.Backoff(initial_s=0.0, max_s=0.0)
            failing = command("failing", ["false"])
            calm = command("calm", SLEEP)
            return run([calm, failing], state_dir=state_dir, intensity=3, backoff=at_once)
        case "job":
            job = command("job", ["true"], restart="transient", significant=True)
            return run([command("calm", SLEEP), job], auto_shutdown="any_significant")
        case "unstartable":
            return run([command("calm", SLEEP), command("bad", ["no-such-program"])])
        case "critical":
            return run([command("calm", SLEEP), supervisor.service("hopeless", Hopeless)])
        case "twice":
            codes = [run([command("calm", ["sleep", "1000"])], state_dir=state_dir) for _ in "12"]
            handled = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
            sys.stdout.write(f"{codes} {handled}\n")
            return 0
        case _:
            raise ValueError(mode)


if __name__ == "__main__":
    sys.exit(main())
