"""The network service's segments: calls, health check and restoration, drift, files, nft itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from protocol.errors import RemoteProtocolError
from protocol.messages.health import HealthState
from protocol.records import Plain
from services.network.segments.errors import (
    NftFailedError,
    NftMissingError,
    NftTimeoutError,
    SegmentsCheckFailedError,
    SegmentsNotWantedError,
    SegmentsStateError,
    SegmentsTargetSilentError,
)
from services.network.segments.nft import Nft
from services.network.segments.render import Command
from tests.fixtures.fix_guests import Guest
from tests.system.network_running import in_netns, wait_until
from tests.system.segments_running import (
    RULE,
    document,
    interface,
    nft,
    running,
    table,
    text,
    with_guest,
)

pytestmark = pytest.mark.netns


def test_a_service_that_never_had_segments_leaves_nftables_alone(tmp_path: Path) -> None:
    """Without a document there is no table, no file, and the component is healthy."""

    async def scenario() -> None:
        async with running(tmp_path) as node:
            assert node.context.health.state is HealthState.HEALTHY
            shown = await node.call("segments.show", {})
            assert shown["status"]["state"] == "none"
            with pytest.raises(SegmentsNotWantedError):
                await node.call("segments.apply", {})
            question = {"source": "tap1", "destination": "host"}
            with pytest.raises(SegmentsNotWantedError):
                await node.call("segments.trace", {"question": question})
        assert nft("list", "ruleset") == ""
        assert not (tmp_path / "network" / "segments.journal").exists()

    in_netns(scenario)


def test_plan_apply_show_and_trace_tell_the_same_story(tmp_path: Path) -> None:
    """A plan changes nothing; what it says is applied, shown, and asked about."""

    async def scenario() -> None:
        async with running(tmp_path) as node:
            plan = await node.call("segments.plan", {"document": document(interface(1, RULE))})
            assert table() == ""
            assert [step["subject"] for step in plan["steps"]] == ["interface tap1"]
            assert plan["warnings"] == ["tap1: the host has no such link now"]

            applied = await node.apply(interface(1, RULE))
            assert applied["revision"] == 1
            assert "tap1" in text()
            shown = await node.call("segments.show", {})
            assert shown["status"]["state"] == "in_force"
            assert shown["document"]["interfaces"][0]["name"] == "tap1"
            question = {
                "source": "eth9",
                "destination": "tap1",
                "source_address": "192.0.2.1",
                "port": 80,
            }
            answer = await node.call("segments.trace", {"question": question})
            assert answer["accepted"] is True
            assert "tap1: in 1" in json.dumps(answer)
            answer = await node.call("segments.trace", {"question": {**question, "port": 81}})
            assert answer["accepted"] is False
            assert answer["steps"][-1]["does"] == "drop"
            again = await node.call("segments.plan", {"document": document(interface(1, RULE))})
            assert again.get("steps", []) == []
            assert node.events() == ["segments:applied"]

    in_netns(scenario)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"mac": "52-54-00-00-00-01"}, "tap1: mac is"),
        ({"mac": "01:54:00:00:00:01"}, "multicast"),
        ({"addresses": ["10.20.0.300"]}, "which is no address"),
        ({"name": "../tap"}, "a link name has"),
        ({"rules": [{"direction": "in", "peers": []}]}, "peers has 0 entries"),
        ({"rules": [{"direction": "in", "peers": ["label:nobody"]}]}, "which nobody carries"),
        ({"rules": [{**RULE, "ports": ["0"]}]}, "within 1 to 65535"),
        ({"colour": "red"}, "unknown field"),
    ],
)
def test_a_bad_document_changes_nothing(
    tmp_path: Path, bad: dict[str, Plain], message: str
) -> None:
    """It is refused with its fault named, and the set in force stays as it is."""

    async def scenario() -> None:
        async with running(tmp_path) as node:
            await node.apply(interface(2, RULE))
            before = table()
            with pytest.raises(RemoteProtocolError, match=message):
                await node.apply(interface(2, RULE), {**interface(1), **bad})
            assert table() == before
            assert node.context.health.state is HealthState.HEALTHY

    in_netns(scenario)


def test_what_nft_refuses_names_the_document_and_changes_nothing(tmp_path: Path) -> None:
    """The first command that fails belongs to an interface, and the message says which."""

    async def scenario() -> None:
        async with running(tmp_path) as node:
            await node.apply(interface(1, RULE))
            before = table()
            commands = [
                Command({"add": {"chain": {**_PLACE, "name": "extra"}}}, "tap1"),
                Command({"add": {"rule": {**_PLACE, "chain": "missing", "expr": []}}}, "tap7"),
                Command({"add": {"chain": {**_PLACE, "name": "last"}}}, "tap9"),
            ]
            with pytest.raises(NftFailedError, match=r"^tap7: nft refused") as caught:
                await Nft().commit(commands)
            assert caught.value.fields["interface"] == "tap7"
            assert table() == before

    in_netns(scenario)


_PLACE: dict[str, Plain] = {"family": "bridge", "table": "novacron-segments"}


def test_the_previous_set_is_restored_when_the_check_fails(tmp_path: Path) -> None:
    """A change that cuts off what must stay reachable is taken back, and said so."""

    async def scenario(guest: Guest) -> None:
        guest.listen(80)
        target = f"{guest.address}:80"
        async with running(tmp_path) as node:
            good = await node.apply(interface(1, RULE), targets=(target,))
            before = table()
            with pytest.raises(SegmentsCheckFailedError, match=r"10\.20\.0\.1:80 did not answer"):
                await node.apply(interface(1), targets=(target,))

            assert table() == before
            assert node.events() == ["segments:applied", "segments:refused"]
            shown = await node.call("segments.show", {})
            assert shown["status"]["revision"] == good["revision"]
            assert not (tmp_path / "network" / "segments.journal").exists()
            assert (await node.service.check()).state is HealthState.HEALTHY
            await node.apply(interface(1, RULE, {**RULE, "ports": ["81"]}), targets=(target,))

    with_guest(scenario)


def test_the_first_set_is_taken_away_when_its_check_fails(tmp_path: Path) -> None:
    """Where nothing was in force before, nothing is afterwards."""

    async def scenario(guest: Guest) -> None:
        guest.listen(80)
        async with running(tmp_path) as node:
            with pytest.raises(SegmentsCheckFailedError):
                await node.apply(interface(1), targets=(f"{guest.address}:80",))
            assert table() == ""

    with_guest(scenario)


def test_a_table_of_unknown_origin_is_put_back_as_it_was(tmp_path: Path) -> None:
    """A lost state directory does not open the guests when a change fails."""

    async def scenario(guest: Guest) -> None:
        guest.listen(80)
        async with running(tmp_path / "old") as node:
            await node.apply(interface(1, RULE))
            before = table()
        async with running(tmp_path / "new") as node:
            with pytest.raises(SegmentsCheckFailedError):
                await node.apply(interface(1), targets=(f"{guest.address}:80",))
            assert table() == before

    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    with_guest(scenario)


def test_a_target_that_was_silent_before_refuses_the_change(tmp_path: Path) -> None:
    """Nothing is tried where the check could not hold even without the change."""

    async def scenario(_guest: Guest) -> None:
        async with running(tmp_path) as node:
            with pytest.raises(SegmentsTargetSilentError, match="even before"):
                await node.apply(interface(1), targets=("10.20.0.77:80",))
            assert table() == ""

    with_guest(scenario)


def test_a_refused_connection_counts_as_an_answer(tmp_path: Path) -> None:
    """A host that says no is reachable."""

    async def scenario(guest: Guest) -> None:
        async with running(tmp_path) as node:
            await node.apply(interface(1, RULE), targets=(f"{guest.address}:80",))

    with_guest(scenario)


def test_the_wanted_set_is_put_back_at_a_start(tmp_path: Path) -> None:
    """After the table was removed while no service ran, the next one restores it."""

    async def scenario() -> None:
        async with running(tmp_path) as node:
            await node.apply(interface(1, RULE))
        before = table()
        nft("delete", "table", "bridge", "novacron-segments")
        async with running(tmp_path) as node:
            assert table() == before
            assert node.events() == ["segments:restored"]
            assert node.context.health.state is HealthState.HEALTHY

    in_netns(scenario)


def test_a_restart_does_not_touch_a_set_that_is_in_force(tmp_path: Path) -> None:
    """Counts and flows live on, because nothing is written."""

    async def scenario() -> None:
        async with running(tmp_path) as node:
            await node.apply(interface(1, RULE))
            await node.service.check()  # the fingerprint is known from here on
        before = nft("-a", "list", "table", "bridge", "novacron-segments")
        async with running(tmp_path) as node:
            assert nft("-a", "list", "table", "bridge", "novacron-segments") == before
            assert node.events() == []

    in_netns(scenario)


@pytest.mark.parametrize(
    "damage",
    [
        ("delete", "table", "bridge", "novacron-segments"),
        ("flush", "chain", "bridge", "novacron-segments", "checked"),
        ("add", "element", "bridge", "novacron-segments", "dhcp", "{ tap1 }"),
        ("insert", "rule", "bridge", "novacron-segments", "forward", "accept"),
    ],
)
def test_drift_degrades_and_apply_without_a_document_mends_it(
    tmp_path: Path, damage: tuple[str, ...]
) -> None:
    """Whatever somebody changes in the table is noticed without being asked."""

    async def scenario() -> None:
        async with running(tmp_path) as node:
            await node.apply(interface(1, RULE))
            before = table()
            await node.service.check()
            nft(*damage)

            await wait_until(
                lambda: node.context.health.state is HealthState.DEGRADED, "notice of drift"
            )
            assert "segments apply" in node.context.health.reason
            assert node.events() == ["segments:applied", "segments:drifted"]
            await node.call("segments.apply", {})
            assert table() == before
            await wait_until(lambda: node.context.health.state is HealthState.HEALTHY, "recovery")

    in_netns(scenario)


def test_changes_of_other_tables_are_no_drift(tmp_path: Path) -> None:
    """Somebody else's tables may come and go."""

    async def scenario() -> None:
        async with running(tmp_path) as node:
            await node.apply(interface(1, RULE))
            await node.service.check()
            nft("add", "table", "bridge", "other")
            nft("delete", "table", "bridge", "other")
            assert (await node.service.check()).state is HealthState.HEALTHY
            assert node.events() == ["segments:applied"]

    in_netns(scenario)


def test_without_nft_a_node_with_segments_is_degraded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason names the package, and the service comes up all the same."""

    async def scenario() -> None:
        async with running(tmp_path) as node:
            await node.apply(interface(1, RULE))
        monkeypatch.setattr("services.network.segments.nft.PATH", str(tmp_path))
        async with running(tmp_path) as node:
            assert node.context.health.state is HealthState.DEGRADED
            assert "install the package nftables" in node.context.health.reason
            with pytest.raises(NftMissingError):
                await node.apply(interface(1))

    in_netns(scenario)


def test_a_hanging_nft_is_killed_and_named(tmp_path: Path) -> None:
    """A run past its deadline ends in an error, and no process is left behind."""
    program = tmp_path / "nft"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)

    async def scenario() -> None:
        with pytest.raises(NftTimeoutError, match="killed"):
            await Nft(program=str(program), deadline_s=0.2).read()

    in_netns(scenario)


@pytest.mark.parametrize("file", ["segments.json", "segments.journal"])
def test_a_damaged_file_is_named_and_nothing_is_touched(tmp_path: Path, file: str) -> None:
    """What is in force stays, the component is degraded, and the file is still there."""

    async def scenario() -> None:
        async with running(tmp_path) as node:
            await node.apply(interface(1, RULE))
        before = table()
        (tmp_path / "network" / file).write_text('{"format": 1, "rev')
        async with running(tmp_path) as node:
            assert node.context.health.state is HealthState.DEGRADED
            assert file in node.context.health.reason
            assert table() == before
            with pytest.raises(SegmentsStateError):
                await node.call("segments.show", {})
        assert (tmp_path / "network" / file).read_text() == '{"format": 1, "rev'

    in_netns(scenario)


@pytest.mark.parametrize("kind", ["journal", "json"])
def test_a_file_that_can_not_be_read_degrades_and_changes_nothing(
    tmp_path: Path, kind: str
) -> None:
    """Whatever is in the way, here a directory, is named; the component comes up."""
    (tmp_path / "network" / f"segments.{kind}").mkdir(parents=True)

    async def scenario() -> None:
        async with running(tmp_path) as node:
            assert node.context.health.state is HealthState.DEGRADED
            assert f"can't read {tmp_path}/network/segments.{kind}" in node.context.health.reason
            with pytest.raises(SegmentsStateError):
                await node.apply(interface(1, RULE))
            assert table() == ""

    in_netns(scenario)
