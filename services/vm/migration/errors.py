"""What can go wrong with a migration; the class says what the caller may do about it."""

from __future__ import annotations

from protocol.errors import NovacronError


class MigrationRefusedError(NovacronError):
    """Something stands against it; the message has all of it. Nothing was done."""

    code = "vm.migration_refused"


class TargetUnreachableError(NovacronError):
    """The target's libvirt does not answer; nothing was done."""

    code = "vm.target_unreachable"
    retryable = True


class MigrationFailedError(NovacronError):
    """It ended before its end; the guest runs where the message says."""

    code = "vm.migration_failed"


class MigrationDisputedError(NovacronError):
    """Both sides have the guest, and both may have run it. Nothing is done by itself.

    Look at both, decide which one is right, and end the other by hand.
    """

    code = "vm.migration_disputed"


class NoMigrationError(NovacronError):
    """The guest is not being moved."""

    code = "vm.no_migration"
