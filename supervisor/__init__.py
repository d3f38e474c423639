"""A tree of supervised processes with the guarantees of an Erlang/OTP supervisor.

Import what you need from the submodules: ``supervisor.core.spec`` describes a tree,
``supervisor.child.service`` is the base of a Python child, ``supervisor.runtime`` runs a
supervisor. Nothing here knows what the children are for.
"""

from supervisor import quiet_imports as quiet_imports
