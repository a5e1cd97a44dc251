"""The log of a program that keeps running waits for nobody."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from catalog.service import logs


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The host's log daemon."""
    monkeypatch.setattr(logs, "_HOST_LOG", str(tmp_path / "log"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as made:
        made.bind(str(tmp_path / "log"))
        yield made


def _line(text: str) -> logging.LogRecord:
    return logging.LogRecord("imagefs", logging.WARNING, "", 0, text, None, None)


def _received(host: socket.socket) -> list[bytes]:
    lines = []
    with suppress(BlockingIOError):
        while True:
            lines.append(host.recv(1 << 16))
    return lines


def test_the_host_s_log(host: socket.socket, tmp_path: Path) -> None:
    """Lines come as syslog(3) sends them; when nobody takes them they are counted."""
    handler = logs.of_host(tmp_path)
    handler.handle(_line("one"))
    (line,) = _received(host)
    assert line.startswith(b"<28>imagefs[")
    assert line.endswith(b"]: one")
    for number in range(1000):
        handler.handle(_line(str(number)))
    taken = len(_received(host))
    assert taken < 1000
    handler.handle(_line("last"))
    missing, last = _received(host)
    assert b"%d lines are missing here" % (1000 - taken) in missing
    assert last.endswith(b": last")


def test_without_a_host_s_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file takes them; where none can be made, nobody."""
    monkeypatch.setattr(logs, "_HOST_LOG", str(tmp_path / "none"))
    handler = logs.of_host(tmp_path / "state")
    handler.handle(_line("one"))
    handler.close()
    assert (tmp_path / "state" / "mount.log").read_text().endswith("WARNING one\n")
    (tmp_path / "file").touch()
    logs.of_host(tmp_path / "file" / "state").handle(_line("one"))
