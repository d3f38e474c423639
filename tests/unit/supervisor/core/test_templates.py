"""Templates: what may be added to a fixed tree, and what an order for it can't change."""

from __future__ import annotations

import pytest

from protocol.dataclass import replace
from protocol.records import Plain, from_wire, to_wire
from supervisor.core.spec import (
    ChildSpec,
    ChildType,
    RestartStrategy,
    SpecError,
    SupervisorSpec,
    validate,
)
from supervisor.core.templates import TemplateError, child_of

TEMPLATE = ChildSpec(
    id="server",
    type=ChildType.COMMAND,
    start="package.module:prepare",
    settings={"directory": "/srv"},
    liveness=None,
)
SPEC = SupervisorSpec(children=(ChildSpec(id="a", start="m:A"),), templates=(TEMPLATE,))


def test_a_child_of_a_template_has_its_own_name_and_settings() -> None:
    """All else is the template's; it travels over the wire with the specification."""
    validate(SPEC)
    made = child_of(from_wire(SupervisorSpec, to_wire(SPEC)), "server", "server-x", {"name": "x"})
    assert made == replace(TEMPLATE, id="server-x", settings={"directory": "/srv", "name": "x"})


@pytest.mark.parametrize(
    ("template", "name", "settings", "message"),
    [
        ("a", "a-x", {}, "there is no template 'a'"),
        ("server", "x", {}, "is called server-…, not 'x'"),
        ("server", "server", {}, "is called server-…"),
        ("server", "server-x", {"directory": "/"}, "says itself what directory is"),
    ],
)
def test_an_order_can_not_have_more_than_the_template(
    template: str, name: str, settings: dict[str, Plain], message: str
) -> None:
    """Neither another program, nor another child's name, nor another value of a setting."""
    with pytest.raises(TemplateError, match=message):
        child_of(SPEC, template, name, settings)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (replace(SPEC, templates=(TEMPLATE, TEMPLATE)), "the id is used twice"),
        (
            replace(SPEC, children=(ChildSpec(id="server-a", start="m:A"),)),
            "server-a is called like one of this template",
        ),
        (replace(SPEC, strategy=RestartStrategy.SIMPLE_ONE_FOR_ONE), "one template, its child"),
        (replace(SPEC, templates=(replace(TEMPLATE, start=""),)), "start names"),
    ],
)
def test_a_template_is_checked_before_anything_is_started(
    spec: SupervisorSpec, message: str
) -> None:
    """It must be a child that could be run, and its children's names must be free."""
    with pytest.raises(SpecError, match=message):
        validate(spec)
