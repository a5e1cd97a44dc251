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

from tests.dav.service import service
from tests.imagefs.daemon import wait_until
from tests.imagefs.three_stores import DATA, STORES, Remote, remote
from tests.imagefs.tools import MIB, field, run, status
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
    assert (status(path), field(path, "os_hash_value")) == ("active", digest)
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
