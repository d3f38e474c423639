"""The program that runs this project's supervisor in the benchmark.

Argument: JSON with ``state_dir``, ``kind``, ``count``, ``to``, ``argv`` and ``storm``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from supervisor import Backoff, command, run, service
from supervisor.core.spec import ChildSpec

# The class is imported by the children, by this name.
sys.path.insert(0, str(Path(__file__).parent))
_AT_ONCE = Backoff(initial_s=0.0, max_s=0.0, jitter=0.0)
# Every one of some hundred kills is followed by a restart, with all supervisors.
_RESTARTS_MAX = 1_000_000


def main() -> int:
    """Run the tree; returns the exit code."""
    wanted = json.loads(sys.argv[1])
    children = [_child(number, wanted) for number in range(wanted["count"])]
    if wanted["storm"]:
        children.append(command("calm", ["sleep", "1000"]))
        return run(children, state_dir=wanted["state_dir"])
    return run(
        children,
        state_dir=wanted["state_dir"],
        intensity=_RESTARTS_MAX,
        backoff=_AT_ONCE,
    )


def _child(number: int, wanted: dict[str, object]) -> ChildSpec:
    name, failure = f"c{number}", "degraded" if wanted["storm"] else "recoverable"
    if wanted["kind"] == "python":
        return service(
            name,
            "ours_child:Child",
            settings={"to": str(wanted["to"]), "crash": bool(wanted["storm"])},
            depends_on=(),
            failure=failure,
        )
    argv = wanted["argv"]
    assert isinstance(argv, list)
    return command(name, argv, depends_on=(), failure=failure)


if __name__ == "__main__":
    sys.exit(main())
