"""Crashes of every change of the keys, on a disk in memory: nothing is lost, nothing made anew."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.security import cipher
from services.security.errors import KeyRefusedError, KeysetError, KeyStorageError, MasterKeyError
from services.security.keyring import Keyring, load_keyring
from services.security.keys.disk import MemoryDisk
from services.security.keys.recovery import Origin
from services.security.keys.sources import OutsideSource, parse_source
from services.security.keys.store import COPY, KEYSET, MARK, KeyStore

CONTEXT = cipher.bind("test", "value")


class Crash(BaseException):
    """The process is gone."""


class World:
    """A disk and a database's mirror that outlive the processes, and what was sealed so far."""

    def __init__(self, outside: OutsideSource | None = None) -> None:
        self.disk = MemoryDisk()
        self.mirror: bytes | None = None
        self.outside = outside
        self.sealed: list[tuple[bytes, bytes]] = []
        self.audit_keys: set[str] = set()
        self.older = b""

    def start(self) -> Keyring:
        """A process finds its keys; all that was ever sealed opens, the audit key is the same."""
        keyring = load_keyring(
            None,  # type: ignore[arg-type]  # the disk is given
            node_id="node",
            now_s=0.0,
            mirror=self.mirror,
            outside=self.outside,
            disk=self.disk,
        )
        for value, sealed in self.sealed:
            assert keyring.open(sealed, context=CONTEXT) == value
        self.audit_keys.add(keyring.signer.key_id)
        return keyring

    def work(self, keyring: Keyring, what: str) -> None:
        """One thing that a process does."""
        match what:
            case "seal":
                value = str(len(self.sealed)).encode()
                sealed = keyring.seal(value, context=CONTEXT)
                self.sync(keyring)
                self.sealed.append((value, sealed))
            case "rotate":
                keyring.rotate(now_s=0.0)
            case "master":
                with contextlib.suppress(KeyRefusedError):
                    keyring.rotate_master()
            case "sync":
                self.sync(keyring)
                if keyring.has_old_master:
                    keyring.drop_old_master()

    def sync(self, keyring: Keyring) -> None:
        """Write the mirror."""
        self.mirror = keyring.content


def crash_at(number: int, error: type[BaseException] = Crash) -> Callable[[str], None]:
    """A step that ends the process, or fails, at the given change of the disk and from then on."""
    steps = itertools.count()

    def on_step(_step: str) -> None:
        if next(steps) >= number:
            raise error("the disk is full" if error is KeyStorageError else "")

    return on_step


WORK = st.sampled_from(["seal", "rotate", "master", "sync"])


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.lists(WORK, max_size=5), st.integers(0, 14)), max_size=6))
def test_no_crash_loses_anything(lives: list[tuple[list[str], int]]) -> None:
    """Processes that crash at any change, in any work, leave all that was sealed readable."""
    world = World()
    for works, crash in lives:
        world.disk.on_step = crash_at(crash)
        with contextlib.suppress(Crash):
            keyring = world.start()
            for what in works:
                world.work(keyring, what)
    world.disk.on_step = lambda _step: None
    keyring = world.start()
    for what in ("seal", "master", "rotate", "seal", "sync", "master", "sync"):
        world.work(keyring, what)
    world.start()

    assert len(world.audit_keys) == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(WORK, st.integers(0, 8)), max_size=12))
def test_no_failed_write_loses_anything(works: list[tuple[str, int]]) -> None:
    """A disk that fails at any change leaves a process that goes on, and a start that works."""
    world = World()
    keyring = world.start()
    for what, number in works:
        world.disk.on_step = crash_at(number, KeyStorageError)
        with contextlib.suppress(KeyStorageError):
            world.work(keyring, what)
    world.disk.on_step = lambda _step: None
    world.work(keyring, "seal")
    world.work(world.start(), "master")
    world.start()

    assert len(world.audit_keys) == 1


def test_each_step_of_a_master_rotation_is_a_good_one() -> None:
    """A crash before each single change: the next start has either master key, and goes on."""
    for number in range(20):
        world = World()
        keyring = world.start()
        world.work(keyring, "seal")
        before = keyring.keyset.master_id
        world.disk.on_step = crash_at(number)
        try:
            world.work(keyring, "master")
            world.work(keyring, "sync")
        except Crash:
            pass
        else:
            assert number > 4, "a rotation has at least five steps"
            break
        world.disk.on_step = lambda _step: None
        again = world.start()
        assert ".next" not in "".join(world.disk.files)
        world.work(again, "master")
        world.work(again, "sync")
        assert again.keyset.master_id != before or number == 0
        assert "master.key.old" not in world.disk.files
    else:
        raise AssertionError("it never ended")


def test_the_first_start_makes_all_and_marks_it() -> None:
    """Four files, and a second start makes nothing."""
    world = World()
    assert world.start().created
    assert set(world.disk.files) == {"master.key", KEYSET, COPY, MARK}
    before = dict(world.disk.files)

    assert not world.start().created
    assert world.disk.files == before


def tear(content: bytes) -> bytes:
    """A file after a crash of a disk that lies about its syncs."""
    return content[: len(content) // 2]


def edit(content: bytes) -> bytes:
    """A whole file with another number in it."""
    return content.replace(b'"reserved":0', b'"reserved":1', 1)


@pytest.mark.parametrize("name", [KEYSET, COPY])
def test_one_torn_or_lost_file_is_mended(name: str) -> None:
    """The other one has the same keys, and the start says what it did."""
    for change in (tear, None):
        world = World()
        keyring = world.start()
        world.work(keyring, "rotate")
        world.work(keyring, "seal")
        whole = dict(world.disk.files)
        if change is None:
            del world.disk.files[name]
        else:
            world.disk.files[name] = change(world.disk.files[name])

        assert "written anew" in world.start().remark
        assert world.disk.files == whole


def lose_master(world: World) -> None:
    """Remove the master key."""
    del world.disk.files["master.key"]


def replace_master(world: World) -> None:
    """Put another master key there."""
    world.disk.files["master.key"] = bytes(32)


def change_both(change: Callable[[bytes], bytes]) -> Callable[[World], None]:
    """Change keyset and copy."""

    def attack(world: World) -> None:
        for name in (KEYSET, COPY):
            world.disk.files[name] = change(world.disk.files[name])

    return attack


def lose_keyset(world: World) -> None:
    """Remove keyset and copy."""
    del world.disk.files[KEYSET], world.disk.files[COPY]


def lose_mark_too(world: World) -> None:
    """Remove every sign of a keyset but the database's."""
    lose_keyset(world)
    del world.disk.files[MARK]


def roll_back(world: World) -> None:
    """Put the keyset, and not its copy, back to what it was."""
    world.disk.files[KEYSET] = world.older


def roll_both_back(world: World) -> None:
    """Put both back."""
    world.disk.files[KEYSET] = world.disk.files[COPY] = world.older


ATTACKS = [
    (lose_master, MasterKeyError, "the master key is gone"),
    (replace_master, KeysetError, "the master key was replaced"),
    (change_both(tear), KeysetError, "neither the keyset nor its copy is whole"),
    (change_both(edit), KeysetError, "was changed by something other than this program"),
    (lose_keyset, KeysetError, "the keyset and its copy are gone"),
    (lose_mark_too, KeysetError, "the keyset and its copy are gone"),
    (roll_back, KeysetError, "its copy of"),
    (roll_both_back, KeysetError, "the database knows the keyset's generation"),
]


@pytest.mark.parametrize(("attack", "error", "match"), ATTACKS)
def test_attacks_are_refused_and_change_nothing(
    attack: Callable[[World], None], error: type[Exception], match: str
) -> None:
    """The start ends with what was found and what to do; every file stays as the attack left it."""
    world = World()
    keyring = world.start()
    world.older = world.disk.files[KEYSET]
    world.work(keyring, "rotate")
    world.work(keyring, "seal")
    attack(world)
    left = dict(world.disk.files)

    with pytest.raises(error, match=match) as caught:
        world.start()

    assert (
        "restore" in str(caught.value)
        or "put the right one back" in str(caught.value)
        or ("keys adopt" in str(caught.value))
    )
    assert world.disk.files == left


def test_an_adopted_keyset_replaces_an_older_one_only() -> None:
    """The database's is taken when it is newer, and refused when it would lose keys."""
    world = World()
    keyring = world.start()
    older_mirror = keyring.content
    world.older = world.disk.files[KEYSET]
    world.work(keyring, "rotate")
    world.work(keyring, "seal")
    newest = world.mirror
    world.disk.files["adopt-keyset"] = b""
    world.mirror = older_mirror
    with pytest.raises(KeysetError, match="would lose keys"):
        world.start()
    world.mirror = newest
    roll_both_back(world)

    world.start()

    assert world.disk.files["keyset.replaced"] == world.older
    assert "adopt-keyset" not in world.disk.files


def outside(keys: dict[str, bytes]) -> OutsideSource:
    """A source from a dictionary."""
    return OutsideSource("kek", keys.get, what="the secret")


def test_a_master_key_from_outside_is_used_and_rotated() -> None:
    """It is never written to the disk; the next one takes over when it is given and asked for."""
    keys = {"kek": b"a" * 32}
    world = World(outside(keys))
    keyring = world.start()
    world.work(keyring, "seal")
    with pytest.raises(KeyRefusedError, match="behind it, and try again"):
        keyring.rotate_master()
    keys["kek.next"] = b"0b" * 32
    keyring.rotate_master()
    world.work(keyring, "seal")
    keys = {"kek": b"0b" * 32}
    world.outside = outside(keys)
    world.start()

    assert not any(name.startswith("master") for name in world.disk.files)
    assert not any(b"a" * 32 in content for content in world.disk.files.values())
    world.outside = outside({"kek": b"c" * 32})
    with pytest.raises(KeysetError, match="the master key was replaced"):
        world.start()


def test_a_node_moves_from_its_file_to_a_master_key_from_outside() -> None:
    """The file's key serves until the change is asked for, and is removed after it."""
    world = World()
    world.work(world.start(), "seal")
    world.outside = outside({"kek": b"a" * 32})
    keyring = world.start()
    assert keyring.master_place == "master.key"
    world.work(keyring, "master")
    assert keyring.master_place == "outside"
    world.work(keyring, "sync")

    assert not any(name.startswith("master") for name in world.disk.files)
    world.start()


@pytest.mark.parametrize(
    ("keys", "match"),
    [({}, "is not there"), ({"kek": b"short"}, "holds 5 bytes and no master key")],
)
def test_a_missing_or_broken_key_from_outside_makes_no_other(
    keys: dict[str, bytes], match: str
) -> None:
    """Nothing is written."""
    world = World(outside(keys))

    with pytest.raises(MasterKeyError, match=match):
        world.start()
    assert world.disk.files == {}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("file", "file"),
        ("credential:kek", "credential"),
        ("secret:vault/nova#kek", "secret"),
        ("credential:", None),
        ("credential:../kek", None),
        ("secret:vault", None),
        ("files", None),
        ("", None),
    ],
)
def test_sources_are_parsed(text: str, kind: str | None) -> None:
    """Three kinds, and nothing else."""
    if kind is None:
        with pytest.raises(ValueError, match="credential:NAME"):
            parse_source(text)
    else:
        assert parse_source(text)[0] == kind


def test_what_the_derived_key_sealed_stays_readable() -> None:
    """A node from before keysets: its sealing key is decrypt-only, its audit key the same."""
    from services.security.keyring import derive_keyring

    world = World()
    world.disk.files["master.key"] = bytes(range(32))
    derived = derive_keyring(bytes(range(32)))
    world.sealed.append((b"old", derived.cipher.seal(b"old", context=CONTEXT, nonce=bytes(12))))

    keyring = world.start()

    assert keyring.signer.key_id == derived.signer.key_id
    assert keyring.key_id != derived.cipher.key_id
    assert dict(keyring.public_keys) == {derived.signer.key_id: derived.signer.public_bytes}
    world.work(keyring, "master")
    world.work(keyring, "sync")
    assert world.start().signer.key_id == derived.signer.key_id


def test_origins_are_told() -> None:
    """The store says where the keys are from."""
    world = World()
    store = KeyStore(world.disk, node_id="node")
    assert store.load(None, has_data=False, now_s=0.0).origin is Origin.NEW
    again = KeyStore(world.disk, node_id="node")
    assert again.load(None, has_data=True, now_s=0.0).origin is Origin.KEYSET


def test_uses_are_reserved_before_they_are_made() -> None:
    """However a process ends, the disk knows at least as many uses as were made."""
    world = World()
    for _ in range(3):
        keyring = world.start()
        for _ in range(10):
            world.work(keyring, "seal")
    assert world.start().keyset.active.reserved == 3 * 65536
