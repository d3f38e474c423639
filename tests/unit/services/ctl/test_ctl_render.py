"""The screens of novacronctl, as an operator sees them."""

from __future__ import annotations

import textwrap

import pytest

from protocol.messages.health import HealthState
from protocol.messages.status import BootReport, Verdict
from services.ctl.render import cpu_list, render_boot, render_status, render_tree
from services.ctl.styled import Line, cells, to_ansi, to_plain
from tests.unit.services.ctl.ctl_samples import boot_report, component, node


def screen(lines: list[Line]) -> str:
    """The lines as text that can be compared."""
    return "\n".join(to_plain(spans) for spans in lines)


def golden(text: str) -> str:
    """An expected screen from an indented literal."""
    return textwrap.dedent(text).strip("\n")


def test_status_fits_80_columns() -> None:
    """The verdict and its cause come first, then the platform, then each component with reasons."""
    expected = golden(
        """
        degraded: core/vm: libvirt does not answer

        platform  NovaCron 0.1.0, node node-001
        runs as   embedded (backend, orchestration), pid 4242
        phase     6 health (complete)
        uptime    3h 12m, boot took 1.24 s
        state     /var/lib/novacron

        COMPONENT            LEVEL     STATE        PID  CPUS RESTARTS UPTIME  MEMORY
        ├─ telemetry         telemetry healthy     4251   all        0 3h 12m  23 MiB
        ├─ data              data      healthy     4251   all        0 3h 12m  23 MiB
        │  ├─ postgres       data      healthy  1234251   all        0 3h 12m 113 MiB
        │  └─ database       data      healthy     4251   all        2 3h 12m  23 MiB
        ├─ core              core      healthy     4251   all        0 3h 12m       -
        │  ├─ vm             vm        degraded    4251   all        0     3s  23 MiB
        │  │    libvirt does not answer: no socket at /var/run/libvirt/libvirt-sock,
        │  │    which is there while libvirtd runs; next try in 4.00 s
        │  └─ dwcp           dwcp      healthy     4251   all        0 3h 12m  23 MiB
        │     ├─ manager     dwcp      healthy     4251   all        0 3h 12m  23 MiB
        │     └─ transport.0 dwcp      healthy     4251 0-2,5        0 3h 12m  23 MiB
        └─ optional          optional  healthy     4251   all        0 3h 12m  23 MiB
           └─ workload       optional  stopped        -   all        0      -       -
                last exit: normal
        """
    )

    lines = render_status(node(), width=80)

    assert screen(lines) == expected
    assert max(cells(to_plain(spans)) for spans in lines) <= 80


def test_narrow_status_drops_columns_and_keeps_names() -> None:
    """On a narrow screen the least important columns go; names, states and reasons stay."""
    lines = render_status(node(), width=50)

    assert to_plain(lines[8]) == "COMPONENT            STATE    RESTARTS UPTIME"
    assert max(cells(to_plain(spans)) for spans in lines[8:]) <= 50
    assert "libvirtd runs" in screen(lines)


@pytest.mark.parametrize(
    ("verdict", "reason", "states", "boot_s", "first"),
    [
        (Verdict.READY, "", (HealthState.HEALTHY,) * 2, 1.0, "ready: all 2 components are healthy"),
        (
            Verdict.NOT_READY,
            "",
            (HealthState.HEALTHY, HealthState.UNHEALTHY),
            1.0,
            "not ready: b is unhealthy",
        ),
        (Verdict.NOT_READY, "", (HealthState.STARTING,) * 2, None, "not ready: in phase 6, health"),
        (Verdict.DEGRADED, "evil\x1b[2J", (), 1.0, "degraded: evil\\x1b[2J"),
    ],
)
def test_first_line(
    verdict: Verdict,
    reason: str,
    states: tuple[HealthState, ...],
    boot_s: float | None,
    first: str,
) -> None:
    """The first line is the verdict and one cause, with nothing that could steer the terminal."""
    components = tuple(
        component(name, "core", state=state) for name, state in zip("ab", states, strict=False)
    )

    lines = render_status(node(verdict, reason, components, boot_s=boot_s), width=80)

    assert to_plain(lines[0]) == first


def test_booting_status_says_so() -> None:
    """While the node boots there is no boot time to show."""
    text = screen(render_status(node(boot_s=None), width=80))

    assert "uptime    3h 12m, still booting" in text
    assert "phase     6 health\n" in text


def test_status_colours_states() -> None:
    """Colour says how a component is; a degraded one is yellow."""
    text = "\n".join(to_ansi(spans) for spans in render_status(node(), width=80))

    assert "\x1b[33mdegraded" in text
    assert "\x1b[32mhealthy" in text


def test_tree() -> None:
    """The tree shows each process with pid, state and reason."""
    expected = golden(
        """
        novacron  4242  degraded: core/vm: libvirt does not answer
        ├─ data  4251  healthy
        │  └─ postgres  4251  healthy
        └─ core  4251  unhealthy
             gone; last exit: killed; next try in 0.50 s
        """
    )
    components = (
        component("data", "data"),
        component("data/postgres", "data"),
        component(
            "core",
            "core",
            state=HealthState.UNHEALTHY,
            reason="gone",
            last_exit="killed",
            retry_in_s=0.5,
        ),
    )

    assert screen(render_tree(node(components=components), width=80)) == expected


def test_boot() -> None:
    """Each phase is followed by its components in the order in which they began."""
    expected = golden(
        """
        boot took 1.24 s

        NAME              START    TOOK  OUTCOME
        0 preflight      0.00 s  0.05 s  ready     ██
        1 configuration  0.05 s  0.06 s  ready     ·███
        2 logging        0.11 s  0.10 s  ready     ···████
        3 database       0.21 s  0.40 s  ready     ······██████████████
          data/postgres  0.21 s  0.20 s  ready     ······███████
        4 core           0.61 s  0.40 s  ready     ···················██████████████
          core/vm        0.70 s  0.30 s  degraded  ······················██████████
        5 optional       1.01 s  0.10 s  ready     ································████
        6 health         1.11 s  0.13 s  ready     ···································█████
        """
    )

    lines = render_boot(boot_report(), width=90)

    assert screen(lines) == expected


def test_boot_under_way_and_empty() -> None:
    """A boot that is not over, or that has nothing to tell yet, is shown as far as it is."""
    empty = BootReport(total_s=None, phases=(), components=())

    assert screen(render_boot(empty, width=80)).startswith("booting for 0.00 s")


@pytest.mark.parametrize(
    ("cpus", "text"),
    [((), "all"), ((3,), "3"), ((0, 1, 2, 3), "0-3"), ((9, 1, 2, 5), "1-2,5,9")],
)
def test_cpu_list(cpus: tuple[int, ...], text: str) -> None:
    """Neighbouring CPUs are a range."""
    assert cpu_list(cpus) == text


def test_changed_components_are_marked() -> None:
    """What has just changed is reversed on a terminal that can, and starred on any."""
    lines = render_tree(node(), width=80, changed=frozenset({"core/vm"}))

    marked = [spans for spans in lines if to_plain(spans).endswith(" *")]
    assert [to_plain(spans) for spans in marked] == ["│  ├─ vm  4251  degraded *"]
    assert "\x1b[7mvm\x1b[0m" in to_ansi(marked[0])
