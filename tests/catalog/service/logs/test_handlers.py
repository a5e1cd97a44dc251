"""The log of a program that keeps running waits for nobody."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from catalog import cause
from catalog.service.logs import handlers


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The host's log daemon."""
    monkeypatch.setattr(handlers, "_JOURNAL", str(tmp_path / "no journal"))
    monkeypatch.setattr(handlers, "_HOST_LOG", str(tmp_path / "log"))
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
    handler = handlers.of_host(tmp_path, {})
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
    monkeypatch.setattr(handlers, "_JOURNAL", str(tmp_path / "none"))
    monkeypatch.setattr(handlers, "_HOST_LOG", str(tmp_path / "none"))
    handler = handlers.of_host(tmp_path / "state", {})
    handler.handle(_line("one"))
    handler.close()
    assert (tmp_path / "state" / "mount.log").read_text().count("message=one") == 1
    (tmp_path / "file").touch()
    handlers.of_host(tmp_path / "file" / "state", {}).handle(_line("one"))


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket of systemd's journal."""
    monkeypatch.setattr(handlers, "_JOURNAL", str(tmp_path / "journal"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as made:
        made.bind(str(tmp_path / "journal"))
        yield made


def test_the_journal_gets_fields(journal: socket.socket, tmp_path: Path) -> None:
    """Each field by itself; a text of several lines has its length before it."""
    handler = handlers.of_host(tmp_path, {"mount": "/srv/images"})
    cause.begin("mount", 7, "alice")
    cause.note(image="cafe", store="file")
    handler.handle(_line("one"))
    (entry,) = _received(journal)
    assert set(entry.decode().splitlines()) == {
        "MESSAGE=one",
        "PRIORITY=4",
        "SYSLOG_IDENTIFIER=imagefs",
        "LOGGER=imagefs",
        "IMAGEFS_MOUNT=/srv/images",
        "IMAGEFS_PRINCIPAL=alice",
        "IMAGEFS_REQUEST=7",
        "IMAGEFS_IMAGE=cafe",
        "IMAGEFS_STORE=file",
    }
    handler.handle(_line("two\nPRIORITY=0"))
    (entry,) = _received(journal)
    assert entry.startswith(
        b"MESSAGE\n" + (14).to_bytes(8, "little") + b"two\nPRIORITY=0\nPRIORITY=4"
    )


def test_a_long_line_for_the_journal_is_cut(journal: socket.socket, tmp_path: Path) -> None:
    """A datagram does not hold any length; the beginning is better than nothing."""
    handler = handlers.of_host(tmp_path, {})
    handler.handle(_line("x" * 10_000_000))
    (entry,) = _received(journal)
    assert entry.startswith(b"MESSAGE=xxxx")


def test_a_line_of_a_file_is_one_line(tmp_path: Path) -> None:
    """Whatever a name holds, and with what is known of the request."""
    handler = handlers.ToFile(tmp_path / "log", {"service": "dav"})
    cause.begin("dav", "a1b2", "bob smith")
    handler.handle(_line('a "b"\nlevel=error'))
    handler.close()
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert line.startswith("time=")
    told = " level=warning logger=imagefs message=" + json.dumps('a "b"\nlevel=error')
    assert f'{told} pid={os.getpid()} service=dav principal="bob smith" request=a1b2' in line


def test_a_file_that_hangs_keeps_nobody_waiting(tmp_path: Path) -> None:
    """What the disk does not take waits, up to a limit; what is above it is counted."""
    os.mkfifo(tmp_path / "log")
    reader = os.open(tmp_path / "log", os.O_RDONLY | os.O_NONBLOCK)
    handler = handlers.ToFile(tmp_path / "log", {})
    every = 2 * handlers._WAITING
    for _ in range(every):
        handler.handle(_line("x" * 100))
    os.set_blocking(reader, True)
    received: list[bytes] = []

    def read() -> None:
        with open(reader, "rb") as lines:
            received.extend(lines)

    reading = threading.Thread(target=read)
    reading.start()
    while handler._lines.qsize() > 1:
        pass
    handler.handle(_line("last"))
    handler.close()
    reading.join()
    assert b"message=last" in received[-1]
    lost = every - (len(received) - 2)
    assert lost > 0
    assert f"{lost} lines are missing here".encode() in received[-2]
