"""write(2), truncate(2): any order of bytes becomes the image they make together."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.kit.daemon import Daemon, wait_until
from tests.kit.tools import (
    MIB,
    assert_active,
    field,
    python,
    run,
    settled,
    shell,
    some_bytes,
    status,
)


def test_backwards(folder: Path, source: Path, data: bytes) -> None:
    """The last block first."""
    script = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
data = open(sys.argv[2], "rb").read()
for offset in reversed(range(0, len(data), 10_000)):
    os.pwrite(fd, data[offset:offset + 10_000], offset)
os.close(fd)
"""
    python(script, folder / "a", source)
    assert_active(folder / "a", data)


def test_over_and_over(folder: Path) -> None:
    """A program may write the same place again and read it back in between."""
    script = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
for number in range(100):
    os.pwrite(fd, bytes([number]) * 5000, number * 100)
    assert os.pread(fd, 5000, number * 100) == bytes([number]) * 5000
os.close(fd)
"""
    python(script, folder / "a")
    expected = b"".join(bytes([number]) * 100 for number in range(99)) + bytes([99]) * 5000
    assert_active(folder / "a", expected)


def test_holes(folder: Path) -> None:
    """In front, in between, and at the end: they read as zeros."""
    script = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
os.pwrite(fd, b"one", 5_000_000)
os.pwrite(fd, b"two", 10_000_000)
os.ftruncate(fd, 12_000_000)
os.close(fd)
"""
    python(script, folder / "a")
    expected = bytearray(12_000_000)
    expected[5_000_000:5_000_003] = b"one"
    expected[10_000_000:10_000_003] = b"two"
    assert_active(folder / "a", bytes(expected))


def test_appending(folder: Path) -> None:
    """O_APPEND writes at the end, wherever that is."""
    script = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
os.write(fd, b"one")
os.ftruncate(fd, 5)
os.write(fd, b"two")
os.close(fd)
"""
    python(script, folder / "a")
    assert_active(folder / "a", b"one\0\0two")


def test_truncating_what_was_written(folder: Path) -> None:
    """ftruncate(2) to less and to more again."""
    script = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
os.write(fd, b"x" * 10000)
os.ftruncate(fd, 5)
os.ftruncate(fd, 10)
os.close(fd)
"""
    python(script, folder / "a")
    assert_active(folder / "a", b"xxxxx\0\0\0\0\0")


def test_truncate_sets_the_size(folder: Path) -> None:
    """truncate(1) makes an image of zeros, at once active."""
    run("truncate", "-s", "100000", folder / "a")
    assert_active(folder / "a", bytes(100_000))


def test_truncate_by_name(folder: Path) -> None:
    """truncate(2) without a descriptor on a queued image is an upload of its own."""
    shell(': > "$1"', folder / "a")
    os.truncate(folder / "a", 1000)
    assert_active(folder / "a", bytes(1000))


@pytest.mark.parametrize("size", [0, 5, 10**9])
def test_truncate_does_not_change_an_image(
    folder: Path, source: Path, data: bytes, size: int
) -> None:
    """No size but its own can be set; an image of its own size has not been changed."""
    run("cp", source, folder / "a")
    with pytest.raises(PermissionError) as caught:
        os.truncate(folder / "a", size)
    assert caught.value.errno == errno.EPERM
    os.truncate(folder / "a", len(data))
    assert_active(folder / "a", data)


def test_a_huge_sparse_file_is_staged_sparse(mount: Daemon, folder: Path) -> None:
    """Two GiB of hole take no room in the store."""
    script = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
os.ftruncate(fd, 2 << 30)
os.pwrite(fd, b"end", (2 << 30) - 3)
os.close(fd)
"""
    python(script, folder / "a")
    assert settled(folder / "a") == "active"
    assert (folder / "a").stat().st_size == 2 << 30
    stored = mount.state / "file" / field(folder / "a", "id")
    assert stored.stat().st_blocks * 512 < MIB


def test_posix_fallocate(folder: Path) -> None:
    """The C library falls back to writing zeros."""
    script = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.posix_fallocate(fd, 0, 1000)
os.close(fd)
"""
    python(script, folder / "a")
    assert_active(folder / "a", bytes(1000))


def test_a_shared_map(folder: Path) -> None:
    """What a program writes through mmap(2) is in the image, also after it closed the file."""
    script = """
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, 100_000)
map = mmap.mmap(fd, 100_000)
map[:5] = b"first"
map.flush()
os.close(fd)
map[50_000:50_006] = b"second"
map.close()
"""
    python(script, folder / "a")
    expected = bytearray(100_000)
    expected[:5] = b"first"
    expected[50_000:50_006] = b"second"
    # munmap(2) writes back; the release of the file, and with it the commit, follows.
    wait_until(lambda: (folder / "a").read_bytes() == bytes(expected), "the map is written")
    wait_until(lambda: status(folder / "a") == "active", "the map is committed")
    assert_active(folder / "a", bytes(expected))


def test_a_large_file(folder: Path, tmp_path: Path) -> None:
    """More than several chunks, in blocks that are no divisor of one."""
    data = some_bytes(30 * MIB)
    (tmp_path / "x").write_bytes(data)
    run("dd", f"if={tmp_path / 'x'}", f"of={folder / 'a'}", "bs=999k")
    assert_active(folder / "a", data)


def test_the_blocks_of_a_file_are_counted(folder: Path, source: Path, data: bytes) -> None:
    """du(1) shows what an image takes."""
    run("cp", source, folder / "a")
    assert run("du", "-B1", "--apparent-size", folder / "a").split()[0] == str(len(data))
    assert int(run("du", "-B512", folder / "a").split()[0]) * 512 >= len(data)


def test_the_time_of_an_upload_moves_with_it(folder: Path) -> None:
    """A program that watches mtime sees that something is being written."""
    script = """
import os, sys, time
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
before = os.stat(sys.argv[1]).st_mtime_ns
time.sleep(0.05)
os.write(fd, b"data")
os.utime(fd, ns=(5, 10**18 + 7))
assert os.stat(sys.argv[1]).st_mtime_ns == 10**18 + 7
os.close(fd)
"""
    python(script, folder / "a")
    assert (folder / "a").stat().st_mtime_ns == 10**18 + 7
