"""novacronctl status: what works, what does not, and why."""

from __future__ import annotations

import time

import click

from protocol.messages.status import NodeStatus, Verdict
from services.ctl import output
from services.ctl.errors import NodeHungError, NotRunningError, StatusExit
from services.ctl.session import Session, examples, node_options

_EXITS = {
    Verdict.READY: StatusExit.READY,
    Verdict.DEGRADED: StatusExit.DEGRADED,
    Verdict.NOT_READY: StatusExit.NOT_READY,
}


@click.command(
    "status",
    epilog=examples(
        "novacronctl status",
        "novacronctl status --json | jq .verdict",
        "novacronctl status --watch",
        "novacronctl --state-dir /srv/node2 status",
    ),
)
@node_options
@click.option("--json", "as_json", is_flag=True, help="Print the record novacron.status/1 as JSON.")
@click.option("--watch", is_flag=True, help="Keep showing it; Ctrl-C ends.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1, max=60),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="With --watch: the longest time between two looks.",
)
@click.pass_obj
def command(session: Session, *, as_json: bool, watch: bool, interval: float) -> None:
    """Show the state of the node and of each component.

    The first line is the verdict with its cause. A component that is not healthy is followed by the
    reason. With --watch the screen is redrawn; where the output is no terminal, or with --json, one
    JSON line is printed per change.

    Exit codes: 0 ready, 1 degraded, 2 not ready or unhealthy, 3 not running.
    """
    context = click.get_current_context()
    if watch:
        from services.ctl import watch as watching
        from services.ctl.render import render_status

        watching.run(
            session,
            lambda status, _changed, width: render_status(status, width=width),
            interval_s=interval,
            as_json=as_json or not output.is_terminal(),
        )
        return
    client = session.client()
    try:
        status = client.status(with_memory=True)
    except NotRunningError:
        _show_down(session, as_json=as_json)
        context.exit(StatusExit.NOT_RUNNING)
    except NodeHungError as exc:
        output.note(f"not ready: {exc}")
        context.exit(StatusExit.NOT_READY)
    finally:
        client.close()
    _show(status, as_json=as_json)
    context.exit(_EXITS[status.verdict])


def _show(status: NodeStatus, *, as_json: bool) -> None:
    if as_json:
        from services.ctl.schema import to_json

        output.show_json(to_json(status), indent=2)
        return
    from services.ctl.render import render_status

    output.show(render_status(status, width=output.width()))


def _show_down(session: Session, *, as_json: bool) -> None:
    """Say that the node is down; JSON readers get nothing on standard output."""
    from services.ctl import down

    traces = down.look(session.state_dir, session.log_dir)
    lines = down.render(traces, now_s=time.time())
    if as_json:
        from services.ctl.styled import to_plain

        output.note(to_plain(lines[0]))
    else:
        output.show(lines)
