"""What a person may do, from least to most; the same words in policies, tokens and certificates."""

from __future__ import annotations

import enum


class Role(enum.Enum):
    """A role includes those before it."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def includes(self, other: Role) -> bool:
        """Whether whoever has this role may do what ``other`` may."""
        return _RANK[self] >= _RANK[other]


_RANK = {role: rank for rank, role in enumerate(Role)}
