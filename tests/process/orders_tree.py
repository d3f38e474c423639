"""A tree with a pool, for test_orders; run as a program with its state directory."""

from __future__ import annotations

import sys

from supervisor import command, run, subtree

SLEEP = ("sleep", "1000")

if __name__ == "__main__":
    pool = subtree("pool", [command("worker", SLEEP)], strategy="simple_one_for_one")
    sys.exit(run([command("first", SLEEP), pool], state_dir=sys.argv[1]))
