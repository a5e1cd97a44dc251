"""Answers that POSIX test suites and ls rely on."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest


def _errno(work: Callable[[], object]) -> int | None:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is looked at
        work()
    return caught.value.errno


def test_no_pipes_devices_or_sockets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """mknod(2): EPERM where the file system has no such type."""
    assert _errno(lambda: os.mkfifo(folder / "pipe")) == errno.EPERM
    assert _errno(lambda: os.mknod(folder / "null", stat.S_IFCHR, os.makedev(1, 3))) == errno.EPERM
    with socket.socket(socket.AF_UNIX) as server, monkeypatch.context() as here:
        here.chdir(folder)  # a socket's path has at most 107 bytes
        assert _errno(lambda: server.bind("socket")) == errno.EPERM
    assert os.listdir(folder) == []


def test_no_attributes_but_user(folder: Path) -> None:
    """`ls -l` asks for the label of every file, unless one answers that there are none."""
    assert _errno(lambda: os.getxattr(folder, "security.selinux")) == errno.EOPNOTSUPP
    assert _errno(lambda: os.getxattr(folder, "trusted.any")) == errno.EOPNOTSUPP
