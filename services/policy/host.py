"""The policy of a node on this host: which file, whose accounts."""

from __future__ import annotations

import dataclasses
import grp
import os
import pwd
from collections.abc import Mapping
from pathlib import Path

from services.config import locate
from services.config.document import Branch, Leaf
from services.config.locate import SEARCH_PATH
from services.config.references import resolve
from services.config.tiers import read_tiers
from services.policy import source
from services.policy.source import Accounts, Source
from supervisor.guard.policy import Policy

FILE_NAME = "policy.yaml"
_VARIABLE = "NOVACRON_SECURITY_ZEROTRUST_POLICYFILE"


def accounts_of_host(group: str) -> Accounts:
    """The accounts of this host.

    Args:
        group: ``system.group``; where there is none, this process's own counts, as it does for
            the files of the node.
    """
    node_gid = gid_of(group)
    return Accounts(
        uid_of=uid_of,
        gid_of=gid_of,
        node_uid=os.geteuid(),
        node_gid=os.getegid() if node_gid is None else node_gid,
    )


def find(configured: str | Path | None, config_dir: Path) -> Path:
    """The policy file: the configured one, else that of the configuration, else the shipped one.

    Args:
        configured: ``security.zeroTrust.policyFile``; None for none.
        config_dir: directory of the configuration files.
    """
    if configured is not None:
        return Path(configured)
    candidates = [directory / FILE_NAME for directory in (config_dir, *SEARCH_PATH)]
    return next((file for file in candidates if file.exists()), candidates[0])


def load(file: Path, *, group: str, is_enforced: bool, is_audited: bool) -> Source:
    """Read the policy as the node is to apply it.

    Args:
        file: from ``find``.
        group: ``system.group``.
        is_enforced: ``security.zeroTrust.enabled``.
        is_audited: ``security.audit.enabled``; without it nothing is recorded.

    Raises:
        ConfigError: it can't be used.
    """
    found = source.read(file, accounts_of_host(group))
    rules = found.policy.rules
    if not is_audited:
        rules = tuple(dataclasses.replace(rule, audit=False) for rule in rules)
    policy = Policy(rules=rules, roles=found.policy.roles, is_enforced=is_enforced)
    return dataclasses.replace(found, policy=policy)


def uid_of(user: str) -> int | None:
    """The number of a user of this host."""
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None


def gid_of(group: str) -> int | None:
    """The number of a group of this host."""
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        return None


def groups_of(user: str) -> tuple[int, ...]:
    """The groups of a user of this host; none for one that it does not have."""
    try:
        return tuple(os.getgrouplist(user, pwd.getpwnam(user).pw_gid))
    except KeyError:
        return ()


def configured_file(
    environ: Mapping[str, str], config_flag: Path | None, environment: str | None
) -> Path:
    """The policy file of the node that these flags and variables mean, without the whole model.

    Raises:
        ConfigError: the configuration can't be read.
    """
    directory = locate.config_dir(config_flag, environ)
    if named := environ.get(_VARIABLE):
        return Path(named)
    configured = None
    for read in read_tiers(directory, environment, environ).files:
        node: Branch | Leaf | None = read.tree
        for key in ("security", "zeroTrust", "policyFile"):
            node = node.items.get(key) if isinstance(node, Branch) else None
        if isinstance(node, Leaf):
            configured = node.value
    return find(resolve(configured, environ) if configured else None, directory)
