"""Which process this is, and whether another still runs (Linux /proc)."""

from __future__ import annotations

import os
import resource
import socket
from functools import cache
from pathlib import Path

from catalog.image import Process


@cache
def boot_id() -> str:
    """This boot of this host and, behind a '/', the namespace pids are counted in.

    Containers share a boot id and perhaps a host name, but not their pids.
    """
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"


def raise_file_limit() -> None:
    """Let this process open as many files as it may: images, connections, staging."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def start_time(pid: int) -> int | None:
    """Clock ticks from boot to the start of `pid`; None if there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command name may hold blanks and brackets: count fields behind its last ')'.
    return int(stat.rpartition(")")[2].split()[19])


def this_process() -> Process:
    """The calling process (asked anew each time: a fork is another one)."""
    pid = os.getpid()
    return Process(socket.gethostname(), boot_id(), pid, start_time(pid) or 0)


def is_gone(process: Process) -> bool:
    """Whether a process is known to have ended.

    Only this host can tell of its own processes; of another host's it is always False.
    """
    if process.host != socket.gethostname():
        return False
    boot, _, namespace = process.boot.partition("/")
    this_boot, _, this_namespace = boot_id().partition("/")
    if boot != this_boot:
        return True
    if namespace != this_namespace:
        return False
    # /proc may hide other users' processes (hidepid=, ProtectProc=); kill(2) does not.
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return start_time(process.pid) not in (None, process.started)
