"""Control groups on the real hierarchy, below a group of the test's own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.core.resources import CgroupLimits
from supervisor.posix import cgroup
from supervisor.posix.cgroup import Groups, NotDelegatedError, find_base, own_group
from tests.fixtures.fix_node import wait_until

pytestmark = pytest.mark.process

MOUNTS = """\
23 28 0:21 / /sys rw,nosuid - sysfs sysfs rw
31 23 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate
32 23 0:28 /docker/abc /mnt/part ro shared:10 - cgroup2 cgroup2 rw
"""


@pytest.fixture
def base() -> Iterator[Path]:
    """A group of the test's own."""
    if os.geteuid() != 0:
        pytest.skip("only root may make a control group")
    try:
        own = own_group()
    except NotDelegatedError as exc:
        pytest.skip(str(exc))
    directory = own / f"novacron-test-{os.getpid()}"
    try:
        directory.mkdir()
    except OSError as exc:
        pytest.skip(f"{own}: {exc.strerror}")
    yield directory
    cgroup.remove(directory)


def available(base: Path) -> set[str]:
    """The controllers that can be handed on; where version 1 has them all, there is none."""
    return set((base / "cgroup.controllers").read_text().split())


def _sleeper(*, in_group: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(["/bin/sleep", "1000"])
    cgroup.enter(in_group, process.pid)
    return process


def test_a_child_has_a_group_to_itself(base: Path) -> None:
    """It is moved in, and when it is removed everything in it has ended."""
    created = Groups(base).create("core/vm", CgroupLimits(), is_supervisor=False)
    process = _sleeper(in_group=created.entry)
    assert created.directory == created.entry == base / "core.vm"
    assert (created.entry / "cgroup.procs").read_text().split() == [str(process.pid)]

    cgroup.remove(created.directory)

    assert process.wait(5) == -9
    assert not created.directory.exists()


def test_nobody_escapes_the_end_of_a_group(base: Path) -> None:
    """A double fork with a session of its own, stopped: it is gone with its group."""
    created = Groups(base).create("x", CgroupLimits(), is_supervisor=False)
    code = """
import os, sys, time
open(sys.argv[1] + "/cgroup.procs", "w").write("0")
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        os.kill(os.getpid(), 19)
    os._exit(0)
"""
    done = subprocess.Popen(
        [sys.executable, "-c", code, str(created.entry)], stdout=subprocess.PIPE, text=True
    )
    assert done.stdout is not None
    escaped = int(done.stdout.readline())
    done.wait(10)
    assert str(escaped) in (created.entry / "cgroup.procs").read_text().split()

    begin_s = time.monotonic()
    cgroup.remove(created.directory)

    assert time.monotonic() - begin_s < 1.0
    wait_until(lambda: not _runs(escaped), "the escaped process is gone")
    done.stdout.close()


def test_what_a_lost_predecessor_left_is_replaced(base: Path) -> None:
    """The same child again: the old process ends and the group is a new one."""
    groups = Groups(base)
    first = groups.create("x", CgroupLimits(), is_supervisor=False)
    process = _sleeper(in_group=first.entry)

    second = groups.create("x", CgroupLimits(), is_supervisor=False)

    assert process.wait(5) == -9
    assert (second.entry / "cgroup.procs").read_text() == ""


def test_a_supervisor_divides_its_group_further(base: Path) -> None:
    """Its process is one level below its limits, beside the groups of its children."""
    outer = Groups(base).create("core", CgroupLimits(), is_supervisor=True)
    inner = Groups(outer.directory).create("core/vm", CgroupLimits(), is_supervisor=False)

    assert outer.entry == base / "core" / "_self"
    assert inner.directory == base / "core" / "core.vm"
    cgroup.remove(outer.directory)
    assert not outer.directory.exists()


def test_a_controller_that_is_not_there_is_named(base: Path) -> None:
    """Each limit that needs it is reported, and the child still gets its group."""
    limits = CgroupLimits(cpu_max=0.5, pids_max=100, memory_max_bytes=1 << 30)

    created = Groups(base).create("x", limits, is_supervisor=False)

    for name in ("cpu.max", "pids.max", "memory.max", "memory.oom.group"):
        controller = name.partition(".")[0]
        sentence = f"{name}: controller {controller} is not delegated"
        assert (sentence in created.refused) == (controller not in available(base))
    assert cgroup.memory_events(created.directory).oom_kill == 0


def test_limits_are_in_force(base: Path) -> None:
    """Each file holds what was asked for, and a fork bomb ends, if the controllers are there."""
    limits = CgroupLimits(cpu_max=0.5, cpu_weight=50, pids_max=20, memory_max_bytes=64 << 20)

    created = Groups(base).create("x", limits, is_supervisor=False)

    if not {"cpu", "pids", "memory"} <= available(base):
        assert created.refused
        return
    assert created.refused == ()
    for name, value in limits.files().items():
        assert (created.directory / name).read_text().strip() == value
    code = "import os,sys; open(sys.argv[1]+'/cgroup.procs','w').write('0')\nwhile 1: os.fork()"
    bomb = subprocess.run(
        [sys.executable, "-c", code, str(created.entry)],
        capture_output=True,
        check=False,
        timeout=30,
    )
    assert b"BlockingIOError" in bomb.stderr
    assert cgroup.memory_bytes(created.directory) is not None


def test_the_own_group_is_found(tmp_path: Path) -> None:
    """Also where only a part of the hierarchy is mounted; what is outside of it is not."""
    mounts, groups = tmp_path / "mountinfo", tmp_path / "cgroup"
    mounts.write_text(MOUNTS)

    groups.write_text("1:name=systemd:/x\n0::/system.slice/novacron.service\n")
    assert own_group(str(mounts), str(groups)) == Path(
        "/sys/fs/cgroup/system.slice/novacron.service"
    )
    mounts.write_text(MOUNTS.splitlines()[-1])
    with pytest.raises(NotDelegatedError):
        own_group(str(mounts), str(groups))
    groups.write_text("0::/docker/abc/inner\n")
    assert own_group(str(mounts), str(groups)) == Path("/mnt/part/inner")
    groups.write_text("1:name=systemd:/\n")
    with pytest.raises(NotDelegatedError, match="not mounted"):
        own_group(str(mounts), str(groups))


def test_a_group_is_ours_only_where_somebody_said_so(base: Path) -> None:
    """A group that root may write is not for the taking; systemd's mark makes it so."""
    code = """
import sys
sys.path.insert(0, sys.argv[2])
from supervisor.posix import cgroup
from pathlib import Path
cgroup.enter(Path(sys.argv[1]))
try:
    print(cgroup.find_base())
except cgroup.NotDelegatedError as exc:
    print(exc)
"""
    command = [sys.executable, "-c", code, str(base), str(Path(__file__).parents[2])]

    def said() -> str:
        return subprocess.run(
            command, capture_output=True, check=False, text=True, timeout=20
        ).stdout.strip()

    assert said() == f"{base} is not delegated to this program"
    os.setxattr(base, "trusted.delegate", b"1")
    assert said() == str(base)


def test_the_base_is_emptied_where_it_has_to_be(base: Path) -> None:
    """Handing on a controller moves the processes of the base into a group of their own."""
    process = _sleeper(in_group=base)
    try:
        created = Groups(base).create("x", CgroupLimits(pids_max=5), is_supervisor=False)
        is_there = "pids" in available(base)
        where = base / "_self" if is_there else base
        assert bool(created.refused) != is_there
        assert (where / "cgroup.procs").read_text().split() == [str(process.pid)]
    finally:
        process.kill()
        process.wait()


def test_a_supervisor_in_its_own_part_finds_the_base_above(base: Path) -> None:
    """A process in ``_self`` divides the group that it is in a part of."""
    created = Groups(base).create("core", CgroupLimits(), is_supervisor=True)
    code = """
import sys
sys.path.insert(0, sys.argv[2])
from supervisor.posix import cgroup
from pathlib import Path
cgroup.enter(Path(sys.argv[1]))
print(cgroup.find_base())
"""
    command = [sys.executable, "-c", code, str(created.entry), str(Path(__file__).parents[2])]

    done = subprocess.run(command, capture_output=True, check=False, text=True, timeout=20)

    assert done.stdout.strip() == str(created.directory), done.stderr


def test_this_process_has_a_base_or_a_reason() -> None:
    """Whatever the machine is like, the answer is one of the two."""
    try:
        found = str(find_base() / "cgroup.procs")
    except NotDelegatedError as exc:
        found = str(exc)

    assert found


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
