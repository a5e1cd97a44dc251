"""A catalog of the test's own, and its mount in another process: `imagefs mount --foreground`."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from catalog.catalog import Catalog
from catalog.service.bootstrap import open_catalog
from catalog.service.configuration import load
from tests.kit.catalog import new_catalog
from tests.kit.configuration import configure
from tests.kit.marks import check_marked

COMMAND = (sys.executable, "-m", "catalog.cli")
DEADLINE = 30.0
"""Seconds after which something that must happen is taken not to."""

# What a mount tells in its everyday life; also that a test has deleted what it has open.
_EVERYDAY = re.compile(
    r"imagefs: (mounted at |stopping: SIG|read-ahead stays )"
    r"|imagefs: .* was (deleted|replaced) while in use by "
)


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Return when `condition` holds; fail when it does not come to hold."""
    give_up_at = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < give_up_at, f"waited in vain: {what}"
        time.sleep(0.01)


def memory(pid: int) -> dict[str, int]:
    """VmRSS, VmHWM and so on of a process, in bytes (proc(5))."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    pairs = [line.split() for line in lines if line.endswith(" kB")]
    return {name.rstrip(":"): int(value) * 1024 for name, value, _ in pairs}


class Daemon:
    """One catalog below a folder, and its mount."""

    def __init__(
        self,
        state: Path,
        *,
        catalog: str = "",
        sections: str = "",
        mount: str = "",
        drain_timeout: int = 10,
        url: str = "",
    ) -> None:
        """Make the catalog; `catalog` and `mount` are more lines of these sections.

        `sections` are more sections, `url` is another database than the usual one.
        """
        self.state = state
        self.path = state / "mnt"
        self.log = state / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self.options: tuple[str, ...] = ()
        """More arguments of the command `mount`."""
        self.path.mkdir(parents=True)
        sections += f"[mount]\ndrain_timeout = {drain_timeout}\n{mount}"
        self.config = configure(state, catalog=catalog, sections=sections, url=url)
        new_catalog(load(self.config)).close()

    def catalog(self) -> Catalog:
        """The catalog in this process; the caller closes it."""
        return open_catalog(load(self.config))

    def spawn(self, *program: str) -> subprocess.Popen[bytes]:
        """Start the mount and wait for nothing; `program` runs in place of the command."""
        check_marked("a mount")
        arguments = ["--config", str(self.config), "mount", "--foreground"]
        arguments += [*self.options, str(self.path)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*(program or COMMAND), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self.process

    def start(self, *program: str) -> None:
        """Mount, and wait until it answers; `program` runs in place of the command."""
        before = self.log.stat().st_size if self.log.exists() else 0
        process = self.spawn(*program)

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

    def end(self) -> None:
        """Leave nothing running and nothing mounted."""
        if self.process is not None and self.process.poll() is None:
            self.kill()
        self.unmount()

    @contextmanager
    def mounted(self, *program: str) -> Iterator[Daemon]:
        """Be mounted meanwhile; in the end the mount must stop as it should."""
        self.start(*program)
        try:
            yield self
            assert self.stop() == 0, self.log.read_text()
        finally:
            self.end()

    def command(self, *arguments: str, stdin: str = "") -> Any:
        """Run `imagefs` on this catalog from another process; return what it prints."""
        result = subprocess.run(
            [*COMMAND, "--config", str(self.config), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout) if "--json" in arguments else result.stdout

    def peak_memory(self) -> int:
        """The most memory the mount's process has had so far, in bytes."""
        assert self.process is not None
        return memory(self.process.pid)["VmHWM"]

    def unusual(self) -> list[str]:
        """The lines of the log that tell of anything but everyday life."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in lines if not _EVERYDAY.match(line)]

    def staged(self) -> list[str]:
        """The names of all staging files."""
        folders = [self.state / name for name in ("staging", "file/.staging", "other/.staging")]
        return [file.name for folder in folders if folder.is_dir() for file in folder.iterdir()]
