"""Whom a mount does not wait for: the user database, who reads its log, the service manager."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from imagefs.mountpoint import is_mounted
from tests.imagefs.watchdog import watchdog
from tests.kit.daemon import DEADLINE, Daemon, wait_until
from tests.kit.tools import NOBODY, as_nobody, assert_active, attempt

SILENT = f"""
import pwd, time
find = pwd.getpwuid
pwd.getpwuid = lambda uid: time.sleep(1000) if uid == {NOBODY} else find(uid)
from catalog.cli.program import main
main()
"""


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """A service manager that has as much to read as there may be, and does not read it."""
    path = str(tmp_path / "notify")
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as other,
    ):
        made.bind(path)
        with suppress(BlockingIOError):
            while True:
                other.sendto(b"x", path)
        yield made


@pytest.fixture
def log() -> Iterator[tuple[int, int]]:
    """Both ends of a pipe that is full."""
    read_end, write_end = os.pipe()
    os.write(write_end, b"x" * fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 4096))
    yield read_end, write_end
    os.close(read_end)
    os.close(write_end)


def test_nobody_listens(
    daemon: Callable[..., Daemon], manager: socket.socket, log: tuple[int, int], data: bytes
) -> None:
    """The mount serves root and stops; whom it cannot name is refused; lost lines are counted."""
    mount, (read_end, write_end) = daemon(), log
    config = ["--config", str(mount.config)]
    mount.process = subprocess.Popen(
        [sys.executable, "-c", SILENT, *config, "mount", "--foreground", str(mount.path)],
        stderr=write_end,
        env={**os.environ, "NOTIFY_SOCKET": str(manager.getsockname()), "WATCHDOG_USEC": "200000"},
    )
    wait_until(lambda: is_mounted(mount.path), "it is mounted")
    with watchdog(mount.path, seconds=DEADLINE):
        folder = mount.path / "file"
        refused = attempt("dd", f"of={folder / 'bad'}", stdin=b"<!DOCTYPE html><html>")
        assert refused.returncode == 1  # and told in the log
        for name in ("a", "b"):
            unknown = as_nobody("touch", "own", cwd=folder)
            assert b"Input/output error" in unknown.stderr
            (folder / name).write_bytes(data)
            assert_active(folder / name, data)
    os.read(read_end, 4096)
    assert mount.stop() == 0
    assert b"lines are missing here: nobody took them" in os.read(read_end, 4096)
