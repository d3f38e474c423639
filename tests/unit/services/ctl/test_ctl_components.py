"""Names of components, and how the tree is drawn."""

from __future__ import annotations

import pytest

from services.ctl.components import branches, find
from services.ctl.errors import Exit, NoComponentError
from tests.unit.services.ctl.ctl_samples import COMPONENTS, component


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("vm", "core/vm"),
        ("core/vm", "core/vm"),
        ("core/vm/", "core/vm"),
        ("transport.0", "core/dwcp/transport.0"),
        ("data", "data"),
    ],
)
def test_find_by_id_or_path(name: str, path: str) -> None:
    """An operator may say the id or the whole path."""
    assert find(COMPONENTS, name).path == path


def test_unknown_name_proposes_the_closest() -> None:
    """A typing error is answered with what was probably meant."""
    with pytest.raises(NoComponentError, match=r"did you mean .*database") as caught:
        find(COMPONENTS, "databse")

    assert caught.value.exit_code is Exit.USAGE


def test_strange_name_points_to_the_list() -> None:
    """Where nothing is close, the message says where the names are."""
    with pytest.raises(NoComponentError, match="'novacronctl tree' lists them"):
        find(COMPONENTS, "zzzzzz")


def test_ambiguous_id_lists_the_paths() -> None:
    """Two components of one id are told apart by their paths."""
    twice = (*COMPONENTS, component("optional/vm", "optional"))

    with pytest.raises(NoComponentError, match="core/vm, optional/vm"):
        find(twice, "vm")


def test_branches_put_children_below_their_supervisor() -> None:
    """Children follow their supervisor even when they are listed elsewhere."""
    listed = (component("a/x", ""), component("b", ""), component("a", ""))

    drawn = [f"{branch.prefix}{branch.component.id}" for branch in branches(listed)]

    assert drawn == ["├─ b", "└─ a", "   └─ x"]


def test_component_without_a_listed_supervisor_is_not_lost() -> None:
    """An orphan in a half-complete status still is shown."""
    drawn = [branch.component.path for branch in branches((component("core/vm", ""),))]

    assert drawn == ["core/vm"]
