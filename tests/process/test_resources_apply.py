"""Resources on real processes: applied to every thread, refused by name, and read back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

from supervisor.core.resources import INFINITY, Resources, Rlimit, SchedulingClass, unmet
from supervisor.posix.memory import MemoryGauge, tree_memory_bytes
from supervisor.posix.resources import apply, holding, set_cpus
from tests.fixtures.fix_node import ROOT

pytestmark = pytest.mark.process

CPUS = sorted(os.sched_getaffinity(0))
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may do this")
# Two threads, waiting; then what is to be done, and what this says as JSON.
_THREADED = """
    import json, os, sys, threading
    sys.path.insert(0, {root!r})
    from supervisor.core.resources import *
    from supervisor.posix.resources import apply, holding
    over = threading.Event()
    threads = [threading.Thread(target=over.wait) for _ in range(2)]
    for thread in threads:
        thread.start()
    tasks = [int(task) for task in os.listdir("/proc/self/task")]
    said = {expression}
    print(json.dumps(said))
    over.set()
"""


def threaded(expression: str, *, user: str | None = None) -> Any:
    """Evaluate an expression in a process with three threads, ``tasks``."""
    code = textwrap.dedent(_THREADED).format(root=str(ROOT), expression=expression)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=20,
        user=user,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def sleeper() -> Iterator[int]:
    """The pid of a process that does nothing."""
    process = subprocess.Popen(["/bin/sleep", "1000"])
    yield process.pid
    process.kill()
    process.wait()


def test_every_thread_is_set() -> None:
    """A process that had threads before: CPU, policy and nice hold for all of them."""
    expression = f"""[
        apply(Resources(nice=5, scheduling=SchedulingClass.BATCH), ({CPUS[-1]},)),
        [[sorted(os.sched_getaffinity(task)), os.getpriority(os.PRIO_PROCESS, task),
          os.sched_getscheduler(task)] for task in tasks],
    ]"""

    refused, seen = threaded(expression)

    assert refused == []
    assert seen == [[[CPUS[-1]], 5, os.SCHED_BATCH]] * 3


@needs_root
def test_a_real_time_policy_is_set(sleeper: int) -> None:
    """With its priority, and read back as such."""
    resources = Resources(scheduling=SchedulingClass.FIFO, priority=7)

    refused = apply(resources, pid=sleeper)

    assert refused == []
    assert (os.sched_getscheduler(sleeper), os.sched_getparam(sleeper).sched_priority) == (
        os.SCHED_FIFO,
        7,
    )
    assert unmet(resources, (), holding(sleeper, resources)) == ()


@needs_root
def test_all_that_was_asked_for_holds(sleeper: int) -> None:
    """Set from outside on a process that runs, everything is read back as it was asked for."""
    resources = Resources(
        nice=-3,
        oom_score_adjust=200,
        rlimits={
            "nofile": Rlimit(soft=100, hard=200),
            "core": Rlimit(soft=0, hard=INFINITY),
            "rttime": Rlimit(soft=1_000_000),
        },
    )

    refused = apply(resources, (CPUS[0],), pid=sleeper)

    assert refused == []
    assert unmet(resources, (CPUS[0],), holding(sleeper, resources)) == ()


@needs_root
def test_what_is_refused_is_named_and_the_rest_applied() -> None:
    """An account without rights: each refusal has its reason, and a lower limit still holds."""
    expression = """[
        apply(Resources(
            nice=-5, scheduling=SchedulingClass.FIFO, priority=1, oom_score_adjust=-900,
            rlimits={"nofile": Rlimit(soft=64, hard=1 << 30), "core": Rlimit(soft=0)},
        )),
        __import__("resource").getrlimit(7), __import__("resource").getrlimit(4),
    ]"""

    refused, files, core = threaded(expression, user="nobody")

    assert [sentence.partition(":")[0] for sentence in refused] == [
        "rlimit nofile 64",
        "oom score -900",
        "nice -5",
        "fifo 1",
    ]
    assert all(sentence.endswith(("not permitted", "Permission denied")) for sentence in refused)
    assert files[0] == 64
    assert core == [0, 0]


def test_a_cpu_that_is_not_there_is_named(sleeper: int) -> None:
    """The process keeps the CPUs it had."""
    missing = os.cpu_count() or 1

    (refused,) = apply(Resources(), (missing,), pid=sleeper)

    assert refused == f"cpus {missing}: Invalid argument"
    assert sorted(os.sched_getaffinity(sleeper)) == CPUS


def test_a_lost_cpu_is_seen_and_set_again(sleeper: int) -> None:
    """What a reset by the kernel leaves differs from what was asked for, until set anew."""
    set_cpus(frozenset({CPUS[0]}), pid=sleeper)
    os.sched_setaffinity(sleeper, CPUS)  # as the cpuset controller does it
    if len(CPUS) > 1:
        (sentence,) = unmet(Resources(), (CPUS[0],), holding(sleeper, Resources()))
        assert sentence.startswith(f"cpus {CPUS[0]} (has {CPUS[0]},")

    apply(Resources(), (CPUS[0],), pid=sleeper)

    assert unmet(Resources(), (CPUS[0],), holding(sleeper, Resources())) == ()


def test_reading_a_process_that_has_ended_says_so() -> None:
    """An error, and no old values."""
    process = subprocess.Popen(["/bin/true"])
    process.wait()

    with pytest.raises(OSError, match="No such process"):
        holding(process.pid, Resources())
    assert tree_memory_bytes(process.pid) is None


def test_memory_counts_descendants_and_shared_pages_once() -> None:
    """Private memory of each process, and one shared block for all that use it."""
    code = """
        import mmap, os, time
        shared = mmap.mmap(-1, 32 << 20)
        shared.write(b"x" * (32 << 20))
        for _ in range(2):
            if os.fork() == 0:
                private = bytearray(os.urandom(1)) * (16 << 20)
                shared[:] = b"y" * (32 << 20)
                os.write(1, b"ready\\n")
                time.sleep(1000)
        time.sleep(1000)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, process_group=0
    )
    try:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == [b"ready\n"] * 2
        used = tree_memory_bytes(process.pid)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()

    # 32 shared, twice 16 private, and three interpreters of 4 to 10 each.
    assert used is not None
    assert 64 << 20 < used < 110 << 20


def test_growth_is_seen_at_once_and_descendants_in_time() -> None:
    """The process itself with every look; what it starts at the latest with the third."""
    code = """
        import os, sys
        for line in sys.stdin:
            if line == "fork\\n" and os.fork():
                os.wait()
            block = bytearray(b"x") * (40 << 20)
            os.write(1, b"done\\n")
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        process_group=0,
        bufsize=0,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    gauge = MemoryGauge(process.pid)
    try:
        first = gauge.look(200 << 20)
        assert first is not None
        process.stdin.write(b"grow\n")
        process.stdout.readline()
        grown = gauge.look(200 << 20)
        assert grown is not None
        assert 35 << 20 < grown - first < 60 << 20

        process.stdin.write(b"fork\n")
        process.stdout.readline()
        looks = [gauge.look(1 << 30) for _ in range(3)]
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()

    assert looks[-1] is not None
    assert looks[-1] - grown > 35 << 20
    assert gauge.look(200 << 20) is None
    gauge.close()


def test_threads_that_come_and_go_disturb_nothing() -> None:
    """Setting a process whose threads end meanwhile raises nothing."""
    expression = """[
        [threading.Thread(target=lambda: None).start() for _ in range(20)]
        and apply(Resources(nice=3)) for _ in range(50)
    ]"""

    assert threaded(expression) == [[]] * 50
