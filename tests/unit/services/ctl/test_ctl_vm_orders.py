"""Orders to machines: what is typed, what is sent, and what is shown."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import click
import pytest
from click.testing import CliRunner

from protocol.errors import RemoteCallError
from protocol.records import Plain, to_wire
from services.ctl.commands.vm_table import ORDERS, find_order
from services.ctl.errors import CtlError, UsageError
from services.ctl.session import Session
from services.ctl.styled import to_plain
from services.ctl.vm_orders import Size, progress_text, show
from services.ctl.vm_render import render_image, render_operations, render_snapshots
from services.ctl.vm_typing import split_typed
from services.vm.operations.model import OperationList, OperationRecord, OperationState
from services.vm.operations.storage_model import (
    ImageRecord,
    SnapshotKind,
    SnapshotList,
    SnapshotRecord,
)

DONE = OperationRecord(
    id=7,
    method="vm.start",
    subject="web1",
    state=OperationState.DONE,
    note="web1 runs",
    began_s=1.0,
)


class Recorder:
    """A client that answers each call with a record and remembers what was asked."""

    def __init__(self, *answers: object) -> None:
        self.asked: list[tuple[str, str, Plain]] = []
        self._answers = list(answers)

    def call(self, path: str, method: str, body: Plain = None) -> Plain:
        """One call."""
        self.asked.append((path, method, body))
        answer = self._answers.pop(0) if self._answers else DONE
        if isinstance(answer, Exception):
            raise answer
        return to_wire(answer)

    def close(self) -> None:
        """Nothing to close."""


@dataclass(frozen=True, slots=True)
class RecorderSession(Session):
    """A session whose node is a Recorder."""

    recorder: Recorder | None = None

    def client(self, *, timeout_s: float = 5.0) -> Recorder:  # type: ignore[override] # a twin
        """The recorder."""
        assert self.recorder is not None
        return self.recorder


def order(*arguments: str, answers: tuple[object, ...] = ()) -> tuple[Recorder, int, str]:
    """Run an order; the calls, the exit code and the output."""
    command = find_order(arguments[0])
    assert command is not None
    recorder = Recorder(*answers)
    session = RecorderSession(recorder=recorder)
    done = CliRunner().invoke(command, list(arguments[1:]), obj=session)
    if isinstance(done.exception, Exception):
        raise done.exception
    return recorder, done.exit_code, done.output


def test_every_order_is_there_and_explains_itself() -> None:
    """Each name imports a command whose help has an example."""
    for name in ORDERS:
        command = find_order(name)
        assert isinstance(command, click.Command)
        assert command.help
        leaves = command.commands.values() if isinstance(command, click.Group) else (command,)
        assert all("novacronctl vm" in (leaf.epilog or "") for leaf in leaves), name
    assert find_order("nonsense") is None


@pytest.mark.parametrize(
    ("arguments", "method", "body"),
    [
        (
            ("start", "a", "--fresh"),
            "vm.start",
            {"domain": "a", "paused": False, "fresh": True, "takeover": False},
        ),
        (("stop", "a", "--force"), "vm.stop", {"domain": "a", "agent_s": 0.0, "acpi_s": 0.0}),
        (
            ("stop", "a", "--no-force", "--agent-time", "5"),
            "vm.stop",
            {"domain": "a", "agent_s": 5.0, "acpi_s": 60.0, "force_s": 0.0},
        ),
        (("reboot", "a"), "vm.reboot", {"domain": "a"}),
        (("reboot", "a", "--reset"), "vm.reset", {"domain": "a"}),
        (("save", "a"), "vm.save", {"domain": "a", "file": ""}),
        (("autostart", "a", "off"), "vm.autostart", {"domain": "a", "enabled": False}),
        (
            ("resize", "a", "--memory", "2G", "--disk", "vda=20g"),
            "vm.resize",
            {"domain": "a", "memory_bytes": 2 << 30, "disk": "vda", "disk_bytes": 20 << 30},
        ),
        (
            ("attach", "a", "--bridge", "br0"),
            "vm.interface.attach",
            {"domain": "a", "bridge": "br0", "network": "", "mac": "", "interface_model": "virtio"},
        ),
        (
            ("snapshot", "delete", "a", "one"),
            "vm.snapshot.delete",
            {"domain": "a", "snapshot": "one"},
        ),
        (
            ("image", "clone", "/i/a.raw", "/i/b.raw"),
            "image.copy",
            {"source": "/i/a.raw", "target": "/i/b.raw", "compress": False},
        ),
        (
            ("image", "create", "/i/a.raw", "1M"),
            "image.create",
            {"path": "/i/a.raw", "backing": "", "format": "raw", "size_bytes": 1 << 20},
        ),
    ],
)
def test_what_is_typed_is_what_is_sent(
    arguments: tuple[str, ...], method: str, body: dict[str, Plain]
) -> None:
    """One call of the VM service, and its note as the answer."""
    recorder, code, output = order(*arguments)

    assert recorder.asked == [("core/vm", method, body)]
    assert (code, output) == (0, "web1 runs\n")


def test_an_order_is_followed_to_its_end() -> None:
    """While it runs it is asked for news; --no-wait leaves it."""
    begun = OperationRecord(id=7, method="vm.save", subject="web1", state=OperationState.RUNNING)

    recorder, _, _ = order("save", "web1", answers=(begun, begun, DONE))
    assert [method for _, method, _ in recorder.asked] == [
        "vm.save",
        "vm.operation",
        "vm.operation",
    ]
    recorder, code, output = order("save", "web1", "--no-wait", answers=(begun,))
    assert (len(recorder.asked), code) == (1, 0)
    assert output == "operation 7 is under way: vm.save of web1\n"


@pytest.mark.parametrize(
    "state", [OperationState.FAILED, OperationState.UNKNOWN, OperationState.CANCELLED]
)
def test_an_order_that_was_not_carried_out_fails_the_command(state: OperationState) -> None:
    """With the operation's own words, and after the JSON where that is wanted."""
    record = OperationRecord(id=7, method="vm.start", subject="web1", state=state, error="no disk")

    with pytest.raises(CtlError, match=r"no disk|cancelled"):
        show(record, as_json=False)
    with pytest.raises(CtlError):
        show(record, as_json=True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("resize", "a", "--memory", "much"),
        ("resize", "a", "--disk", "20G"),
        ("resize", "a"),
        ("attach", "a"),
        ("attach", "a", "--disk", "/i/a", "--bridge", "br0"),
        ("image", "create", "/i/a.raw"),
        ("autostart", "a", "maybe"),
        ("stop", "a", "--acpi-time", "-1"),
    ],
)
def test_what_means_nothing_is_not_sent(arguments: tuple[str, ...]) -> None:
    """It is wrong usage, and the node is not asked."""
    with contextlib.suppress(UsageError):
        recorder, code, _ = order(*arguments)
        assert (recorder.asked, code) == ([], 2)


def test_a_refusal_keeps_its_code() -> None:
    """The program turns it into an exit code."""
    refusal = RemoteCallError("no", remote_code="security.access_denied")
    with pytest.raises(RemoteCallError):
        order("start", "a", answers=(refusal,))


def test_sizes_are_powers_of_1024() -> None:
    """With or without iB, in either case."""
    assert [Size().convert(text, None, None) for text in ("512", "1k", "2MiB", "3GB")] == [
        512,
        1 << 10,
        2 << 20,
        3 << 30,
    ]
    with pytest.raises(click.BadParameter):
        Size().convert("1.5G", None, None)


def test_the_key_that_leaves_is_not_sent() -> None:
    """What was typed before it is; in a file it is a byte like others."""
    assert split_typed(b"ab\x1dcd", is_terminal=True) == (b"ab", True)
    assert split_typed(b"ab", is_terminal=True) == (b"ab", False)
    assert split_typed(b"ab\x1dcd", is_terminal=False) == (b"ab\x1dcd", False)


def test_names_from_elsewhere_can_t_move_the_cursor() -> None:
    """Control characters of a guest's name are made visible everywhere."""
    bad = OperationRecord(
        id=1,
        method="vm.start",
        subject="a\x1b[2J",
        state=OperationState.RUNNING,
        step="b\x1b[2J",
        progress=0.25,
        began_s=1.0,
    )
    lines = render_operations(OperationList(operations=(bad,)), now_s=61.0, width=100)
    lines += render_snapshots(
        SnapshotList(snapshots=(SnapshotRecord(name="c\x1b", kind=SnapshotKind.DISK),)),
        now_s=1.0,
        width=100,
    )
    lines += render_image(
        ImageRecord(path="d\x1b", format="raw", size_bytes=1, used_bytes=1, backing="e\x1b")
    )
    text = "\n".join(to_plain(spans) for spans in lines) + progress_text(bad, now_s=3.0)

    assert "\x1b" not in text
    assert "25 %" in text
    assert progress_text(bad, now_s=3.0).endswith(" 25 %, 2 s")


def test_empty_lists_say_so() -> None:
    """Rather than a head without rows."""
    nothing = render_operations(OperationList(), now_s=0.0, width=80)
    assert to_plain(nothing[0]) == "no orders since the VM service started"
    assert to_plain(render_snapshots(SnapshotList(), now_s=0.0, width=80)[0]) == "no snapshots"
