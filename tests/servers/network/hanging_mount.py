"""A folder behind a file system of another process, which can hang as an NFS server does.

bindfs is stopped (SIGSTOP): every system call that needs it then waits in the kernel.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.servers.programs import program, running, wait_mounted


@dataclass(frozen=True, slots=True)
class HangingMount:
    """A mounted folder."""

    path: Path
    behind: Path
    """The same folder, as its server has it."""
    pid: int

    def hang(self) -> None:
        """Answer no more; what this host has cached can still be read."""
        os.kill(self.pid, signal.SIGSTOP)
        while not self._is_stopped():
            time.sleep(0.001)

    def resume(self) -> None:
        """Go on where it hung."""
        os.kill(self.pid, signal.SIGCONT)

    def _is_stopped(self) -> bool:
        """Whether each of its threads has noticed (proc(5): the state behind the name)."""
        try:
            stats = [task.read_text() for task in Path(f"/proc/{self.pid}/task").glob("*/stat")]
        except OSError:  # One of them has just ended.
            return False
        return all(stat.rpartition(") ")[2].startswith("T") for stat in stats)


@contextmanager
def hanging_mount(folder: Path) -> Iterator[HangingMount]:
    """Mount `folder/behind` at `folder/shared`."""
    path, behind = folder / "shared", folder / "behind"
    path.mkdir()
    behind.mkdir()
    options = "attr_timeout=0,entry_timeout=0,negative_timeout=0"
    command = [program("bindfs", "bindfs"), "-f", "--multithreaded", "-o", options]
    log = folder / "bindfs.log"
    with running([*command, str(behind), str(path)], log) as process:
        try:
            wait_mounted(path, process, log)
            yield HangingMount(path, behind, process.pid)
        finally:
            process.send_signal(signal.SIGCONT)
            subprocess.run(["umount", "-l", str(path)], capture_output=True, check=False)
