"""The state directory of a node: made, checked, completed, and held by one node at a time.

Below ``<state>``, 0751; root's group is the operators', so that its members reach the sockets:

    format              1, the layout's version                      0640
    node.lock           flock'ed by the node that runs; its pid      0600
    run                 sockets and keys, or a link to them          2751
    run/pg, run/redis   sockets of the embedded servers              service user, 0700
    logs                unless configured elsewhere                  2750
    security            0700
    security/spool      audit records that nobody has taken yet      0700
    dwcp                0750
    dwcp/incoming       2750
    postgres, redis     data of the embedded servers                 service user, 0700

The service user is not in that group: it passes ``<state>`` and ``run`` on the way to what is its
own, and can neither list them nor open what else is in them. Nobody but the node, as root, enters
``run/pg`` and ``run/redis``, since Redis asks no one who he is.

The rules: nothing is changed before the lock is held and the format is known; what is missing is
made, what is there stays; a directory with other things in it is never taken over.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from protocol import names, run_files
from services.files import replace_file
from services.node import directories, lock
from services.node.directories import explained, refused, user_name
from services.node.errors import ServiceUserError, StateDirectoryError, StateFormatError

FORMAT = 1
FORMAT_NAME = "format"
SPOOL_NAME = "spool"

_OWN_NAMES = frozenset({"run", "logs", "security", "dwcp", "postgres", "redis"})
_OWN_MARKS = frozenset({FORMAT_NAME, lock.NAME})
_MOUNT_NAMES = frozenset({"lost+found"})
_STALE_SUFFIXES = (".sock", ".key", ".new", ".lock", ".notify", ".stacks")
# In the run directory, a link back to the state directory, for people who wonder whose it is.
_BACK_LINK = "state"
_SHARED, _PRIVATE, _GROUP = 0o2750, 0o700, 0o750
# Others may pass, not look: the embedded servers run as an account outside the group.
_STATE, _RUN = 0o751, 0o2751


@dataclass(frozen=True, slots=True, kw_only=True)
class StateDir:
    """A state directory that is ready for a node, and held by it while ``lock_fd`` is open.

    Attributes:
        path: of the state directory.
        run_dir: of the sockets and keys.
        log_dir: None where no log file can be written; ``log_problem`` says why.
        incoming_dir: where received files appear.
        spool_dir: where processes note privileged calls.
        postgres_dir, postgres_socket_dir, redis_dir, redis_socket: of the embedded servers.
        server_user: account of the embedded servers; "" for the node's own.
        lock_fd: not inherited by other programs, but by forks: the last one lets go.
        is_new: it was made now.
    """

    path: Path
    run_dir: Path
    log_dir: Path | None
    log_problem: str
    incoming_dir: Path
    spool_dir: Path
    postgres_dir: Path
    postgres_socket_dir: Path
    redis_dir: Path
    redis_socket: Path
    server_user: str
    lock_fd: int
    is_new: bool


@dataclass(frozen=True, slots=True)
class _Owners:
    """Ids of the node, its group, and the account of its servers."""

    uid: int
    gid: int
    server_uid: int
    server_gid: int
    server_user: str


def prepare(
    state: Path,
    *,
    log_dir: Path,
    group: str,
    service_user: str,
    embedded: bool,
    lock_timeout_s: float = lock.TIMEOUT_S,
) -> StateDir:
    """Take hold of a state directory and complete it.

    Args:
        state: absolute path.
        log_dir: absolute path; a failure there is told and no error.
        group: of the people who may use the control socket.
        service_user: account of the embedded servers where the node runs as root.
        embedded: whether there are such servers.
        lock_timeout_s: how long to wait for another node's processes to go.

    Raises:
        NodeRunningError: another node runs on it.
        StateDirectoryError: it can't be used; also its subclasses. The message says what to do.
        ServiceUserError: there is no such account.
    """
    owners = _find_owners(group, service_user, embedded=embedded)
    with explained(state):
        is_new = _enter(state, owners)
        lock_fd = lock.acquire(state / lock.NAME, timeout_s=lock_timeout_s)
    try:
        with explained(state):
            _check_format(state / FORMAT_NAME)
            lock.write_pid(lock_fd)
            directories.own(state, owners.uid, owners.gid, _STATE)
            run = _make_run_dir(state, owners)
            _complete(state, run, owners, embedded=embedded)
        log_problem = _make_log_dir(log_dir, owners, is_ours=log_dir.is_relative_to(state))
    except BaseException:
        os.close(lock_fd)
        raise
    return StateDir(
        path=state,
        run_dir=run,
        log_dir=None if log_problem else log_dir,
        log_problem=log_problem,
        incoming_dir=state / "dwcp" / "incoming",
        spool_dir=state / "security" / SPOOL_NAME,
        postgres_dir=state / "postgres",
        postgres_socket_dir=run / "pg",
        redis_dir=state / "redis",
        redis_socket=run / "redis" / "redis.sock",
        server_user=owners.server_user,
        lock_fd=lock_fd,
        is_new=is_new,
    )


def parse_format(text: str) -> int | None:
    """The version in a format file, None for an empty one.

    Raises:
        ValueError: it is no version.
    """
    stripped = text.strip()
    if not stripped:
        return None
    if not (stripped.isascii() and stripped.isdecimal() and len(stripped) < 10):
        raise ValueError("no whole number")
    return int(stripped)


def foreign_names(entries: frozenset[str]) -> list[str]:
    """What shows that a directory belongs to something else; nothing if it is a node's or empty."""
    if entries & _OWN_MARKS:
        return []
    return sorted(entries - _OWN_NAMES - _MOUNT_NAMES)


def _find_owners(group: str, service_user: str, *, embedded: bool) -> _Owners:
    uid = os.geteuid()
    try:
        group_id = grp.getgrnam(group).gr_gid
    except KeyError:
        group_id = os.getegid()
    if uid != 0:
        gid = group_id if group_id in os.getgroups() else os.getegid()
        return _Owners(uid, gid, uid, gid, "")
    if not embedded:
        return _Owners(uid, group_id, uid, group_id, "")
    try:
        entry = pwd.getpwnam(service_user)
    except KeyError:
        raise ServiceUserError(
            f"there is no user {service_user} to run PostgreSQL and Redis as; make it with: "
            f"adduser --system --group --no-create-home {service_user}",
            user=service_user,
        ) from None
    if entry.pw_uid == 0:
        raise ServiceUserError(
            f"PostgreSQL refuses to run as {service_user}; name another system.serviceUser",
            user=service_user,
        )
    return _Owners(uid, group_id, entry.pw_uid, entry.pw_gid, service_user)


def _enter(state: Path, owners: _Owners) -> bool:
    """Make the directory, or see that the one which is there is the node's; True if made."""
    if not os.path.lexists(state):
        state.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        # Not yet the group's: that comes when everything is checked, as for one that was there.
        with contextlib.suppress(FileExistsError):  # another node was quicker; the lock decides
            state.mkdir(mode=_PRIVATE)
            return True
    if not state.exists():
        raise refused(state, "is a symbolic link to nowhere", "mount what is missing or remove it")
    if not state.is_dir():
        raise refused(state, "is no directory", "remove it")
    found = state.stat()
    if found.st_uid != owners.uid:
        owner, own = user_name(found.st_uid), user_name(owners.uid)
        raise refused(
            state,
            f"belongs to user {owner} and this is user {own}",
            f"start the node as {owner}",
        )
    if found.st_mode & stat.S_IWOTH:
        raise refused(state, "is writable for everybody", f"chmod o-w {state}")
    if foreign := foreign_names(frozenset(entry.name for entry in state.iterdir())):
        shown = ", ".join(foreign[:3]) + (", …" if len(foreign) > 3 else "")
        raise refused(state, f"holds other things ({shown})", "empty it")
    return False


def _check_format(file: Path) -> None:
    """Refuse what we do not know, write it where there is none."""
    try:
        text = file.read_text()
    except FileNotFoundError:
        text = ""
    except UnicodeDecodeError:
        text = "?"
    try:
        version = parse_format(text)
    except ValueError:
        version = 0
    if version == FORMAT:
        return
    if version is not None:
        if version > FORMAT:
            found = f"has format {version}, from a newer NovaCron; this one knows {FORMAT}"
            advice = "upgrade NovaCron"
        else:
            found = f"has no known format: {file} says {text[:20]!r} and not {FORMAT}"
            advice = "restore that file from a backup"
        raise StateFormatError(
            f"the state directory {file.parent} {found}; {advice}, or name another --state-dir",
            path=str(file.parent),
        )
    replace_file(file, f"{FORMAT}\n", mode=0o640)


def _make_run_dir(state: Path, owners: _Owners) -> Path:
    """Make the directory of sockets and remove what an earlier node left in it."""
    link = state / "run"
    # Decided anew at each start: a copied or moved state directory has another node's link.
    if link.is_symlink():
        link.unlink()
    run = names.choose_run_dir(state)
    if run != link and link.is_dir():
        _clear(link)
        (link / _BACK_LINK).unlink(missing_ok=True)
        for name in ("pg", "redis", ""):
            with contextlib.suppress(FileNotFoundError):
                (link / name).rmdir()
    if run != link and os.path.lexists(link):
        raise refused(link, "is in the way of a link", "remove it")
    directories.ensure(run, owners.uid, owners.gid, _RUN)
    _clear(run)
    if run != link:
        link.symlink_to(run)
        if not os.path.lexists(run / _BACK_LINK):
            (run / _BACK_LINK).symlink_to(state)
    return run


def leave(state: StateDir) -> None:
    """Remove the run directory of a node that has stopped, as far as nobody else uses it."""
    _clear(state.run_dir)
    (state.run_dir / _BACK_LINK).unlink(missing_ok=True)
    for name in ("pg", "redis", ""):
        with contextlib.suppress(OSError):
            (state.run_dir / name).rmdir()


def _clear(run: Path) -> None:
    """Remove sockets, keys and identities; the lock says that nobody uses them."""
    run_files.remove(run)
    for directory in (run, run / "pg", run / "redis"):
        # A link or a file in place of a directory is reported where the directory is made.
        if directory.is_symlink() or not directory.is_dir():
            continue
        for entry in directory.iterdir():
            # PostgreSQL would take its lock's old process id for a process of today.
            is_stale = entry.name.startswith(".s.PGSQL.") or entry.name.endswith(_STALE_SUFFIXES)
            if is_stale:
                with contextlib.suppress(IsADirectoryError):
                    entry.unlink(missing_ok=True)


def _complete(state: Path, run: Path, owners: _Owners, *, embedded: bool) -> None:
    if not os.path.lexists(state / "security"):
        # One that is there is judged by the security level: its mode may tell of a leak.
        (state / "security").mkdir(mode=_PRIVATE)
        directories.own(state / "security", owners.uid, owners.gid, _PRIVATE)
    directories.ensure(state / "security" / SPOOL_NAME, owners.uid, owners.gid, _PRIVATE)
    directories.ensure(state / "dwcp", owners.uid, owners.gid, _GROUP)
    directories.ensure(state / "dwcp" / "incoming", owners.uid, owners.gid, _SHARED)
    if embedded:
        _make_server_dirs(state, run, owners)


def _make_server_dirs(state: Path, run: Path, owners: _Owners) -> None:
    """Make what is the embedded servers' own; data of another account is refused as a whole."""
    uid, gid = owners.server_uid, owners.server_gid
    data = (state / "postgres", state / "redis")
    foreign = [path for path in data if directories.is_foreign(path, uid)]
    if not foreign:
        # PostgreSQL insists on owning its cluster; a chown without -R does not hand that over.
        foreign = [path for path in (state / "postgres/data",) if directories.is_foreign(path, uid)]
    if foreign:
        found, wanted = user_name(foreign[0].lstat().st_uid), user_name(uid)
        raise refused(
            foreign[0],
            f"belongs to user {found} and not to {wanted}, whom the servers run as",
            f"hand it over with: chown -R {wanted}: {' '.join(map(str, foreign))}",
        )
    for path in (run / "pg", run / "redis"):
        if directories.is_foreign(path, uid):
            # No data: emptied of its sockets, an earlier service user's directory may go.
            with contextlib.suppress(OSError):
                path.rmdir()
        directories.ensure(path, uid, gid, _PRIVATE)
    for path in data:
        directories.ensure(path, uid, gid, _PRIVATE)


def _make_log_dir(log_dir: Path, owners: _Owners, *, is_ours: bool) -> str:
    """Make the directory of log files; returns why there are none, or ""."""
    try:
        log_dir.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        if is_ours:
            directories.ensure(log_dir, owners.uid, owners.gid, _SHARED)
        elif not log_dir.exists():
            log_dir.mkdir(mode=_PRIVATE)
            directories.own(log_dir, owners.uid, owners.gid, _SHARED)
    except StateDirectoryError as exc:
        return exc.message
    except OSError as exc:
        return f"can't make {log_dir}: {exc.strerror}"
    if not log_dir.is_dir():
        return f"{log_dir} is no directory"
    if not os.access(log_dir, os.W_OK | os.X_OK, effective_ids=True):
        return f"{log_dir} is not writable for user {user_name(owners.uid)}"
    return ""
