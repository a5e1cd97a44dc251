"""Which process this is, and whether another still runs (Linux /proc)."""

from __future__ import annotations

import os
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_FIRST_NAMESPACE = 0xEFFFFFFC
"""The inode of the pid namespace the kernel starts with (PROC_PID_INIT_INO, linux/proc_ns.h)."""
_PATIENCE = 0.3
"""Seconds /proc has to answer."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process, told apart from every other that ever ran."""

    host: str
    boot: str
    """The host's boot id and the pid namespace, as `process.boot_id` gives them."""
    pid: int
    started: int
    """Clock ticks from boot to the process' start."""

    def __str__(self) -> str:
        return f"{self.host}/{self.boot}/{self.pid}/{self.started}"


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

    This host can tell of its own processes, those of its containers included if it sees
    them; of another host's it is always False.
    """
    boot, _, namespace = process.boot.partition("/")
    this_boot, _, this_namespace = boot_id().partition("/")
    if boot != this_boot:
        # Another host, or this one before it was started anew.
        return process.host == socket.gethostname()
    # A container has a host name of its own: the boot tells that it runs on this kernel.
    if namespace != this_namespace:
        return _sees_all() and not any(map(_is(process), _pids()))
    if process.host != socket.gethostname():
        # A clone of a running virtual machine has the boot id of the one it was made of.
        return False
    # /proc may hide other users' processes (hidepid=, ProtectProc=); kill(2) does not.
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    found = status(process.pid)
    if found is None:
        return False
    return _has_ended(found) or _started(process.pid) not in (None, process.started)


def status(pid: int) -> dict[str, str] | None:
    """What /proc/PID/status says, which waits for nobody; None if it cannot be read."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(errors="replace")
    except OSError:
        return None
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def _has_ended(status: dict[str, str]) -> bool:
    """Whether only its parent has to take note: kill(2) still finds such a process.

    One whose first thread alone has ended is a zombie with more threads: it runs.
    """
    return status.get("State", "")[:1] in ("Z", "X") and status.get("Threads", "1") in ("0", "1")


def _started(pid: int) -> int | None:
    """As `start_time`, None also if /proc does not answer soon.

    /proc/PID/stat waits for a process in execve(2), which may be waiting for our mount.
    """
    answers: list[int | None] = []
    asking = threading.Thread(target=lambda: answers.append(start_time(pid)), daemon=True)
    asking.start()
    asking.join(_PATIENCE)
    return answers[0] if answers else None


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdecimal())


def _sees_all() -> bool:
    """Whether /proc shows every process of this kernel: those of containers have pids here too."""
    in_first = os.stat("/proc/self/ns/pid").st_ino == _FIRST_NAMESPACE
    return in_first and status(1) is not None


def _is(process: Process) -> Callable[[int], bool]:
    """A test for a process of another pid namespace, by its pid in there."""

    def test(pid: int) -> bool:
        found = status(pid)
        if found is None or _has_ended(found):
            return False
        pids = found.get("NSpid", "").split()
        # Who does not answer may be the one: it is not called gone.
        alike = len(pids) > 1 and pids[-1] == str(process.pid)
        return alike and _started(pid) in (None, process.started)

    return test
