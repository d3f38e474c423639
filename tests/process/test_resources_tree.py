"""Limits in a running tree: in force from the first instruction, kept, and shown."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.errors import CallTimeoutError, NovacronError
from supervisor import specs
from supervisor.core.resources import (
    CgroupLimits,
    Resources,
    Rlimit,
    SchedulingClass,
)
from supervisor.core.spec import ChildSpec, ChildType, SupervisorSpec
from supervisor.posix import cgroup
from supervisor.posix.cgroup import NotDelegatedError, own_group
from supervisor.posix.processes import children_of
from tests.fixtures.fix_node import wait_until
from tests.process.limits_tree import BEATS, LimitsTree, misuser

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may set all of this"),
]

CPUS = sorted(os.sched_getaffinity(0))
LAST = CPUS[-1]
OTHERS = set(CPUS[:-1]) or {LAST}
MIB = 1 << 20
LIMITED = CgroupLimits(pids_max=40, memory_max_bytes=512 * MIB, cpu_weight=50)


def threads(pid: int) -> list[int]:
    """The threads of a process."""
    return [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]


def test_reserved_cpus_are_kept_free() -> None:
    """The pinned child has its CPU to itself at every level; root and launcher are not pinned."""
    nested = ChildSpec(
        id="nested",
        type=ChildType.SUPERVISOR,
        children=SupervisorSpec(
            children=(
                specs.command("deep", ["sleep", "1000"]),
                specs.command("deep-pinned", ["sleep", "1000"], cpus=[LAST]),
            )
        ),
    )
    shared = specs.command("shared", ["sleep", "1000"])
    with LimitsTree(misuser("pinned", cpus=(LAST,)), shared, misuser("service"), nested) as tree:
        pids = {
            path: tree.up(path) for path in ("pinned", "shared", "service", "nested", "nested/deep")
        }
        deep_pinned = tree.up("nested/deep-pinned")
        (launcher,) = children_of(tree.process.pid)

        for pid in (pids.pop("pinned"), deep_pinned):
            assert os.sched_getaffinity(pid) == {LAST}
            for task in threads(pid):
                assert os.sched_getaffinity(task) == {LAST}
        for path, pid in pids.items():
            assert os.sched_getaffinity(pid) == OTHERS, path
        for pid in (tree.process.pid, launcher):
            assert sorted(os.sched_getaffinity(pid)) == CPUS
        assert tree.component("pinned").cpus == (LAST,)


def test_a_reload_reserves_cpus_and_frees_them() -> None:
    """Running children of all levels make room within two looks, and none is started again."""
    nested = specs.subtree("nested", [specs.command("deep", ["sleep", "1000"])])
    children = (misuser("service"), nested)
    paths = ("service", "nested", "nested/deep")
    with LimitsTree(*children) as tree:
        pids = [tree.up(path) for path in paths]
        assert [sorted(os.sched_getaffinity(pid)) for pid in pids] == [CPUS] * 3

        tree.reload(*children, misuser("pinned", cpus=(LAST,)))
        wait_until(
            lambda: [os.sched_getaffinity(pid) for pid in pids] == [OTHERS] * 3, "room", 20.0
        )
        tree.reload(*children)
        wait_until(
            lambda: [sorted(os.sched_getaffinity(pid)) for pid in pids] == [CPUS] * 3, "all", 20.0
        )

        assert [tree.up(path) for path in paths] == pids
        assert tree.events("component:limits-restored") == []


def test_what_is_taken_away_is_set_again() -> None:
    """CPUs reset as the cpuset controller does it, renice, another policy: back within a look."""
    resources = Resources(nice=3, oom_score_adjust=300, scheduling=SchedulingClass.BATCH)
    children = (misuser("kept", cpus=(LAST,), resources=resources), misuser("shared"))
    with LimitsTree(*children) as tree:
        kept, shared = tree.up("kept"), tree.up("shared")
        tree.until("kept", lambda it: it.limits == ("batch", "nice 3", "oom score +300"))

        for pid in (kept, shared):
            for task in threads(pid):
                os.sched_setaffinity(task, CPUS)
        os.setpriority(os.PRIO_PROCESS, kept, 10)
        os.sched_setscheduler(kept, os.SCHED_OTHER, os.sched_param(0))
        Path(f"/proc/{kept}/oom_score_adj").write_text("500")

        wait_until(lambda: os.sched_getaffinity(kept) == {LAST}, "pinned again")
        wait_until(lambda: os.sched_getaffinity(shared) == OTHERS, "kept off again")
        assert os.getpriority(os.PRIO_PROCESS, kept) == 3
        assert os.sched_getscheduler(kept) == os.SCHED_BATCH
        assert Path(f"/proc/{kept}/oom_score_adj").read_text() == "300\n"
        Path(f"/proc/{kept}/oom_score_adj").write_text("500")
        wait_until(
            lambda: Path(f"/proc/{kept}/oom_score_adj").read_text() == "300\n", "likewise", 30.0
        )
        for task in threads(kept):
            assert os.sched_getaffinity(task) == {LAST}
        told = [
            limit
            for event in tree.events("component:limits-restored")
            if event["component"] == "kept"
            for limit in event["fields"]["limits"]
        ]
        assert told.count("oom score +300 (has 500)") == 2
        assert len(told) == (5 if len(CPUS) > 1 else 4)


def test_a_command_has_its_limits_before_it_runs() -> None:
    """What the program itself reads first is what was asked for."""
    code = "ulimit -Sn; ulimit -Hn; nice; cat /proc/self/oom_score_adj; exec sleep 1000"
    resources = Resources(
        nice=7, oom_score_adjust=400, rlimits={"nofile": Rlimit(soft=50, hard=60)}
    )
    with LimitsTree(specs.command("shell", ["sh", "-c", code], resources=resources)) as tree:
        tree.up("shell")
        log = tree.directory / "logs/shell.log"

        wait_until(lambda: log.read_text().count("\n") == 4, "the program's words")

        assert log.read_text().split() == ["50", "60", "7", "400"]
        tree.until("shell", lambda it: "nofile 50:60" in it.limits)


def test_what_cannot_be_had_is_shown() -> None:
    """A CPU that is not there: the child runs, status and journal say what does not hold."""
    missing = (os.cpu_count() or 1) + 1
    with LimitsTree(misuser("service", cpus=(missing,))) as tree:
        tree.up("service")

        shown = tree.until("service", lambda it: bool(it.limits))

        (sentence,) = shown.limits
        assert sentence.startswith(f"not applied: cpus {missing} (has ")
        (event,) = tree.events("component:limits-refused")
        assert event["fields"]["limits"] == [sentence.removeprefix("not applied: ")]
        assert "limits_not_applied" in (tree.directory / "logs/service.jsonl").read_text()


def test_what_is_required_and_cannot_be_had_ends_the_child() -> None:
    """No restart would help, so the tree gives up at once, with the reason."""
    missing = (os.cpu_count() or 1) + 1
    child = misuser("service", cpus=(missing,), resources=Resources(required=True))
    tree = LimitsTree(child)
    try:
        assert tree.process.wait(15) == 4
        assert f"cpus {missing}: Invalid argument" in tree.said
        assert "supervisor.limits" in tree.said
    finally:
        tree.discard()


def test_the_soft_step_degrades_and_recovers() -> None:
    """Past the soft limit the child is degraded, with the reason, and no more once it is below."""
    resources = Resources(memory_soft_bytes=80 * MIB, memory_hard_bytes=400 * MIB)
    with LimitsTree(misuser("hog", resources=resources)) as tree:
        pid = tree.up("hog")
        tree.use("hog", 120)

        shown = tree.until("hog", lambda it: it.state.value == "degraded")
        assert shown.reason.startswith("uses 1")
        assert shown.reason.endswith(" MiB of memory, more than 80 MiB")
        assert tree.client.status().reason.startswith("hog is degraded: uses 1")
        tree.client.call("hog", "free")
        tree.until("hog", lambda it: it.state.value == "healthy")

        assert tree.up("hog") == pid
        assert shown.limits == ("memory soft 80 MiB", "memory hard 400 MiB")
        assert [len(tree.events(f"component:memory-{it}")) for it in ("soft", "recovered")] == [
            1,
            1,
        ]


def test_the_hard_step_is_a_failure_with_stacks() -> None:
    """The child leaves its stacks, is told to stop, and starts again; the reason is memory."""
    resources = Resources(memory_hard_bytes=100 * MIB)
    with LimitsTree(misuser("hog", resources=resources)) as tree:
        tree.up("hog")
        tree.use("hog", 120)

        shown = tree.until("hog", lambda it: it.restarts == 1 and it.state.value == "healthy")

        assert shown.last_exit.startswith("killed: used 1")
        assert shown.last_exit.endswith(" MiB of memory, of at most 100 MiB")
        (event,) = tree.events("component:exited")
        assert event["fields"]["code"] == "supervisor.memory"
        assert "Current thread" in tree.stacks("hog")
        assert "run_forever" in tree.stacks("hog")


def test_a_child_that_does_not_stop_for_its_memory_is_killed() -> None:
    """After the time that it has to stop; what it has forked counts and goes with it."""
    resources = Resources(memory_hard_bytes=100 * MIB)
    with LimitsTree(misuser("hog", resources=resources, shutdown_s=0.5)) as tree:
        first = tree.up("hog")
        tree.use("hog", 60, pieces=2)

        shown = tree.until("hog", lambda it: it.restarts == 1 and it.state.value == "healthy")

        assert shown.last_exit.startswith("killed: used 1")
        assert not Path(f"/proc/{first}").exists()


@pytest.mark.parametrize(
    ("misuse", "state", "place"),
    [
        ("stop", "stopped by a signal", "run_forever"),
        ("spin", "busy", "_spin"),
        ("deadlock", "waiting", "_deadlock"),
    ],
)
def test_a_hung_child_leaves_its_stacks(misuse: str, state: str, place: str) -> None:
    """Stopped, in an endless loop, or in a deadlock: its log shows where, and it starts again."""
    with LimitsTree(misuser("hung", liveness=BEATS)) as tree:
        pid = tree.up("hung")
        if misuse == "stop":
            os.kill(pid, signal.SIGSTOP)
        else:
            with pytest.raises(CallTimeoutError):
                tree.client.call("hung", misuse, timeout_s=0.2)

        shown = tree.until("hung", lambda it: it.restarts == 1 and it.state.value == "healthy")

        assert shown.last_exit.startswith("unresponsive")
        assert place in tree.stacks("hung")
        (event,) = tree.events("component:unresponsive")
        assert event["fields"]["state"] == state


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group that is delegated as systemd does it."""
    try:
        directory = own_group() / f"novacron-tree-{os.getpid()}"
        directory.mkdir()
    except (NotDelegatedError, OSError) as exc:
        pytest.skip(str(exc))
    os.setxattr(directory, "trusted.delegate", b"1")
    yield directory
    cgroup.remove(directory)


def test_a_child_gets_a_group_of_the_delegated_part(group: Path) -> None:
    """With what it starts; the group goes with it; limits without a controller are named."""
    script = ["sh", "-c", "sleep 999 & wait"]
    child = specs.command("x", script, resources=Resources(cgroup=LIMITED))
    has = set((group / "cgroup.controllers").read_text().split())
    with LimitsTree(child, group=group) as tree:
        pid = tree.up("x")
        own = group / "x"
        inside = wait_until(
            lambda: len(it := (own / "cgroup.procs").read_text().split()) == 2 and it, "both"
        )
        assert str(pid) in inside
        limits_shown = tree.until("x", lambda it: bool(it.limits)).limits
        refused = [it for it in limits_shown if it.startswith("not applied")]
        assert len(refused) == len({"pids", "memory", "cpu"} - has)

        tree.client.stop("x")

        assert not own.exists()


def test_limits_of_a_supervisor_hold_for_all_below_it(group: Path) -> None:
    """Its own process and its children are in its group, each child in one of its own."""
    deep = specs.command("deep", ["sleep", "1000"])
    nested = dataclasses.replace(
        specs.subtree("nested", [deep]), resources=Resources(cgroup=LIMITED)
    )
    with LimitsTree(nested, group=group) as tree:
        for path, part in (("nested", "_self"), ("nested/deep", "nested.deep")):
            pid = tree.up(path)
            inside = (group / "nested" / part / "cgroup.procs").read_text().split()
            assert inside == [str(pid)]

        os.kill(tree.up("nested"), signal.SIGKILL)
        again = tree.until("nested/deep", lambda it: it.state.value == "healthy" and it.pid != pid)
        inside = (group / "nested/nested.deep/cgroup.procs").read_text().split()
        assert inside == [str(again.pid)]
        tree.client.stop("nested")

        assert not (group / "nested").exists()


def test_the_kernel_ends_a_child_past_its_groups_memory(group: Path) -> None:
    """The reason names the cause; where there is no controller, status names the missing limit."""
    limits = CgroupLimits(memory_max_bytes=100 * MIB, memory_high_bytes=95 * MIB)
    child = misuser("hog", resources=Resources(cgroup=limits))
    has_memory = "memory" in (group / "cgroup.controllers").read_text().split()
    with LimitsTree(child, group=group) as tree:
        tree.up("hog")
        shown = tree.until("hog", lambda it: bool(it.limits)).limits
        if not has_memory:
            assert "not applied: memory.max 100 MiB" in shown
            return
        assert shown == ("memory.high 95 MiB", "memory.max 100 MiB")
        (group / "hog/memory.high").write_text("max")  # else the kernel would slow it down first
        with pytest.raises(NovacronError):  # nobody is left to answer
            tree.client.call("hog", "use", {"mib": 150, "pieces": 1}, timeout_s=3.0)

        ended = tree.until("hog", lambda it: it.restarts == 1 and it.state.value == "healthy", 30.0)

        assert ended.last_exit.endswith("SIGKILL, by the kernel: out of memory, of at most 100 MiB")
        (event,) = tree.events("component:exited")
        assert event["fields"]["code"] == "supervisor.memory"


def test_a_changed_group_is_set_again(group: Path) -> None:
    """Somebody lifts a limit of the group; where there is no controller, there is none to lift."""
    child = specs.command("x", ["sleep", "999"], resources=Resources(cgroup=LIMITED))
    with LimitsTree(child, group=group) as tree:
        tree.up("x")
        tree.until("x", lambda it: bool(it.limits))
        file = group / "x/pids.max"
        if not file.exists():
            return

        file.write_text("max")

        wait_until(lambda: file.read_text() == "40\n", "set again", 30.0)
        wait_until(lambda: tree.events("component:limits-restored"), "told")


def test_memory_of_a_group_is_what_counts(group: Path) -> None:
    """Both steps work on the group where it has a controller, and on the processes elsewhere."""
    resources = Resources(
        memory_soft_bytes=90 * MIB,
        memory_hard_bytes=200 * MIB,
        cgroup=CgroupLimits(memory_max_bytes=1 << 30),
    )
    with LimitsTree(misuser("hog", resources=resources), group=group) as tree:
        tree.up("hog")
        tree.use("hog", 120)
        tree.until("hog", lambda it: it.state.value == "degraded")
        tree.use("hog", 120)

        shown = tree.until("hog", lambda it: it.restarts == 1 and it.state.value == "healthy", 30.0)

        assert " MiB of memory, of at most 200 MiB" in shown.last_exit
