"""Free whoever hangs on a mount, so that a failing test does not hang the machine it runs on.

A process that waits for a mount in execve(2) stops `ps`, `pgrep` and every other look into /proc.
Aborting the mount's connection frees all who wait for it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from catalog.mounts import mounted

SECONDS = 8.0
"""Far more than anything takes, even on a busy machine; far less than anybody would wait."""


@contextmanager
def watchdog(*mounts: Path, seconds: float = SECONDS) -> Iterator[None]:
    """Abort the mounts' connections, and fail, unless what is done inside ends in time."""
    control = Path("/sys/fs/fuse/connections")
    connections = [control / str(_connection(path)) for path in mounts]
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


def _connection(path: Path) -> int:
    # As the mount table has it: stat(2) would wait for the mount before anybody watches.
    return next(m.connection for m in reversed(mounted()) if path.is_relative_to(m.path))
