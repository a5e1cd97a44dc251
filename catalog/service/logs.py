"""The log of a service: writing a line never waits for its receiver.

The receiver may be a pipe that nobody reads, a stopped terminal, or a journal that itself waits for
one of our mounts.  Waiting for it would stop every request that logs something, and with it the
mount.  Lines that cannot be written at once are dropped and counted.  Threading: any thread.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import select
import socket
from abc import abstractmethod
from pathlib import Path

_STDERR = 2
_HOST_LOG = "/dev/log"
_DAEMON = 3 << 3
"""The facility of syslog(3)."""
_BLOCK = select.PIPE_BUF
"""Bytes that a pipe takes without waiting when poll(2) says that it can be written."""


class _Unwaiting(logging.Handler):
    """Writes each line at once, or drops and counts it."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter(form))
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
        super().__init__("imagefs: %(message)s")

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
        super().__init__("imagefs[%(process)d]: %(message)s")

    def _send(self, record: logging.LogRecord) -> bool:
        severity = logging.handlers.SysLogHandler.priority_map.get(record.levelname, "info")
        priority = _DAEMON | logging.handlers.SysLogHandler.priority_names[severity]
        text = f"<{priority}>{self.format(record)}".encode(errors="backslashreplace")
        try:
            with _connection() as channel:
                channel.send(text, socket.MSG_DONTWAIT)
        except OSError:
            return False
        return True


def of_host(folder: Path) -> logging.Handler:
    """The host's log daemon, or without one a file in `folder`, which is opened now.

    Call this before anything is mounted: otherwise the file could be in the mount itself.
    """
    try:
        _connection().close()
        return _ToHost()
    except OSError:
        pass
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = logging.FileHandler(folder / "mount.log")
    except OSError:
        return logging.NullHandler()
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    return file


def use(handler: logging.Handler) -> None:
    """Log to this handler only."""
    logging.getLogger().handlers[:] = [handler]


def _connection() -> socket.socket:
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        channel.connect(_HOST_LOG)
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
