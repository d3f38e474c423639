"""Templates: children that may be added while the tree runs, where it is otherwise fixed.

What a template runs is said by the specification alone; an order names the new child and adds
settings of its own, none in place of the template's. So whoever may add a child of a template can
have one more of it, and can't have another program run.
"""

from __future__ import annotations

from protocol.dataclass import replace
from protocol.records import Plain
from supervisor.core.errors import CommandRefusedError
from supervisor.core.spec import ChildSpec, SupervisorSpec


class TemplateError(CommandRefusedError):
    """No child can be made of a template as the order has it."""

    code = "supervisor.template"


def child_of(
    spec: SupervisorSpec, template_id: str, name: str, settings: dict[str, Plain]
) -> ChildSpec:
    """The specification of a child that is made of a template.

    Args:
        spec: the supervisor's.
        template_id: which of its templates.
        name: the child's id, ``<id of the template>-<anything>``.
        settings: of its own, beside the template's.

    Raises:
        TemplateError: there is no such template, or the order wants more than it allows.
    """
    template = next((item for item in spec.templates if item.id == template_id), None)
    if template is None:
        raise TemplateError(f"there is no template {template_id!r}")
    if not name.startswith(f"{template_id}-"):
        raise TemplateError(f"a child of {template_id} is called {template_id}-…, not {name!r}")
    if taken := sorted(template.settings.keys() & settings.keys()):
        raise TemplateError(f"the template {template_id} says itself what {taken[0]} is")
    return replace(template, id=name, settings={**template.settings, **settings})
