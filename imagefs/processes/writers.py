"""The processes that write an image, as far as /proc shows them.

Threading: everything here reads /proc, and may wait for the process that it looks at.  So only a
look (`looks`) may call it.  `status` and `fdinfo` do not wait for locks of a process; `maps` and
`stat` do (kernel 6.18).  `stat` is read only for a process that is ending, which holds no lock.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import struct
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum, auto
from pathlib import Path

from catalog import process
from catalog.process import start_time

# include/linux/sched.h
_PF_EXITING = 0x4
_PF_SIGNALED = 0x400
_STOPPING = sum(
    1 << number - 1
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)
)
# include/uapi/linux/capability.h
_CAP_SYS_PTRACE = 1 << 19
_WRITABLE = os.O_WRONLY | os.O_RDWR
_REGISTERED = re.compile(rb"^UserFiles:\s*[1-9]", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Writer:
    """The process that opened a file to write it."""

    pid: int
    """The pid of the thread group; 0 if the kernel cannot name it (another pid namespace)."""
    started: int
    """Clock ticks from boot to its start, as a pid may be used again; 0 if it is not known."""
    command: str

    def __str__(self) -> str:
        return f"{self.command} (pid {self.pid})"

    @property
    def lives(self) -> bool:
        """Whether the process still exists."""
        return self.pid != 0 and start_time(self.pid) == self.started


NOBODY = Writer(0, 0, "?")

# include/uapi/linux/pidfd.h
_PIDFD_INFO_EXIT = 1 << 3
_PIDFD_INFO_SIZE = 64
_PIDFD_GET_INFO = 3 << 30 | _PIDFD_INFO_SIZE << 16 | 0xFF << 8 | 11


class Life(Enum):
    """The stages of a process' life."""

    RUNNING = auto()
    EXECUTING = auto()
    """It is in execve(2), and may hold its exec lock."""
    EXITING = auto()
    """The kernel is closing its files, or has just closed them."""
    ENDED = auto()
    """It is a zombie."""
    GONE = auto()
    """There is no such process, or we may not see it."""


class Hold(Enum):
    """Whether a process can still write to a file."""

    NO = auto()
    YES = auto()
    UNKNOWN = auto()
    """That could not be seen."""
    HIDDEN = auto()
    """We may not look into it: it is another user's process, or has more rights than we."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A process at the moment of a look."""

    life: Life
    command: str = "?"
    parent: int = 0
    uid: int = -1
    handlers: int = 0
    """The signals, of those that stop a program, that it has a handler for (proc(5), SigCgt)."""
    killed: str | None = None
    """For a process that is ending: 'was killed by signal 9'; None if no signal ends it."""
    failed: str | None = None
    """For a process that is ending: 'exited with status 1'; None if the status is 0."""

    def stopped_since(self, before: Seen) -> bool:
        """Whether the program closes its file because a signal has stopped it, as dd and rsync do.

        They close the file behind a handler that serves one signal only.  So one of their
        handlers is gone, and the others are still there.  A program that simply ends keeps all
        handlers, or drops all of them (Python).  A process that runs another program by now has
        other handlers, which says nothing.
        """
        same = self.command == before.command and self.life is Life.RUNNING
        return same and self.handlers != 0 and before.handlers & ~self.handlers != 0


@dataclass(frozen=True, slots=True)
class File:
    """A file of this mount, as processes have it open."""

    inode: int
    device: str | None
    """`major:minor` of the mount: a mount of another catalog has the same inode numbers.  None
    while it is not known yet; then every device matches."""
    mappable: bool
    """Whether it is open in a way that permits a writable shared mapping."""


def of_thread(thread: int) -> Writer:
    """The process of the thread id in a FUSE request."""
    found = process.status(thread) or {}
    pid = int(found.get("Tgid", 0))
    return Writer(pid, start_time(pid) or 0, found.get("Name", "?")) if pid else NOBODY


def see(pid: int) -> Seen:
    """Look at a process."""
    status = process.status(pid)
    if not status or int(status["Tgid"]) != pid:
        return Seen(Life.GONE)
    name, parent, uid = status["Name"], int(status["PPid"]), int(status["Uid"].split()[0])
    handlers = int(status["SigCgt"], 16) & _STOPPING
    if "VmSize" in status:
        # VmExe is 0: the address space is new, and no program is in it yet.  execve(2) closes
        # files at this point.
        executing = status["VmExe"].split()[0] == "0"
        return Seen(Life.EXECUTING if executing else Life.RUNNING, name, parent, uid, handlers)
    stat = _stat(pid)
    if stat is None:
        return Seen(Life.GONE, name, parent, uid)
    # No Vm lines: the process is ending.  The kernel drops the address space before the files
    # (do_exit), and holds no exec lock then, so that `stat` answers.
    flags, exit_code = int(stat[6]), int(stat[49])
    if not flags & _PF_EXITING:
        return Seen(Life.RUNNING, name, parent, uid, handlers)
    # The first thread may be a zombie while the last thread still closes the files.
    ended = stat[0] in "ZX" and int(status["Threads"]) <= 1
    life = Life.ENDED if ended else Life.EXITING
    # When another thread calls exit(2), the kernel ends the first thread by a signal of its own,
    # and the exit code has no signal.  Without the right to look into the process, there is no
    # code at all; then PF_SIGNALED alone counts.
    signaled = bool(flags & _PF_SIGNALED) and (exit_code & 0x7F != 0 or _is_hidden(pid))
    found = _ending(life, exit_code, signaled=signaled, command=name)
    return replace(found, parent=parent, uid=uid, handlers=handlers)


class Watched:
    """A process whose end matters; it is known even if the parent has waited for it before us."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._last: Seen | None = None
        try:
            self._pidfd: int | None = os.pidfd_open(pid)
        except OSError:
            self._pidfd = None
            return
        weakref.finalize(self, os.close, self._pidfd)

    def see(self) -> Seen:
        """Look at it; once it ends the answer stays."""
        if self._last is not None:
            return self._last
        seen = see(self.pid)
        if seen.life is Life.GONE:
            seen = self._exit_status() or seen
        if seen.life in (Life.EXITING, Life.ENDED):
            self._last = seen
        return seen

    def _exit_status(self) -> Seen | None:
        """The exit status that the kernel keeps for a pidfd (Linux 6.15)."""
        if self._pidfd is None:
            return None
        info = bytearray(_PIDFD_INFO_SIZE)
        struct.pack_into("Q", info, 0, _PIDFD_INFO_EXIT)
        try:
            fcntl.ioctl(self._pidfd, _PIDFD_GET_INFO, info)
        except OSError:
            return None
        if not struct.unpack_from("Q", info)[0] & _PIDFD_INFO_EXIT:
            return None
        (exit_code,) = struct.unpack_from("i", info, _PIDFD_INFO_SIZE - 4)
        return _ending(Life.ENDED, exit_code, signaled=exit_code & 0x7F != 0)


def _ending(life: Life, exit_code: int, *, signaled: bool, command: str = "?") -> Seen:
    number, code = exit_code & 0x7F, exit_code >> 8
    killed = f"was killed by signal {number}" if number else "was killed by a signal"
    return Seen(
        life,
        command,
        killed=killed if signaled else None,
        failed=f"exited with status {code}" if code else None,
    )


def holds(pid: int, file: File) -> Hold:
    """Whether a process has a file open to write, mapped, or registered with io_uring."""
    found = {_descriptor(pid, path, file) for path in _descriptors(pid)}
    if not found and _is_hidden(pid):
        return Hold.HIDDEN
    if Hold.YES in found or (file.mappable and _maps(pid, file)):
        return Hold.YES
    return Hold.UNKNOWN if Hold.UNKNOWN in found else Hold.NO


def sees_all() -> bool:
    """Whether we may look into every process that there is (CAP_SYS_PTRACE)."""
    mine = process.status(os.getpid()) or {}
    return bool(int(mine.get("CapEff", "0"), 16) & _CAP_SYS_PTRACE)


def _is_hidden(pid: int) -> bool:
    # /proc/PID/exe needs the same right with every kernel, unlike the folders of /proc/PID.
    try:
        os.readlink(f"/proc/{pid}/exe")
    except PermissionError:
        return True
    except OSError:
        pass
    return False


def _descriptors(pid: int) -> list[str]:
    # If the first thread has ended it has no files any more, while other threads still have them.
    for folder in (f"/proc/{pid}", *_threads(pid)):
        try:
            found = os.listdir(f"{folder}/fdinfo")
        except OSError:
            continue
        if found:
            return [f"{folder}/fdinfo/{name}" for name in found]
    return []


def _threads(pid: int) -> Iterator[str]:
    try:
        yield from (f"/proc/{pid}/task/{name}" for name in os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return


def _descriptor(pid: int, path: str, file: File) -> Hold:
    try:
        with open(path, "rb", buffering=0) as info:
            text = info.read()
    except OSError:
        return Hold.NO
    if b"ino:\t%d\n" % file.inode not in text:
        # A ring of io_uring can write to its registered files without a descriptor.
        return Hold.UNKNOWN if _REGISTERED.search(text) else Hold.NO
    lines = dict(line.split(b":", 1) for line in text.splitlines() if b":" in line)
    if not int(lines[b"flags"], 8) & _WRITABLE:
        return Hold.NO
    if file.device is None or _device(pid, lines[b"mnt_id"].strip()) in (file.device, None):
        return Hold.YES
    return Hold.NO


def _device(pid: int, mount: bytes) -> str | None:
    """`major:minor` of a mount in which a process has a file; None if the mount is detached."""
    # Not stat(2): that would ask the mount itself.
    try:
        with open(f"/proc/{pid}/mountinfo", "rb") as file:
            fields = (line.split(maxsplit=3) for line in file)
            return next((found[2].decode() for found in fields if found[0] == mount), None)
    except OSError:
        return None


def _maps(pid: int, file: File) -> bool:
    device = b"[0-9a-f]+:[0-9a-f]+"
    if file.device is not None:
        major, minor = file.device.split(":")
        device = b"%02x:%02x" % (int(major), int(minor))
    # Every shared mapping counts: a read-only one may be made writable later (mprotect(2)).
    shared = rb" [r-][w-][x-]s [0-9a-f]+ %s %d " % (device, file.inode)
    try:
        return re.search(shared, Path(f"/proc/{pid}/maps").read_bytes()) is not None
    except OSError:
        return False


def _stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The command may contain blanks and brackets, so fields are counted behind the last ')'.
    return text.rpartition(")")[2].split()
