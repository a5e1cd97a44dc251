"""Where the lines of a service's log go: writing one never waits for its receiver.

The receiver may be a pipe that nobody reads, a stopped terminal, a disk that is busy, or a journal
that itself waits for one of our mounts.  Waiting for it would stop every request that logs
something, and with it the mount.  Lines that cannot be taken at once are dropped and counted.
Threading: any thread.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import queue
import select
import socket
import threading
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path

from catalog.service.logs.fields import LineFormat, fields_of

_STDERR = 2
_JOURNAL = "/run/systemd/journal/socket"
_HOST_LOG = "/dev/log"
_DAEMON = 3 << 3
"""The facility of syslog(3)."""
_BLOCK = select.PIPE_BUF
"""Bytes that a pipe takes without waiting when poll(2) says that it can be written."""
_LONGEST = 48 << 10
"""Bytes of a message to the journal: a datagram holds more, but not any number."""
_WAITING = 10_000
"""Lines that wait for a file."""
_END = 2.0
"""Seconds at the end of the process to write the lines that wait."""


class _Unwaiting(logging.Handler):
    """Writes each line at once, or drops and counts it."""

    def __init__(self, form: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(form)
        self._lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line; before it, how many lines were dropped, if any."""
        try:
            if self._lost and self._send(_missing(self._lost)):
                self._lost = 0
            if self._lost or not self._send(record):
                self._lost += 1
        except Exception:  # noqa: BLE001 - a mistake in a line must not fail who logs it
            self.handleError(record)

    @abstractmethod
    def _send(self, record: logging.LogRecord) -> bool:
        """Write a line without waiting; return whether it was taken."""


class ToStderr(_Unwaiting):
    """Standard error: a terminal, a pipe, the journal's socket, a file."""

    def __init__(self) -> None:
        super().__init__(logging.Formatter("imagefs: %(message)s"))

    def _send(self, record: logging.LogRecord) -> bool:
        text = f"{self.format(record)}\n".encode(errors="backslashreplace")
        for at in range(0, len(text), _BLOCK):
            # poll(2) instead of O_NONBLOCK: that flag would also hold for every other process
            # that shares this descriptor.
            if not _is_ready(_STDERR):
                return False
            os.write(_STDERR, text[at : at + _BLOCK])
        return True


class _ToHost(_Unwaiting):
    """The host's log daemon."""

    def __init__(self) -> None:
        super().__init__(logging.Formatter("imagefs[%(process)d]: %(message)s"))

    def _send(self, record: logging.LogRecord) -> bool:
        text = f"<{_DAEMON | _severity(record)}>{self.format(record)}"
        return _is_sent(_HOST_LOG, text.encode(errors="backslashreplace"))


class ToJournal(_Unwaiting):
    """systemd's journal by its own protocol, so that each field can be searched for.

    `journalctl IMAGEFS_IMAGE=ID`, for instance.  Source: systemd's docs/JOURNAL_NATIVE_PROTOCOL.
    """

    def __init__(self, process: Mapping[str, str]) -> None:
        """`process` are the fields that all lines of the process have."""
        super().__init__(logging.Formatter())
        self._process = process

    def _send(self, record: logging.LogRecord) -> bool:
        own = {**self._process, **fields_of(record)}
        values = {
            "MESSAGE": self.format(record),
            "PRIORITY": str(_severity(record)),
            "SYSLOG_IDENTIFIER": "imagefs",
            "LOGGER": record.name,
            **{f"IMAGEFS_{name.upper()}": value for name, value in own.items()},
        }
        return _is_sent(
            _JOURNAL, b"".join(_journal_field(name, value) for name, value in values.items())
        )


class ToFile(_Unwaiting):
    """A file, which a thread writes: the disk may be busy, or full."""

    def __init__(self, path: Path, process: Mapping[str, str]) -> None:
        """Open the file, and make its folder.  Raises OSError."""
        super().__init__(LineFormat(process))
        path.parent.mkdir(parents=True, exist_ok=True)
        # 0640: lines name images and users.
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._lines: queue.Queue[str | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def _send(self, record: logging.LogRecord) -> bool:
        """Let the thread write a line, unless too many wait already."""
        try:
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            return False
        return True

    def close(self) -> None:
        """Write what waits, for a limited time, and close the file."""
        try:
            self._lines.put_nowait(None)
        except queue.Full:
            pass  # the thread hangs at its disk
        else:
            self._thread.join(_END)
        super().close()

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                # One write(2) for each line: another process may append to the same file.
                os.write(self._fd, f"{line}\n".encode(errors="backslashreplace"))
            except OSError:
                self._lost += 1
        os.close(self._fd)


def of_host(folder: Path, process: Mapping[str, str]) -> logging.Handler:
    """The journal, or the host's log daemon, or else a file in `folder`, which is opened now.

    Call this before anything is mounted: otherwise the file could be in the mount itself.
    """
    for address, made in ((_JOURNAL, lambda: ToJournal(process)), (_HOST_LOG, _ToHost)):
        try:
            _connection(address).close()
            return made()
        except OSError:
            continue
    try:
        return ToFile(folder / "mount.log", process)
    except OSError:
        return logging.NullHandler()


def is_journal() -> bool:
    """Whether standard error leads to the journal ($JOURNAL_STREAM, systemd.exec(5))."""
    try:
        found = os.fstat(_STDERR)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def _journal_field(name: str, value: str) -> bytes:
    text = value.encode(errors="backslashreplace")[:_LONGEST]
    if b"\n" in text:
        return b"%s\n%s%s\n" % (name.encode(), len(text).to_bytes(8, "little"), text)
    return b"%s=%s\n" % (name.encode(), text)


def _severity(record: logging.LogRecord) -> int:
    """The severity of syslog(3)."""
    name = logging.handlers.SysLogHandler.priority_map.get(record.levelname, "info")
    return logging.handlers.SysLogHandler.priority_names[name]


def _is_sent(address: str, data: bytes) -> bool:
    """Send a datagram without waiting; whether it was taken."""
    try:
        with _connection(address) as channel:
            channel.send(data, socket.MSG_DONTWAIT)
    except OSError:
        return False
    return True


def _connection(address: str) -> socket.socket:
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        channel.connect(address)
    except OSError:
        channel.close()
        raise
    return channel


def _is_ready(descriptor: int) -> bool:
    ready = select.poll()
    ready.register(descriptor, select.POLLOUT)
    return bool(ready.poll(0))


def _missing(count: int) -> logging.LogRecord:
    message = f"{count} lines are missing here: nobody took them"
    return logging.LogRecord(__name__, logging.WARNING, __file__, 0, message, None, None)
