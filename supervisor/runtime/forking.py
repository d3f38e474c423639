"""A process of multiprocess that is forked, and no more than that.

multiprocess gives each process two pipes that tell of the other side's end, closes its standard
input again, and runs what libraries have registered for a fork and an exit. The launcher has other
means for the first two and none of the last, and all of it is paid again by every child.
"""

from __future__ import annotations

import os
import traceback
from typing import Any  # multiprocess has no types

import multiprocess.context
import multiprocess.popen_fork
import multiprocess.process


class _Popen(multiprocess.popen_fork.Popen):  # type: ignore[misc]  # has no types
    def _launch(self, process: Any) -> None:
        self.finalizer = self.sentinel = None
        self.pid = os.fork()
        if self.pid == 0:
            try:
                process.run()
            except BaseException:  # noqa: BLE001 - the launcher's frames must not go on here
                traceback.print_exc()
            finally:
                os._exit(1)  # the target has its own way to end


class ForkedProcess(multiprocess.context.ForkProcess):  # type: ignore[misc]  # has no types
    """A process whose target never returns; only its owner collects it."""

    @staticmethod
    def _Popen(process: Any) -> Any:  # noqa: N802 - as multiprocess calls it
        return _Popen(process)

    def start(self) -> None:
        """Fork it.

        Raises:
            OSError: the system refuses another process.
        """
        super().start()
        # Else the next start would collect those that have ended, and we would never hear of it.
        multiprocess.process._children.discard(self)  # noqa: SLF001 - there is no other way
