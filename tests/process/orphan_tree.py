"""A tree whose programs leave processes behind in every way; run as a program by test_orphans.

Usage: ``python -m tests.process.orphan_tree DIRECTORY GUEST``, where GUEST is an exempt program.
"""

from __future__ import annotations

import sys

from supervisor import command, run, subtree
from supervisor.core.spec import ChildSpec

_LEAVING = {
    "own-session": "setsid -f sleep 1000",
    "double-forked": "(sleep 1000 &)",
    "stopped": "sleep 1000 & kill -STOP $!",
    "deaf": "(trap '' TERM HUP INT; sleep 1000) &",
}


def leaving(prefix: str, guest: str) -> list[ChildSpec]:
    """Programs that each leave something behind, and one that starts a guest."""
    scripts = {**_LEAVING, "guest": f"setsid -f {guest} 1000"}
    return [
        command(f"{prefix}-{name}", ["sh", "-c", f"{script}\nexec sleep 1000"])
        for name, script in scripts.items()
    ]


def main() -> int:
    """Run the tree until it is told to stop."""
    directory, guest = sys.argv[1:]
    inner = subtree("inner", leaving("inner", guest))
    outer = subtree("outer", [*leaving("outer", guest), inner])
    return run([*leaving("top", guest), outer], state_dir=directory, exempt=(guest,))


if __name__ == "__main__":
    sys.exit(main())
