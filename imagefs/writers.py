"""The process that writes an image: whether it still holds the file, and how it ends.

Users: `handles`.  Scope: everything that is read from /proc (DESIGN §6.2, §6.4).
Threading: any thread; never waits for anything but procfs.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from catalog.process import start_time

# include/linux/sched.h
_PF_EXITING = 0x4
_PF_SIGNALED = 0x400
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


def of_thread(thread: int) -> Writer:
    """The process a thread id of a FUSE request belongs to."""
    pid, command = thread, "?"
    try:
        for line in Path(f"/proc/{thread}/status").read_text().splitlines():
            key, _, value = line.partition(":\t")
            if key == "Name":
                command = value
            elif key == "Tgid":
                pid = int(value)
                break
    except (FileNotFoundError, ProcessLookupError):
        pid = 0
    return Writer(pid, start_time(pid) or 0, command)


def is_held(inode: int, writer: Writer) -> bool:
    """Whether `writer`, or any process we may look into, has the inode open to write.

    Root sees every process; any other user its own, and for the rest a write that
    comes after the commit takes the image back (DESIGN §6.2).
    """
    if _holds(writer.pid, inode):
        return True
    return any(
        _holds(int(name), inode)
        for name in os.listdir("/proc")
        if name.isdecimal() and int(name) != writer.pid
    )


def _holds(pid: int, inode: int) -> bool:
    folder = f"/proc/{pid}/fd"
    try:
        descriptors = os.listdir(folder)
    except OSError:
        return False
    return any(_is_open_for_writing(pid, name, inode) for name in descriptors)


def _is_open_for_writing(pid: int, descriptor: str, inode: int) -> bool:
    try:
        # A link is quicker to read than fdinfo, and most are sockets, pipes or devices.
        if not os.readlink(f"/proc/{pid}/fd/{descriptor}").startswith("/"):
            return False
        with open(f"/proc/{pid}/fdinfo/{descriptor}", "rb") as file:
            lines = dict(line.split(b":", 1) for line in file.read().splitlines() if b":" in line)
    except OSError:
        return False
    return int(lines.get(b"ino", 0)) == inode and bool(int(lines[b"flags"], 8) & _WRITABLE)


def _stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command may hold blanks and brackets: count fields behind its last ')'.
    return text.rpartition(")")[2].split()
