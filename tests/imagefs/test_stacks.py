"""SIGUSR1 tells what a mount and a server do, and stops nothing."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable

from imagefs.mountpoint import is_mounted
from tests.kit.daemon import Daemon, wait_until
from tests.kit.service import service

Make = Callable[..., Daemon]


def test_of_a_mount(daemon: Make) -> None:
    """Each thread and each task, down to the line; the mount goes on."""
    made = daemon()
    with made.mounted():
        assert made.process is not None
        (made.path / "file/a").write_bytes(b"data")
        made.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: "/_feel_pulse:" in made.log.read_text(), "the tasks are told")
        text = made.log.read_text()
        assert re.search(r"stacks, 1 of \d+: thread MainThread \(\d+\):\n  File ", text)
        assert re.search(r"task \S+/_guarded:\n(  File .*\n)+.*in Feed\.run", text)
        assert (made.path / "file/a").read_bytes() == b"data"


_HANGS = """
import threading
from catalog.cli.program import main
from imagefs.mount import Mount

async def stuck_in_the_loop(self):
    threading.Event().wait()

Mount._watchdog = stuck_in_the_loop
main()
"""


def test_of_a_mount_that_hangs(daemon: Make) -> None:
    """The dump says in which line its loop hangs."""
    made = daemon()
    process = made.spawn(sys.executable, "-c", _HANGS)
    wait_until(lambda: _sent(made, process.pid), "it tells")
    assert process.poll() is None


def _sent(made: Daemon, pid: int) -> bool:
    """Ask again until the loop has come to the line where it hangs."""
    if "task " not in made.log.read_text() and not is_mounted(made.path):
        return False
    os.kill(pid, signal.SIGUSR1)
    return "in stuck_in_the_loop" in made.log.read_text()


def test_of_a_server(daemon: Make) -> None:
    """Each thread; the server goes on."""
    with service(daemon()) as server:
        server.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: "thread dav-accept" in server.log.read_text(), "it tells")
        assert server.ask("GET /file/").status == 200
        server.log.write_text("")
