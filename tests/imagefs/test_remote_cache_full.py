"""The disk of the cache fills up under a guest."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.imagefs.faulty import DATA, Remote, remote_mount
from tests.kit.tools import MIB, run
from tests.servers.swift import Swift


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk that has room for half of the image."""
    path = tmp_path / "disk"
    path.mkdir()
    run("mount", "-t", "tmpfs", "-o", f"size={20 * MIB}", "tmpfs", path)
    try:
        yield path
    finally:
        run("umount", path)


@pytest.fixture
def small(swift_server: Swift, tmp_path: Path, disk: Path) -> Iterator[Remote]:
    """A mount with its cache there."""
    (tmp_path / "remote").mkdir()
    with remote_mount(swift_server, tmp_path / "remote", cache=disk) as found:
        yield found


def fill(disk: Path) -> Path:
    """Take all the room there is."""
    path = disk / "somebody else's"
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(MIB))
        except OSError:
            return path


def test_guest_reads_on(small: Remote, disk: Path, tmp_path: Path) -> None:
    """While the disk fills, is full and has room again, each byte is right; it is said once."""
    overlay = tmp_path / "overlay.qcow2"
    path = small.cold("s3")
    run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", path, overlay)
    guest = ["qemu-io", "-t", "none", "-i", "io_uring", str(overlay)]
    with subprocess.Popen(
        guest, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as qemu:
        assert qemu.stdin is not None
        assert qemu.stdout is not None

        def read(first: int, last: int) -> None:
            """Read megabytes of the disk, the second of them not included."""
            assert qemu.stdin is not None
            assert qemu.stdout is not None
            for at in range(first, last):
                qemu.stdin.write(f"read {at}M 1M\n")
                qemu.stdin.flush()
                assert f"read {MIB}/{MIB} bytes" in qemu.stdout.readline()
                qemu.stdout.readline()

        # Not in order, or all that has room may be here before the disk is full.
        for first in (0, 24):
            read(first, first + 1)
        filler = fill(disk)
        read(0, 30)
        filler.unlink()
        read(0, len(DATA) // MIB)
        qemu.stdin.close()
        assert qemu.wait(60) == 0
    fill(disk)
    run("qemu-img", "compare", "-T", "none", "-f", "qcow2", "-F", "raw", overlay, small.source)
    said = [line for line in small.daemon.unusual() if "takes nothing" in line]
    assert len(said) == 1
    assert small.daemon.unusual() == said
