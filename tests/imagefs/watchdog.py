"""Free whoever hangs on a mount, so that a failing test does not hang the machine it runs on.

A process that waits for a mount in execve(2) stops `ps`, `pgrep` and every other look into /proc.
Aborting the mount's connection frees all who wait for it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from catalog.service.mounts import mounted

SECONDS = 8.0
"""Far more than anything takes, even on a busy machine; far less than anybody would wait."""


@contextmanager
def watchdog(*mounts: Path, seconds: float = SECONDS) -> Iterator[None]:
    """Abort the mounts' connections, and fail, unless what is done inside ends in time."""
    bitten = threading.Event()
    with ExitStack() as opened:
        aborts = [opened.enter_context(aborting(path)) for path in mounts]

        def bite() -> None:
            bitten.set()
            for abort in aborts:
                abort()

        timer = threading.Timer(seconds, bite)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()
    assert not bitten.is_set(), f"it hung for {seconds} seconds, and was aborted"


@contextmanager
def aborting(path: Path) -> Iterator[Callable[[], None]]:
    """What aborts the mount at `path`, and no other mount.

    The kernel gives the number of a mount that has gone to the next one, of whatever test.  A
    file that is opened while the mount lives does nothing once it has gone.
    """
    # As the mount table has it: stat(2) would wait for the mount before anybody watches.
    number = next(m.connection for m in reversed(mounted()) if path.is_relative_to(m.path))
    descriptor = os.open(f"/sys/fs/fuse/connections/{number}/abort", os.O_WRONLY)
    try:
        yield lambda: _write(descriptor)
    finally:
        os.close(descriptor)


def _write(descriptor: int) -> None:
    os.write(descriptor, b"1")
