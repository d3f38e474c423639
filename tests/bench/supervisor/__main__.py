"""``python -m tests.bench.supervisor``: this project's supervisor beside others, in one run."""

from __future__ import annotations

import argparse
import signal
import sys
import traceback
from collections.abc import Callable, Sequence

from supervisor.posix import prctl, processes
from tests.bench.figures import note
from tests.bench.supervisor import measures
from tests.bench.supervisor.installed import S6, Otp
from tests.bench.supervisor.others import Circus, Supervisord
from tests.bench.supervisor.ours import Ours
from tests.bench.supervisor.peers import Load, Peer
from tests.bench.supervisor.report import Report

PEERS: tuple[type[Peer], ...] = (Ours, Supervisord, Circus, Otp, S6)
COUNT = 50
MANY = 1000
KILLS = 100
MANY_KILLS = 20
ROUNDS = 3
# The supervisors that look once in a second would take minutes; fewer of their kills are enough.
KILLS_BUDGET_S = 60.0
PARTS = ("sleep", "python", "program", "many", "storm")
EPILOG = """A child is a `sleep`, or a Python program that says when its main code runs.
With novacron it is a service that says the same, and `program` is that program under novacron.
Peers that are not installed are skipped; supervisord and circus are installed from PyPI into a
cache directory.

examples:
  python -m tests.bench.supervisor
  python -m tests.bench.supervisor --peers novacron,erl --parts sleep,python
  python -m tests.bench.supervisor --kills 20 > figures.jsonl"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is asked for; returns 0 when all was measured, else 1."""
    options = _parser().parse_args(arguments)
    # Whatever a supervisor leaves behind becomes our child, and ends with the measurement.
    prctl.become_subreaper()
    signal.signal(signal.SIGTERM, _interrupt)
    peers = _installed(options.peers)
    report, failed = Report([peer.name for peer in peers]), False
    try:
        for part in options.parts:
            for peer in peers:
                failed |= not _try(part, peer, report, options.kills)
            report.show(part)
    except KeyboardInterrupt:
        note("interrupted")
        return 130
    finally:
        processes.end_descendants()
        report.table()
    return 1 if failed else 0


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _installed(names: Sequence[str]) -> list[type[Peer]]:
    found = []
    for peer in PEERS:
        if names and peer.name not in names:
            continue
        if problem := peer.missing():
            note(f"{peer.name}: {problem}, skipped")
        else:
            found.append(peer)
    return found


def _try(part: str, peer: type[Peer], report: Report, kills: int) -> bool:
    steps: dict[str, Callable[[], None]] = {
        "sleep": lambda: _fifty("sleep", peer, report, kills),
        "python": lambda: _fifty("python", peer, report, kills),
        "program": lambda: _fifty("program", peer, report, kills),
        "many": lambda: _many(peer, report),
        "storm": lambda: _storms(peer, report),
    }
    if part == "program" and peer is not Ours:
        return True  # that is what "python" is for the others
    note(f"{part}: {peer.name}")
    try:
        steps[part]()
    except Exception:  # noqa: BLE001 - whatever stops one must not keep the others from being run
        traceback.print_exc()
        return False
    return True


def _fifty(kind: str, peer: type[Peer], report: Report, kills: int) -> None:
    load = Load(kind=kind, count=COUNT)
    launches, spreads, stops, ends = [], [], [], []
    for number in range(ROUNDS):
        with measures.running(peer, load) as found:
            launches.append(found.launch_s)
            spreads.append(found.spread_s)
            if number == 0:
                cpu_ms, pss_mib = measures.idle(found)
                report.add(kind, "idle_cpu", peer.name, [cpu_ms])
                report.add(kind, "pss", peer.name, [pss_mib])
                taken = measures.restarts(found, kills, KILLS_BUDGET_S)
                report.add(kind, "restart", peer.name, [value * 1000 for value in taken])
                report.add(kind, "restart_worst", peer.name, [max(taken) * 1000])
                report.add(kind, "mass", peer.name, measures.mass_kills(found))
            children_s, main_s = measures.stop(found)
            stops.append(children_s)
            ends.append(main_s)
    report.add(kind, "launch", peer.name, launches)
    report.add(kind, "launch_spread", peer.name, spreads)
    report.add(kind, "stop", peer.name, stops)
    report.add(kind, "stop_all", peer.name, ends)


def _many(peer: type[Peer], report: Report) -> None:
    with measures.running(peer, Load(kind="sleep", count=MANY)) as found:
        report.add("many", "launch", peer.name, [found.launch_s])
        taken = measures.restarts(found, MANY_KILLS, KILLS_BUDGET_S)
        report.add("many", "restart", peer.name, [value * 1000 for value in taken])
        report.add("many", "pss", peer.name, [measures.idle(found)[1]])
        report.add("many", "stop", peer.name, [measures.stop(found)[0]])


def _storms(peer: type[Peer], report: Report) -> None:
    for kind in ("sleep", "python"):
        found = measures.storm(peer, Load(kind=kind, count=COUNT, storm=True))
        name = "storm" if kind == "sleep" else "storm_python"
        report.add(name, "cpu", peer.name, [found.cpu * 100])
        if found.command_s is not None:
            report.add(name, "command", peer.name, [found.command_s * 1000])


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _parts(text: str) -> list[str]:
    if unknown := set(_names(text)) - set(PARTS):
        raise argparse.ArgumentTypeError(f"no part {', '.join(sorted(unknown))}")
    return _names(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.supervisor",
        description="Measure supervisors side by side: one JSON line per figure on the standard "
        "output stream, notes and a table for people on the standard error stream.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = ",".join(peer.name for peer in PEERS)
    parser.add_argument("--peers", type=_names, default=[], metavar="NAMES", help=f"of {names}")
    parser.add_argument(
        "--parts", type=_parts, default=list(PARTS), metavar="NAMES", help=f"of {','.join(PARTS)}"
    )
    parser.add_argument("--kills", type=int, default=KILLS, metavar="N", help="restarts per peer")
    return parser


if __name__ == "__main__":
    sys.exit(main())
