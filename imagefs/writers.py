"""The process that writes an image: whether it still holds the file, and how it ends.

Users: `handles`.  Scope: everything that is read from /proc (DESIGN §6.2, §6.4).
Threading: any thread; never waits for anything but procfs.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from catalog.process import start_time

# include/linux/sched.h
_PF_EXITING = 0x4
_PF_SIGNALED = 0x400
_STOPPING = sum(
    1 << number - 1
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)
)
_WRITABLE = os.O_WRONLY | os.O_RDWR


@dataclass(frozen=True, slots=True)
class Writer:
    """The process that opened a file to write it."""

    pid: int
    """Of the thread group; 0 when the kernel cannot name it (another pid namespace)."""
    started: int
    """Clock ticks from boot, which tell a reused pid apart."""
    command: str

    def __str__(self) -> str:
        return f"{self.command} (pid {self.pid})"

    @property
    def lives(self) -> bool:
        """Whether the process still exists."""
        return self.pid != 0 and start_time(self.pid) == self.started

    @property
    def handlers(self) -> int:
        """Which of the signals that stop a program it handles itself, as proc(5) SigCgt."""
        return int(_status(self.pid).get("SigCgt", "0"), 16) & _STOPPING

    def failure(self) -> str | None:
        """Why what it wrote must not be published, if it is dying with the file open.

        The kernel closes a dying process's files for it; only /proc tells that from
        a close(2) of its own.
        """
        fields = _stat(self.pid)
        if fields is None or int(fields[19]) != self.started:
            return None
        flags, exit_code = int(fields[6]), int(fields[49])
        if not flags & _PF_EXITING:
            return None
        if flags & _PF_SIGNALED:
            signal = exit_code & 0x7F
            how = f"signal {signal}" if signal else "a signal"
            return f"writer {self} was killed by {how}"
        if exit_code >> 8:
            status = exit_code >> 8
            return f"writer {self} exited with status {status} without closing the file"
        return None

    def is_stopping(self, handlers: int) -> bool:
        """Whether it closes its file because it has been stopped, as dd and rsync do.

        They do so after a handler that is good for one signal only; those of other
        signals stay.  A program that just ends keeps all, or drops all (Python).
        `handlers` is what they were when it began to write.
        """
        now = self.handlers
        return now != 0 and handlers & ~now != 0


def of_thread(thread: int) -> Writer:
    """The process a thread id of a FUSE request belongs to."""
    found = _status(thread)
    pid = int(found.get("Tgid", 0))
    return Writer(pid, start_time(pid) or 0, found.get("Name", "?"))


def is_held(inode: int, device: str | None, writer: Writer) -> bool:
    """Whether `writer`, or any process we may look into, has the inode open to write.

    `device` is the mount's, as `major:minor`: the mount of another catalog has the same
    inode numbers.  None, when it is not known yet, stands for any.  Root sees every
    process; any other user its own, and for the rest a write that comes after the commit
    takes the image back (DESIGN §6.2).
    """
    if _holds(writer.pid, inode, device):
        return True
    return any(
        _holds(int(name), inode, device)
        for name in os.listdir("/proc")
        if name.isdecimal() and int(name) != writer.pid
    )


def _holds(pid: int, inode: int, device: str | None) -> bool:
    folder = f"/proc/{pid}/fd"
    try:
        descriptors = os.listdir(folder)
    except OSError:
        return False
    return any(_is_open_for_writing(pid, name, inode, device) for name in descriptors)


def _is_open_for_writing(pid: int, descriptor: str, inode: int, device: str | None) -> bool:
    try:
        # A link is quicker to read than fdinfo, and most are sockets, pipes or devices.
        if not os.readlink(f"/proc/{pid}/fd/{descriptor}").startswith("/"):
            return False
        with open(f"/proc/{pid}/fdinfo/{descriptor}", "rb") as file:
            lines = dict(line.split(b":", 1) for line in file.read().splitlines() if b":" in line)
    except OSError:
        return False
    if int(lines.get(b"ino", 0)) != inode or not int(lines[b"flags"], 8) & _WRITABLE:
        return False
    return device is None or _device(pid, lines[b"mnt_id"].strip()) in (device, None)


def _device(pid: int, mount: bytes) -> str | None:
    """`major:minor` of a mount that a process has a file of; None when it is detached."""
    # Not stat(2): that would ask the mount itself.
    try:
        with open(f"/proc/{pid}/mountinfo", "rb") as file:
            fields = (line.split(maxsplit=3) for line in file)
            return next((found[2].decode() for found in fields if found[0] == mount), None)
    except OSError:
        return None


def _status(pid: int) -> dict[str, str]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    pairs = (line.partition(":\t") for line in lines)
    return {key: value for key, _, value in pairs}


def _stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command may hold blanks and brackets: count fields behind its last ')'.
    return text.rpartition(")")[2].split()
