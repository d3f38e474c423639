"""novacronctl db: the database's state, its schema, and backups of it."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import click

from services.ctl import output
from services.ctl.session import Session, examples, node_options

_TERMINATED = 128 + signal.SIGTERM
_json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


@click.group(
    "db",
    epilog=examples(
        "novacronctl db status",
        "novacronctl db backup /var/backups/novacron-$(date +%F).dump",
        "novacronctl db restore /var/backups/novacron-2026-05-01.dump",
    ),
)
@node_options
def command() -> None:
    """Look at the node's database, migrate it, back it up and restore it.

    The database is the one that the node's configuration names, so variables such as
    NOVACRON_DATABASE_POSTGRES_HOST and _PASSWORD name another one. With the embedded server this
    takes the node's account, which is mostly root.
    """
    # Ended by kill, a command cleans up as it does at Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))


@command.command("status", epilog=examples("novacronctl db status", "novacronctl db status --json"))
@node_options
@_json_option
@click.pass_obj
def status(session: Session, *, as_json: bool) -> None:
    """Show schema, size, connections, durability and replicas of the database."""
    from services.ctl import db_render, db_target
    from services.data import migrations, overview

    with db_target.reachable(db_target.find(session), may_start=False) as settings:
        found = overview.look(settings, migrations.load())
    if as_json:
        from services.ctl.schema import to_json

        output.show_json(to_json(found), indent=2)
    else:
        output.show(db_render.render_overview(found))


@command.command(
    "migrate", epilog=examples("novacronctl db migrate --dry-run", "novacronctl db migrate")
)
@node_options
@click.option("--dry-run", is_flag=True, help="Only say which migrations are pending.")
@_json_option
@click.pass_obj
def migrate(session: Session, *, dry_run: bool, as_json: bool) -> None:
    """Bring the schema up to the one that this program knows.

    A node does this by itself when it starts. To do it before is for those who want to see it end
    first. Several at once, and nodes that start meanwhile, wait for each other.
    """
    from services.ctl import db_target
    from services.ctl.db_audit import recorded
    from services.data import migrations, overview
    from services.data.backup import server

    known, target = migrations.load(), db_target.find(session)
    with db_target.reachable(target, may_start=True) as settings:
        names = overview.pending_names(settings, known)
        if not dry_run and names:
            with recorded(
                target.state_dir, "db.migrate", settings.database, migrations=list(names)
            ):
                server.migrate(settings, known, settings.database)
    if as_json:
        output.show_json({"schema": len(known), "migrations": list(names), "applied": not dry_run})
    elif not names:
        click.echo(f"the schema is up to date: version {len(known)}")
    else:
        click.echo(f"{'pending' if dry_run else 'applied'}: {', '.join(names)}")


@command.command(
    "backup", epilog=examples("novacronctl db backup /var/backups/novacron-$(date +%F).dump")
)
@node_options
@click.argument("file", type=click.Path(path_type=Path))
@_json_option
@click.pass_obj
def backup(session: Session, file: Path, *, as_json: bool) -> None:
    """Write a consistent snapshot of the database to FILE, and its manifest to FILE.json.

    The node goes on meanwhile. FILE is pg_dump's custom format; both files belong together and are
    there only when they are complete. Nothing is overwritten. A backup holds all that the
    database holds: keep it as safe as that.
    """
    from services.ctl import db_render, db_target
    from services.ctl.db_audit import recorded
    from services.ctl.db_progress import Progress
    from services.data.backup import dump

    target = db_target.find(session)
    with (
        db_target.reachable(target, may_start=True) as settings,
        recorded(target.state_dir, "db.backup", settings.database, file=str(file.absolute())),
        Progress() as progress,
    ):
        made = dump.back_up(
            settings,
            file.absolute(),
            node_id=target.node_id,
            progress=lambda done, all_: progress.show("backing up", done, all_, is_share=False),
        )
    if as_json:
        from services.ctl.schema import to_json

        output.show_json(to_json(made), indent=2)
    else:
        output.show(db_render.render_backup(made, file))


@command.command(
    "restore",
    epilog=examples(
        "novacronctl db restore /var/backups/novacron-2026-05-01.dump",
        "novacronctl db restore --disconnect /var/backups/novacron-2026-05-01.dump",
    ),
)
@node_options
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--disconnect",
    is_flag=True,
    help="End the connections of nodes that run; they connect again to the restored database.",
)
@_json_option
@click.pass_obj
def restore(session: Session, file: Path, *, disconnect: bool, as_json: bool) -> None:
    """Replace the database by the backup FILE, and keep the one before under another name.

    The file and its manifest are verified first. The backup goes into a new database, which is
    migrated to this program's schema and takes the name in one step when it is complete: until
    then nothing changes. While nodes are connected this is refused, unless --disconnect.
    """
    from services.ctl import db_render, db_target
    from services.ctl.db_audit import recorded
    from services.ctl.db_progress import Progress
    from services.data import migrations
    from services.data.backup import restore as restoring

    target = db_target.find(session)
    with (
        db_target.reachable(target, may_start=True) as settings,
        recorded(
            target.state_dir,
            "db.restore",
            settings.database,
            file=str(file.absolute()),
            disconnect=disconnect,
        ),
        Progress() as progress,
    ):
        done = restoring.restore(
            settings,
            file.absolute(),
            migrations.load(),
            disconnect=disconnect,
            progress=progress.show,
        )
    if as_json:
        from services.ctl.schema import to_json

        output.show_json(to_json(done), indent=2)
    else:
        output.show(db_render.render_restored(done, file))


@command.command(
    "discard", epilog=examples("novacronctl db discard novacron_before_20260501t120000z")
)
@node_options
@click.argument("name")
@click.pass_obj
def discard(session: Session, name: str) -> None:
    """Remove the database NAME that a restore has replaced; 'db status' lists them as kept."""
    from services.ctl import db_target
    from services.ctl.amounts import size
    from services.ctl.db_audit import recorded
    from services.data.backup import restore as restoring

    target = db_target.find(session)
    with (
        db_target.reachable(target, may_start=True) as settings,
        recorded(target.state_dir, "db.discard", name),
    ):
        freed_bytes = restoring.discard(settings, name)
    click.echo(f"removed {name}, {size(freed_bytes)}")
