"""A mount in a process of its own, as users run it: `imagefs mount --foreground`."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

COMMAND = (sys.executable, "-m", "catalog.cli")
DEADLINE = 30.0
"""Seconds after which something that must happen is taken not to."""

_CONFIG = """
[catalog]
url = "sqlite:///{state}/catalog.db"
staging = "{state}/staging"
{catalog}
[stores.file]
type = "filesystem"
path = "{state}/file"
[stores.other]
type = "filesystem"
path = "{state}/other"
[stores.web]
type = "http"
allow_hosts = ["127.0.0.1"]
[mount]
drain_timeout = {drain_timeout}
"""

# What a mount tells in its everyday life.
_EVERYDAY = re.compile(r"imagefs: (mounted at |stopping: SIG|read-ahead stays )")


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Return when `condition` holds; fail when it does not come to hold."""
    give_up_at = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < give_up_at, f"waited in vain: {what}"
        time.sleep(0.01)


class Daemon:
    """One catalog below a folder, and its mount."""

    def __init__(self, state: Path, *, catalog: str = "", drain_timeout: int = 10) -> None:
        """Make the catalog; `catalog` is more lines of its section."""
        self.state = state
        self.path = state / "mnt"
        self.config = state / "imagefs.toml"
        self.log = state / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self.path.mkdir(parents=True)
        self.config.write_text(
            _CONFIG.format(state=state, catalog=catalog, drain_timeout=drain_timeout)
        )
        self.command("init")

    def start(self, *program: str) -> None:
        """Mount, and wait until it answers; `program` runs in place of the command."""
        arguments = ["--config", str(self.config), "mount", "--foreground", str(self.path)]
        before = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [*(program or COMMAND), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.process = process

        def is_ready() -> bool:
            said = self.log.read_text()[before:]
            assert process.poll() is None, f"the mount has not come up: {said}"
            return f"mounted at {self.path}" in said

        wait_until(is_ready, "the mount answers")

    def stop(self) -> int:
        """Ask the process to stop, as systemd does; return its exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Wait for the process to end; return its exit status."""
        assert self.process is not None
        try:
            return self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """End the process as a crash does; the dead mount stays."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def unmount(self) -> None:
        """Take away whatever is mounted, alive or dead."""
        subprocess.run(["umount", "-l", self.path], check=False, capture_output=True)

    def command(self, *arguments: str) -> Any:
        """Run `imagefs` on this catalog from another process; return what it prints."""
        result = subprocess.run(
            [*COMMAND, "--config", str(self.config), *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout) if "--json" in arguments else result.stdout

    def unusual(self) -> list[str]:
        """The lines of the log that tell of anything but everyday life."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in lines if not _EVERYDAY.match(line)]

    def staged(self) -> list[str]:
        """The names of all staging files."""
        folders = [self.state / name for name in ("staging", "file/.staging", "other/.staging")]
        return [file.name for folder in folders if folder.is_dir() for file in folder.iterdir()]
