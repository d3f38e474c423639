"""What can go wrong with an operation; the class says what the caller may do about it."""

from __future__ import annotations

from protocol.errors import NovacronError


class OperationRefusedError(NovacronError):
    """The guest is not in a state for that, or asks for what it can't have; nothing was done."""

    code = "vm.operation_refused"


class OperationFailedError(NovacronError):
    """It was tried and did not come about; the message says what is left."""

    code = "vm.operation_failed"


class OperationUnknownError(NovacronError):
    """No answer within the deadline, or the connection broke: it may still be carried out.

    Look at the guest before trying again.
    """

    code = "vm.operation_unknown"


class NoOperationError(NovacronError):
    """There is no operation of that number, or no longer: the oldest are forgotten."""

    code = "vm.no_operation"


class OperationsFullError(NovacronError):
    """Too many operations are under way; wait for some of them."""

    code = "vm.operations_full"
    retryable = True


class PlaceRefusedError(NovacronError):
    """The path lies outside the directories that guests' files may be in."""

    code = "vm.place_refused"


class ImageMissingError(NovacronError):
    """There is no such image, or it can't be read."""

    code = "vm.image_missing"


class ImageExistsError(NovacronError):
    """The target is there already; nothing is ever overwritten."""

    code = "vm.image_exists"


class ImageFormatError(NovacronError):
    """The image is not what its name or the caller says, or reaches beyond itself."""

    code = "vm.image_format"


class ImageInUseError(NovacronError):
    """A guest or another program has the image open."""

    code = "vm.image_in_use"
    retryable = True


class NoSpaceError(NovacronError):
    """The disk is full; what was begun is removed."""

    code = "vm.no_space"


class ImageFailedError(NovacronError):
    """qemu-img failed; the message is its own."""

    code = "vm.image_failed"
