"""The facts of the host, read from trees of files as different kernels show them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from services.node.probes import directory_facts, host_facts

MIB = 1 << 20
NO_LIMIT_V1 = "9223372036854771712\n"


def _tree(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def test_a_kernel_that_says_nothing(tmp_path: Path) -> None:
    """Missing files mean not known, no limit, and no capability."""
    facts = host_facts(tmp_path)

    assert facts.memory_available_bytes is None
    assert (facts.memory_limit_bytes, facts.processes_max) == (None, None)
    assert (facts.has_kvm, facts.may_open_kvm, facts.has_net_admin) == (False, False, False)


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [("0000000000001000", True), ("0000000000000fff", False), ("000001ffffffffff", True)],
)
def test_memory_and_capabilities(tmp_path: Path, capabilities: str, expected: bool) -> None:
    """MemAvailable is in KiB; CAP_NET_ADMIN is bit 12."""
    files = {
        "proc/meminfo": "MemTotal:  8000000 kB\nMemAvailable:     524288 kB\n",
        "proc/self/status": f"Name:\tpython3\nCapPrm:\t0\nCapEff:\t{capabilities}\n",
    }

    facts = host_facts(_tree(tmp_path, files))

    assert facts.memory_available_bytes == 512 * MIB
    assert facts.has_net_admin is expected


@pytest.mark.parametrize(
    ("files", "memory_bytes", "processes"),
    [
        pytest.param(
            {
                "proc/self/cgroup": "0::/system.slice/novacron.service\n",
                "sys/fs/cgroup/system.slice/memory.max": f"{600 * MIB}\n",
                "sys/fs/cgroup/system.slice/novacron.service/memory.max": "max\n",
                "sys/fs/cgroup/system.slice/novacron.service/pids.max": "100\n",
            },
            600 * MIB,
            100,
            id="v2, the lowest limit on the way up counts",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "8:pids:/a\n4:memory:/a/b\n1:name=systemd:/c\n0::/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": NO_LIMIT_V1,
                "sys/fs/cgroup/memory/a/b/memory.limit_in_bytes": f"{700 * MIB}\n",
                "sys/fs/cgroup/pids/a/pids.max": "63\n",
            },
            700 * MIB,
            63,
            id="v1, each controller has a path of its own",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "4:memory:/docker/0123\n0::/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{800 * MIB}\n",
            },
            800 * MIB,
            None,
            id="v1 in a container, whose path only the host has",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "0::/../../outside\n",
                "sys/fs/cgroup/memory.max": "max\n",
                "sys/fs/cgroup/pids.max": "what\n",
            },
            None,
            None,
            id="v2, no limits",
        ),
    ],
)
def test_limits_of_control_groups(
    tmp_path: Path, files: Mapping[str, str], memory_bytes: int | None, processes: int | None
) -> None:
    """Both versions of control groups are read, as far up as they can be seen."""
    facts = host_facts(_tree(tmp_path, files))

    assert facts.memory_limit_bytes == memory_bytes
    assert facts.processes_max == processes


def test_the_nearest_directory_counts_for_one_that_is_missing(tmp_path: Path) -> None:
    """What will be made is judged by what is there."""
    facts = directory_facts(tmp_path / "a/b")

    assert (facts.path, facts.existing) == (str(tmp_path / "a/b"), str(tmp_path))
    assert (facts.is_directory, facts.is_writable, facts.is_read_only) == (True, True, False)
    assert facts.free_bytes


def test_a_link_to_nowhere_is_in_the_way(tmp_path: Path) -> None:
    """It is no missing directory that could be made."""
    (tmp_path / "state").symlink_to(tmp_path / "gone")

    facts = directory_facts(tmp_path / "state")

    assert (facts.existing, facts.is_directory) == (str(tmp_path / "state"), False)
