"""Which process this is, and whether another one still runs (Linux /proc)."""

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
"""The inode of the kernel's first pid namespace (PROC_PID_INIT_INO, linux/proc_ns.h)."""
_PATIENCE = 0.3
"""Seconds in which /proc has to answer."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process; no other process that ever ran has the same values."""

    host: str
    boot: str
    """The host's boot id and the pid namespace, as `boot_id` returns them."""
    pid: int
    started: int
    """Clock ticks from boot to the process' start."""

    def __str__(self) -> str:
        return f"{self.host}/{self.boot}/{self.pid}/{self.started}"


@cache
def boot_id() -> str:
    """The id of this host's boot and, behind a '/', of the pid namespace.

    Containers share a boot id and perhaps a host name, but not their pids.
    """
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"


def raise_file_limit() -> None:
    """Let this process open as many files as the hard limit permits."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def start_time(pid: int) -> int | None:
    """Clock ticks from boot to the start of `pid`; None if there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command may contain blanks and brackets, so fields are counted behind the last ')'.
    return int(stat.rpartition(")")[2].split()[19])


def this_process() -> Process:
    """The calling process."""
    pid = os.getpid()
    return Process(socket.gethostname(), boot_id(), pid, _own_start_time(pid))


@cache
def _own_start_time(pid: int) -> int:
    return start_time(pid) or 0


# A forked process is another one, perhaps with the number of one that has ended.
os.register_at_fork(after_in_child=_own_start_time.cache_clear)


def is_gone(process: Process) -> bool:
    """Whether a process is known to have ended.

    This can be known of processes on this host, including those in containers if /proc shows
    them.  For a process of another host it is always False.
    """
    boot, _, namespace = process.boot.partition("/")
    this_boot, _, this_namespace = boot_id().partition("/")
    if boot != this_boot:
        # Another host, or an earlier boot of this one.
        return process.host == socket.gethostname()
    # The host name says nothing yet, as containers have their own.  The boot id shows that the
    # process runs on this kernel.
    if namespace != this_namespace:
        return _sees_all() and not any(map(_is(process), _pids()))
    if process.host != socket.gethostname():
        # The same boot id on another host: a virtual machine that was cloned while it ran.
        return False
    # kill(2) with signal 0, because /proc may hide other users' processes (hidepid=, ProtectProc=).
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


def can_look(process: Process) -> bool:
    """Whether this process can see of another one whether it runs: `is_gone` then knows it."""
    boot, _, namespace = process.boot.partition("/")
    this_boot, _, this_namespace = boot_id().partition("/")
    if boot != this_boot:
        return False
    if namespace != this_namespace:
        return _sees_all()
    return process.host == socket.gethostname()


def status(pid: int) -> dict[str, str] | None:
    """The fields of /proc/PID/status, which waits for no lock; None if it cannot be read."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(errors="replace")
    except OSError:
        return None
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def _has_ended(status: dict[str, str]) -> bool:
    """Whether the process is a zombie, which kill(2) still finds.

    A zombie with more than one thread still runs: only its first thread has ended.
    """
    return status.get("State", "")[:1] in ("Z", "X") and status.get("Threads", "1") in ("0", "1")


def _started(pid: int) -> int | None:
    """As `start_time`, but None also if /proc does not answer soon.

    /proc/PID/stat waits while the process is in execve(2), and that may be waiting for our mount.
    """
    answers: list[int | None] = []
    asking = threading.Thread(target=lambda: answers.append(start_time(pid)), daemon=True)
    asking.start()
    asking.join(_PATIENCE)
    return answers[0] if answers else None


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdecimal())


def _sees_all() -> bool:
    """Whether /proc shows every process of this kernel, including those in containers."""
    in_first = os.stat("/proc/self/ns/pid").st_ino == _FIRST_NAMESPACE
    return in_first and status(1) is not None


def _is(process: Process) -> Callable[[int], bool]:
    """A test for a process of another pid namespace, by its pid in there."""

    def test(pid: int) -> bool:
        found = status(pid)
        if found is None or _has_ended(found):
            return False
        pids = found.get("NSpid", "").split()
        # If /proc does not answer, this may be the process, so it does not count as gone.
        alike = len(pids) > 1 and pids[-1] == str(process.pid)
        return alike and _started(pid) in (None, process.started)

    return test
