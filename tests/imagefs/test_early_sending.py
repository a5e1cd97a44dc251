"""Files that are sent to S3 and Swift while they are written through the mount, or by WebDAV."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.kit.daemon import wait_until
from tests.kit.service import service
from tests.kit.three_stores import DATA, STORES, Remote, remote
from tests.kit.tools import MIB, field, run, settled, status
from tests.servers.ceph import ceph, radosgw
from tests.servers.swift import Swift

EARLY = 80 * MIB
"""Bytes after which every store has begun."""


@pytest.fixture(scope="module")
def far(swift_server: Swift, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    """A mount of three remote stores."""
    folder = tmp_path_factory.mktemp("far")
    with (
        ceph(folder / "ceph") as cluster,
        radosgw(cluster) as server,
        remote(folder, swift_server, server) as made,
        made.daemon.mounted(),
    ):
        yield made


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A local image."""
    path = tmp_path / "source.raw"
    path.write_bytes(DATA[: 100 * MIB])
    return path


def _is_stored(far: Remote, path: Path, data: bytes | bytearray) -> None:
    """The image is active, the server has these very bytes and nothing else."""
    digest = hashlib.sha256(data).hexdigest()
    assert (settled(path), field(path, "os_hash_value")) == ("active", digest)
    assert far.digest(path) == digest
    assert far.left(path.parent.name) == []


@pytest.mark.parametrize("store", STORES)
def test_parts_are_at_the_server_before_close(far: Remote, store: str) -> None:
    """While the writer holds the file open, its first parts are there already."""
    path = far.daemon.path / store / "early.img"
    with path.open("wb", buffering=MIB) as file:
        file.write(DATA[:EARLY])
        far.has_begun(store)
        assert status(path) == "saving"
        file.write(DATA[EARLY:])
    _is_stored(far, path, DATA)


@pytest.mark.parametrize(
    ("store", "change"), [("radosgw", "header"), ("swift", "middle"), ("s3api", "cut")]
)
def test_change_of_what_was_sent(far: Remote, store: str, change: str) -> None:
    """It is taken back at once; the image is what the file was in the end."""
    path, data = far.daemon.path / store / f"{change}.img", bytearray(DATA)
    with path.open("wb", buffering=0) as file:
        for at in range(0, EARLY, MIB):
            file.write(DATA[at : at + MIB])
        far.has_begun(store)
        if change == "cut":
            os.ftruncate(file.fileno(), MIB)
            data = data[:MIB]
        else:
            at = 0 if change == "header" else 20 * MIB
            data[at : at + 5] = b"other"
            os.pwrite(file.fileno(), b"other", at)
            far.has_nothing(store)
            file.write(DATA[EARLY:])
    _is_stored(far, path, data)


def test_blocks_out_of_order(far: Remote) -> None:
    """A writer that goes backwards, over a file made long beforehand, loses nothing."""
    path = far.daemon.path / "swift" / "backwards.img"
    with path.open("wb", buffering=0) as file:
        os.ftruncate(file.fileno(), len(DATA))
        for at in reversed(range(0, len(DATA), MIB)):
            os.pwrite(file.fileno(), DATA[at : at + MIB], at)
    _is_stored(far, path, DATA)


@pytest.mark.parametrize(("store", "form"), [("s3api", "raw"), ("radosgw", "qcow2")])
def test_qemu_img_convert(far: Remote, raw: Path, store: str, form: str) -> None:
    """It closes the file, opens it again and rewrites its header: the guest's bytes are right."""
    path = far.daemon.path / store / f"converted.{form}"
    run("qemu-img", "convert", "-f", "raw", "-O", form, raw, path)
    assert far.digest(path) == field(path, "os_hash_value")
    assert far.left(store) == []
    run("qemu-img", "compare", "-f", "raw", "-F", form, raw, path)


@pytest.mark.parametrize(("store", "tool"), [("s3api", "rsync"), ("swift", "dd")])
def test_tools(far: Remote, raw: Path, store: str, tool: str) -> None:
    """A temporary name, and an fsync in between, are sent as any other."""
    path = far.daemon.path / store / f"{tool}.img"
    commands = {
        "rsync": ("rsync", "-a", "--whole-file", raw, path),
        "dd": ("dd", f"if={raw}", f"of={path}", "bs=1M", "conv=fsync", "status=none"),
    }
    run(*commands[tool])
    _is_stored(far, path, DATA[: 100 * MIB])


WRITER = """
import sys
with open(sys.argv[1], "wb", buffering=0) as file:
    while block := sys.stdin.buffer.read(1 << 20):
        file.write(block)
"""


@pytest.mark.parametrize("store", STORES)
def test_killed_writer_leaves_no_part(far: Remote, store: str) -> None:
    """What was sent for it is gone before its image is told to have failed."""
    path = far.daemon.path / store / "killed.img"
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as writer:
        assert writer.stdin is not None
        writer.stdin.write(DATA[:EARLY])
        writer.stdin.flush()
        far.has_begun(store)
        writer.kill()
    wait_until(lambda: status(path) == "killed", "the image is killed")
    far.has_nothing(store)


LATE = """
import ctypes, os, socket, sys
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
path, source, early = sys.argv[1], open(sys.argv[2], "rb").read(), 80 << 20
size, middle = len(source), 20 << 20
here, there = socket.socketpair()
def tell():
    print("ready", flush=True)
    sys.stdin.readline()
def passed_on():  # to an older process, which nobody sees
    if os.fork() == 0:
        fd = socket.recv_fds(there, 1, 1)[1][0]
        tell()
        os.pwrite(fd, b"other", middle)
        os._exit(0)
def begin():
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    for at in range(0, early, 1 << 20):
        os.pwrite(fd, source[at : at + (1 << 20)], at)
    return fd
"""
LATE_WRITERS = {
    "by a mapping": """
fd = begin()
os.ftruncate(fd, size)
address = libc.mmap(None, ctypes.c_size_t(size), 3, 1, fd, ctypes.c_long(0))
tell()
os.close(fd)
memory = (ctypes.c_char * size).from_address(address)
memory[early:size] = source[early:]
memory[middle : middle + 5] = b"other"
""",
    "by a descriptor passed on": """
passed_on()
fd = begin()
os.pwrite(fd, source[early:], early)
socket.send_fds(here, [b"x"], [fd])
os.close(fd)
os.wait()
""",
}


@pytest.mark.parametrize(("store", "how"), list(zip(("s3api", "swift"), LATE_WRITERS, strict=True)))
def test_bytes_written_after_close(far: Remote, raw: Path, store: str, how: str) -> None:
    """What was sent before is taken back, or sent anew: the store has what the file has."""
    path, data = far.daemon.path / store / "late.img", bytearray(DATA[: 100 * MIB])
    data[20 * MIB : 20 * MIB + 5] = b"other"
    with subprocess.Popen(
        [sys.executable, "-c", LATE + LATE_WRITERS[how], path, raw],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        if how == "by a mapping":
            far.has_begun(store)
        else:
            wait_until(lambda: status(path) == "active", "the first close has committed it")
        writer.communicate(b"go\n")
        assert writer.returncode == 0
    wait_until(lambda: status(path) == "active", "nobody has it any more")
    _is_stored(far, path, data)


def test_put_tells_its_length(far: Remote) -> None:
    """A PUT is sent on while it comes in; its parts are of the size that is right for it."""
    with service(far.daemon) as server:
        connection = HTTPConnection("127.0.0.1", server.port)
        connection.putrequest("PUT", "/s3api/put.img")
        connection.putheader("Content-Length", str(len(DATA)))
        connection.endheaders()
        connection.send(DATA[:EARLY])
        far.has_begun("s3api")
        connection.send(DATA[EARLY:])
        assert connection.getresponse().status == 201
        connection.close()
    path = far.daemon.path / "s3api" / "put.img"
    _is_stored(far, path, DATA)
    store = far.catalog.store("s3api")
    assert store.stat(store.url_of(field(path, "id"))).etag.endswith('-13"')
