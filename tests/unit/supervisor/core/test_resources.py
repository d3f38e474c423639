"""What a child's resources may be, how they travel, and what is said of those that do not hold."""

from __future__ import annotations

import dataclasses

import pytest

from protocol.errors import RemoteProtocolError
from protocol.records import from_wire, to_wire
from supervisor.core.resources import (
    INFINITY,
    NO_LIMITS,
    CgroupLimits,
    Holding,
    MemoryStep,
    Resources,
    ResourcesError,
    Rlimit,
    SchedulingClass,
    check,
    describe,
    memory_step,
    unmet,
)
from supervisor.core.spec import ChildSpec, SpecError, SupervisorSpec, validate

EVERYTHING = Resources(
    scheduling=SchedulingClass.FIFO,
    priority=10,
    nice=-5,
    rlimits={"nofile": Rlimit(soft=1024, hard=4096), "core": Rlimit(soft=INFINITY)},
    oom_score_adjust=500,
    memory_soft_bytes=100 << 20,
    memory_hard_bytes=200 << 20,
    cgroup=CgroupLimits(
        cpu_max=1.5,
        cpu_weight=200,
        io_weight=50,
        pids_max=64,
        memory_high_bytes=150 << 20,
        memory_max_bytes=1 << 30,
    ),
    required=True,
)
HOLDING = Holding(
    cpus=frozenset({1}),
    scheduling=SchedulingClass.FIFO,
    priority=10,
    nice=-5,
    rlimits={"nofile": (1024, 4096), "core": (INFINITY, INFINITY)},
    oom_score_adjust=500,
    cgroup=EVERYTHING.cgroup.files(),
)


@pytest.mark.parametrize(
    ("resources", "problem"),
    [
        (Resources(scheduling=SchedulingClass.FIFO), "priority is 0; 1 to 99"),
        (Resources(scheduling=SchedulingClass.ROUND_ROBIN, priority=100), "priority is 100"),
        (Resources(scheduling=SchedulingClass.BATCH, priority=1), "except for fifo"),
        (Resources(priority=1), "except for fifo"),
        (Resources(nice=-21), "nice is -21"),
        (Resources(nice=20), "nice is 20"),
        (Resources(oom_score_adjust=-1001), "oom_score_adjust is -1001"),
        (Resources(oom_score_adjust=1001), "oom_score_adjust is 1001"),
        (Resources(rlimits={"files": Rlimit(soft=1)}), "'files' is none of as, core"),
        (Resources(rlimits={"nofile": Rlimit(soft=-2)}), "at least 0, or -1"),
        (Resources(rlimits={"nofile": Rlimit(soft=2, hard=1)}), "soft at most hard"),
        (Resources(rlimits={"nofile": Rlimit(soft=INFINITY, hard=1)}), "soft at most hard"),
        (Resources(memory_soft_bytes=0), "memory_soft_bytes is 0; more than 0"),
        (Resources(memory_hard_bytes=0), "memory_hard_bytes is 0; more than 0"),
        (Resources(memory_soft_bytes=2, memory_hard_bytes=1), "at most memory_hard_bytes, 1"),
        (Resources(cgroup=CgroupLimits(cpu_max=0.0)), "cpu_max is 0.0"),
        (Resources(cgroup=CgroupLimits(cpu_max=float("nan"))), "cpu_max is nan"),
        (Resources(cgroup=CgroupLimits(cpu_weight=0)), "cpu_weight is 0"),
        (Resources(cgroup=CgroupLimits(io_weight=10_001)), "io_weight is 10001"),
        (Resources(cgroup=CgroupLimits(pids_max=0)), "pids_max is 0"),
        (Resources(cgroup=CgroupLimits(memory_max_bytes=-1)), "memory_max_bytes is -1"),
        (
            Resources(cgroup=CgroupLimits(memory_high_bytes=2, memory_max_bytes=1)),
            "memory_high_bytes is 2",
        ),
    ],
)
def test_what_no_process_can_have_is_refused(resources: Resources, problem: str) -> None:
    """The message names the field, its value and the rule."""
    with pytest.raises(ResourcesError, match=problem):
        check(resources)


@pytest.mark.parametrize(
    "resources",
    [
        NO_LIMITS,
        EVERYTHING,
        Resources(scheduling=SchedulingClass.FIFO, priority=99, nice=19, oom_score_adjust=-1000),
        Resources(rlimits={"core": Rlimit(soft=0), "nofile": Rlimit(soft=5, hard=INFINITY)}),
        Resources(memory_soft_bytes=1, memory_hard_bytes=1),
        Resources(cgroup=CgroupLimits(cpu_max=0.01, cpu_weight=1, io_weight=10_000, pids_max=1)),
    ],
)
def test_the_outermost_values_are_taken(resources: Resources) -> None:
    """Each just inside its limit, and all of them survive the wire inside a specification."""
    spec = ChildSpec(id="x", start="a:b", resources=resources)

    check(resources)

    assert from_wire(ChildSpec, to_wire(spec)) == spec


def test_none_costs_nothing_on_the_wire() -> None:
    """A child without limits is described as before there were any."""
    assert "resources" not in to_wire(ChildSpec(id="x", start="a:b"))


def test_an_unknown_limit_is_refused() -> None:
    """A misspelt field must not be half understood."""
    with pytest.raises(RemoteProtocolError, match="memory_sot_bytes"):
        from_wire(ChildSpec, {"id": "x", "resources": {"memory_sot_bytes": 1}})


def test_a_specification_says_where_its_resources_are_wrong() -> None:
    """Nested ones too; and a CPU has a number from 0."""
    for child, problem in (
        (ChildSpec(id="x", start="a:b", resources=Resources(nice=99)), "resources: nice is 99"),
        (ChildSpec(id="x", start="a:b", cpus=(0, -1)), "cpus are"),
    ):
        with pytest.raises(SpecError, match=f"supervisor/x: {problem}"):
            validate(SupervisorSpec(children=(child,)))


def test_cgroup_limits_are_written_as_the_kernel_reads_them() -> None:
    """One and a half CPUs are 150 ms in every 100 ms; a killed group is killed whole."""
    assert EVERYTHING.cgroup.files() == {
        "cpu.max": "150000 100000",
        "cpu.weight": "200",
        "io.weight": "default 50",
        "pids.max": "64",
        "memory.high": "157286400",
        "memory.max": "1073741824",
        "memory.oom.group": "1",
    }


def test_limits_are_described_for_people() -> None:
    """Each on its own, with its unit."""
    assert describe(NO_LIMITS) == ()
    assert describe(EVERYTHING) == (
        "fifo 10",
        "nice -5",
        "oom score +500",
        "nofile 1024:4096",
        "core unlimited",
        "memory soft 100 MiB",
        "memory hard 200 MiB",
        "cpu.max 150000 us of 100 ms",
        "cpu.weight 200",
        "io.weight 50",
        "pids.max 64",
        "memory.high 150 MiB",
        "memory.max 1 GiB",
    )


def test_what_holds_is_not_complained_about() -> None:
    """Neither where all is as asked, nor where nothing was asked for."""
    assert unmet(EVERYTHING, (1,), HOLDING) == ()
    assert unmet(NO_LIMITS, (), HOLDING) == ()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"cpus": frozenset({0, 1})}, "cpus 1 (has 0,1)"),
        ({"scheduling": SchedulingClass.OTHER, "priority": 0}, "fifo 10 (has other)"),
        ({"scheduling": None}, "fifo 10 (has another)"),
        ({"nice": 0}, "nice -5 (has 0)"),
        ({"oom_score_adjust": 0}, "oom score +500 (has 0)"),
        (
            {"rlimits": {**HOLDING.rlimits, "nofile": (1024, 2048)}},
            "nofile 1024:4096 (has 1024:2048)",
        ),
        ({"rlimits": {"nofile": (1024, 4096)}}, "core unlimited (has none)"),
        ({"cgroup": {**HOLDING.cgroup, "memory.max": "max"}}, "memory.max 1 GiB"),
        (
            {"cgroup": {k: v for k, v in HOLDING.cgroup.items() if k != "pids.max"}},
            "pids.max 64",
        ),
    ],
)
def test_each_limit_that_does_not_hold_is_named(change: dict[str, object], sentence: str) -> None:
    """Alone, with what holds instead."""
    holding = dataclasses.replace(HOLDING, **change)  # type: ignore[arg-type]  # by name

    assert unmet(EVERYTHING, (1,), holding) == (sentence,)


def test_a_process_may_choose_its_soft_limits() -> None:
    """Many programs raise their number of open files as far as they may."""
    holding = dataclasses.replace(HOLDING, rlimits={**HOLDING.rlimits, "nofile": (4096, 4096)})

    assert unmet(EVERYTHING, (1,), holding) == ()


def test_memory_limits_may_be_rounded_to_pages() -> None:
    """The kernel keeps whole pages, which is no deviation."""
    asked = Resources(cgroup=CgroupLimits(memory_max_bytes=(1 << 30) + 100))
    holding = Holding(cgroup={"memory.max": str(1 << 30), "memory.oom.group": "1"})

    assert unmet(asked, (), holding) == ()


@pytest.mark.parametrize(
    ("used", "is_strained", "step"),
    [
        (99, False, MemoryStep.NONE),
        (100, False, MemoryStep.NONE),
        (101, False, MemoryStep.SOFT),
        (96, True, MemoryStep.SOFT),
        (95, True, MemoryStep.NONE),
        (200, True, MemoryStep.SOFT),
        (201, True, MemoryStep.HARD),
        (201, False, MemoryStep.HARD),
    ],
)
def test_memory_has_two_steps(used: int, is_strained: bool, step: MemoryStep) -> None:
    """A limit may be used up; a child that was over the soft one has to be well below it."""
    limits = Resources(memory_soft_bytes=100, memory_hard_bytes=200)

    assert memory_step(limits, used, is_strained=is_strained) is step
    assert memory_step(NO_LIMITS, used, is_strained=is_strained) is MemoryStep.NONE
