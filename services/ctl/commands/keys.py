"""novacronctl keys: the keys that seal the node's secrets."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from protocol.records import Plain, to_wire
from services.ctl import output
from services.ctl.client import Client
from services.ctl.errors import CtlError, UsageError
from services.ctl.keyview import render_job, render_keys, render_status
from services.ctl.schema import to_json
from services.ctl.session import Session, examples, node_options
from services.ctl.styled import line, to_plain
from services.security.keys.model import (
    BackupReply,
    BackupRequest,
    KeyList,
    KeysStatus,
    RemoveRequest,
)

if TYPE_CHECKING:
    from services.security.keys.disk import DirectoryDisk

R = TypeVar("R")

_SECURITY = "security"
_LOOK_PERIOD_S = 0.25
# Writing the keyset takes milliseconds; a disk under load takes seconds.
_CHANGE_TIMEOUT_S = 30.0
_FILE_BYTES_MAX = 8 << 20
_json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
_passphrase_option = click.option(
    "--passphrase-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="PATH",
    help="Read the passphrase from the first line of this file instead of asking.",
)


@click.group("keys")
@node_options
def command() -> None:
    """See, rotate, back up and restore the keys that seal the node's secrets."""


@command.command("list", epilog=examples("novacronctl keys list", "novacronctl keys list --json"))
@node_options
@_json_option
@click.pass_obj
def list_keys(session: Session, *, as_json: bool) -> None:
    """Show the data keys, their states, and how many values each has sealed."""
    found = session.ask(KeyList, _SECURITY, "keys.list")
    if as_json:
        output.show_json(to_json(found), indent=2)
    else:
        output.show(render_keys(found, now_s=time.time(), width=output.width()))


@command.command("status", epilog=examples("novacronctl keys status"))
@node_options
@_json_option
@click.pass_obj
def status(session: Session, *, as_json: bool) -> None:
    """Show the active key, the master key, its backup, and how far the re-encryption is."""
    found = session.ask(KeysStatus, _SECURITY, "keys.status")
    if as_json:
        output.show_json(to_json(found), indent=2)
    else:
        output.show(render_status(found, now_s=time.time()))


@command.command("rotate", epilog=examples("novacronctl keys rotate"))
@node_options
@_json_option
@click.pass_obj
def rotate(session: Session, *, as_json: bool) -> None:
    """Make a new data key now; what older ones sealed is sealed anew in the background.

    Nothing stops meanwhile, and older values stay readable all the time.
    """
    reply = _change(session, "keys.rotate")
    if as_json:
        output.show_json(reply)
    else:
        output.show([line(f"new values are sealed with {reply['key_id']}")])


@command.command("rotate-master", epilog=examples("novacronctl keys rotate-master"))
@node_options
@_json_option
@click.pass_obj
def rotate_master(session: Session, *, as_json: bool) -> None:
    """Put the data keys under another master key; no value is touched.

    A master key from the state directory is made anew. One from outside is taken from the
    credential or secret of the same name with .next behind it. Older backups of the master key
    open nothing any more: make a new one.
    """
    reply = _change(session, "keys.rotate_master")
    if as_json:
        output.show_json(reply)
        return
    output.show([line(f"the data keys are under master key {reply['master_id']}")])
    output.note("backups of the one before open nothing any more: novacronctl keys backup FILE")


@command.command("reencrypt", epilog=examples("novacronctl keys reencrypt --no-wait"))
@node_options
@click.option("--no-wait", is_flag=True, help="Start it and return at once.")
@_json_option
@click.pass_obj
def reencrypt(session: Session, *, no_wait: bool, as_json: bool) -> None:
    """Seal every value with the active key, and retire the keys that are needed no more.

    The node does so by itself after each rotation. Ctrl-C stops the waiting and not the work.
    """
    client = session.client()
    try:
        found = client.ask(KeysStatus, _SECURITY, "keys.reencrypt")
        if not no_wait:
            found = _wait(client, found)
    finally:
        client.close()
    if as_json:
        output.show_json(to_json(found.job), indent=2)
    else:
        output.show([render_job(found.job)])
    if not no_wait and found.job.left:
        raise CtlError("some values can't be opened; the security process's log names them")


@command.command(
    "remove",
    epilog=examples(
        "novacronctl keys remove 5f0c2a9be11d4c07", "novacronctl keys remove --retired"
    ),
)
@node_options
@click.argument("key_id", metavar="[ID]", required=False, default="")
@click.option("--retired", is_flag=True, help="All that were retired a week ago or earlier.")
@_json_option
@click.pass_obj
def remove(session: Session, key_id: str, *, retired: bool, as_json: bool) -> None:
    """Remove a retired key for good; what it sealed in old backups can't be opened any more."""
    if bool(key_id) is retired:
        raise UsageError("name a key, or say --retired")
    reply = _change(session, "keys.remove", to_wire(RemoveRequest(id=key_id, all_retired=retired)))
    if as_json:
        output.show_json(reply)
    else:
        output.show([line(f"{one} is removed") for one in reply["removed"]])


@command.command("backup", epilog=examples("novacronctl keys backup /media/safe/node-1.keys"))
@node_options
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@_passphrase_option
@_json_option
@click.pass_obj
def backup(session: Session, file: Path, *, passphrase_file: Path | None, as_json: bool) -> None:
    """Write the master key and the keyset to FILE, sealed under a passphrase.

    FILE must not be there yet. Keep it where the node's disk is not, and the passphrase elsewhere.
    """
    from services.security.keys import backup as backups

    passphrase = _passphrase(passphrase_file, is_new=True)
    salt = backups.new_salt()
    request = to_wire(BackupRequest(key=backups.derive(passphrase, salt)))
    reply = session.ask(BackupReply, _SECURITY, "keys.backup", request, timeout_s=_CHANGE_TIMEOUT_S)
    _write_new(file, backups.encode(reply, salt, now_s=time.time()))
    if as_json:
        output.show_json({"file": str(file), "master_id": reply.master_id})
    else:
        output.show([line(f"{file} has master key {reply.master_id} of node {reply.node_id}")])


@command.command("restore", epilog=examples("novacronctl keys restore /media/safe/node-1.keys"))
@node_options
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@_passphrase_option
@_json_option
@click.pass_obj
def restore(session: Session, file: Path, *, passphrase_file: Path | None, as_json: bool) -> None:
    """Put the keys of a backup into the state directory of a stopped node.

    Nothing that is there is replaced. Where the database has a newer keyset than the backup, the
    node says so at its start, and 'keys adopt' lets it take that one.
    """
    from services.security.keys import backup as backups

    with file.open("rb") as opened:
        found = backups.decode(opened.read(_FILE_BYTES_MAX))
    master, keyset = found.open(_passphrase(passphrase_file, is_new=False))
    disk = _disk(session)
    try:
        done = backups.restore(disk, master, keyset)
    finally:
        disk.close()
    if as_json:
        output.show_json({"master_key": done.has_written_master, "keyset": done.has_written_keyset})
        return
    said = {True: "is restored", False: "was there already and is left as it is"}
    output.show(
        [
            line(f"master key {found.master_id} {said[done.has_written_master]}"),
            line(f"the keyset {said[done.has_written_keyset]}"),
        ]
    )


@command.command("adopt", epilog=examples("novacronctl keys adopt"))
@node_options
@click.pass_obj
def adopt(session: Session) -> None:
    """Have a stopped node take the database's keyset at its next start.

    For a state directory that is older than the database. The keyset is taken only if it is
    authentic under this node's master key; the one that it replaces is set aside, not deleted.
    """
    from services.security.keys.backup import ask_to_adopt

    disk = _disk(session)
    try:
        ask_to_adopt(disk)
    finally:
        disk.close()
    output.show([line("the next start takes the database's keyset")])


def _wait(client: Client, found: KeysStatus) -> KeysStatus:
    is_drawing = sys.stderr.isatty()
    try:
        while found.job.is_running:
            if is_drawing:
                click.echo(f"\r\x1b[K{to_plain(render_job(found.job))}", nl=False, err=True)
            time.sleep(_LOOK_PERIOD_S)
            found = client.ask(KeysStatus, _SECURITY, "keys.status")
    except KeyboardInterrupt:
        output.note("\nthe re-encryption goes on; 'novacronctl keys status' shows how far it is")
        raise
    if is_drawing:
        click.echo("\r\x1b[K", nl=False, err=True)
    return found


def _disk(session: Session) -> DirectoryDisk:
    """The directory of the keys; nobody else may use it meanwhile."""
    from services.security.errors import MasterKeyError
    from services.security.keys.disk import DirectoryDisk

    directory = session.state_dir / "security"
    if not directory.parent.is_dir():
        raise UsageError(f"{directory.parent} is no state directory: make it, or name another one")
    try:
        return DirectoryDisk(directory)
    except MasterKeyError as exc:
        raise CtlError(f"the node runs on {session.state_dir}: stop it first") from exc


def _passphrase(file: Path | None, *, is_new: bool) -> str:
    from services.security.keys.backup import PASSPHRASE_LENGTH_MIN

    if file is not None:
        found = file.read_text().partition("\n")[0].strip("\r")
    elif sys.stdin.isatty():
        found = click.prompt("Passphrase", hide_input=True, confirmation_prompt=is_new, err=True)
    else:
        raise UsageError("there is no terminal to ask for the passphrase: --passphrase-file PATH")
    if is_new and len(found) < PASSPHRASE_LENGTH_MIN:
        raise UsageError(
            f"a passphrase of {len(found)} characters; {PASSPHRASE_LENGTH_MIN} are needed"
        )
    return found


def _write_new(file: Path, content: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(file, flags, 0o600)
        with open(fd, "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(fd)
    except OSError as exc:
        raise CtlError(f"can't write {file}: {exc.strerror}") from exc


def _change(session: Session, method: str, body: Plain = None) -> Plain:
    client = session.client(timeout_s=_CHANGE_TIMEOUT_S)
    try:
        return client.call(_SECURITY, method, body)
    finally:
        client.close()
