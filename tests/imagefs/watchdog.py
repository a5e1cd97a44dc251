"""Free whoever hangs on a mount, so that a failing test does not hang the machine it runs on.

A process that waits for a mount in execve(2) stops `ps`, `pgrep` and every other look into /proc.
Aborting the mount's connection frees all who wait for it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SECONDS = 8.0
"""Far more than anything takes, even on a busy machine; far less than anybody would wait."""


@contextmanager
def watchdog(*mounts: Path, seconds: float = SECONDS) -> Iterator[None]:
    """Abort the mounts' connections, and fail, unless what is done inside ends in time."""
    control = Path("/sys/fs/fuse/connections")
    connections = [control / str(os.minor(path.stat().st_dev)) for path in mounts]
    bitten = threading.Event()

    def bite() -> None:
        bitten.set()
        for connection in connections:
            (connection / "abort").write_text("1")

    timer = threading.Timer(seconds, bite)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
    assert not bitten.is_set(), f"it hung for {seconds} seconds, and was aborted"
