"""A real `imagefs mount` over a catalog below one folder: started, killed, stopped.

Users: the crash tests and the benchmarks.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from catalog.bootstrap import make_catalog
from catalog.catalog import Catalog
from catalog.settings import load

_CONFIG = """\
[catalog]
url = "sqlite:///{folder}/catalog.db"
staging = "{folder}/staging"
default_store = "file"
[stores.file]
type = "filesystem"
path = "{folder}/file"
[stores.other]
type = "filesystem"
path = "{folder}/other"
"""
_START_TIMEOUT = 60.0


class Mounted:
    """One catalog with the stores `file` and `other`, and its mount's process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "mnt"
        self.config = folder / "imagefs.toml"
        self.log = folder / "mount.log"
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        if not os.path.ismount(self.path):
            self.path.mkdir(exist_ok=True)
        self.config.write_text(_CONFIG.format(folder=folder))

    def catalog(self) -> Catalog:
        """The catalog itself, made if it is not there; the caller closes it."""
        return make_catalog(load(self.config))

    @property
    def staging(self) -> list[Path]:
        """What is staged, in the stores and beside them."""
        folders = [self.folder / "staging"]
        folders += [self.folder / store / ".staging" for store in ("file", "other")]
        return [path for folder in folders if folder.is_dir() for path in folder.iterdir()]

    def spawn(self) -> int:
        """Start the mount's process, wait for nothing, and return its pid."""
        command = [sys.executable, "-m", "catalog.cli", "--config", str(self.config)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "mount", str(self.path), "--foreground"], stderr=log
            )
        return self.process.pid

    def start(self) -> int:
        """Start the mount, return its pid when it answers."""
        pid = self.spawn()
        assert self.process is not None
        until = time.monotonic() + _START_TIMEOUT
        while time.monotonic() < until and self.process.poll() is None:
            try:
                if "file" in os.listdir(self.path):
                    return pid
            except OSError:
                pass  # a dead mount, which the new process is about to remove
            time.sleep(0.01)
        raise AssertionError(f"the mount did not start:\n{self.log.read_text()[-4000:]}")

    def kill(self) -> None:
        """`kill -9`, as a crash; what was mounted stays, dead."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Stop the mount as systemd does, and leave nothing mounted."""
        self._end(signal.SIGTERM)
        subprocess.run(["umount", "-l", self.path], capture_output=True, check=False)

    def _end(self, number: signal.Signals) -> None:
        if self.process is None:
            return
        self.process.send_signal(number)
        self.process.wait()
        self.process = None

    def peak_memory(self) -> int:
        """The most memory the mount's process has had so far, in bytes (VmHWM)."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
