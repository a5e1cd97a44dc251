"""open(2): who gets which image open, and how."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from tests.kit.daemon import Daemon
from tests.kit.tools import assert_active, attempt, field, python, run, status


def _error(path: Path, flags: int) -> int:
    """The errno of open(2), 0 when it succeeds."""
    try:
        os.close(os.open(path, flags))
    except OSError as error:
        return error.errno or -1
    return 0


@pytest.fixture
def active(folder: Path, source: Path) -> Path:
    """An active image, put in by another process."""
    run("cp", source, folder / "active")
    return folder / "active"


@pytest.mark.parametrize(
    "flags",
    [os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_RDWR | os.O_APPEND],
)
def test_an_active_image_is_never_opened_to_write(active: Path, data: bytes, flags: int) -> None:
    """Not even by root, whom modes do not stop."""
    assert _error(active, flags) == errno.EPERM
    assert_active(active, data)


def test_o_excl_makes_only_new_images(folder: Path, active: Path) -> None:
    """O_CREAT | O_EXCL fails where something is, and makes an image where nothing is."""
    assert _error(active, os.O_CREAT | os.O_EXCL | os.O_WRONLY) == errno.EEXIST
    assert _error(folder / "new", os.O_CREAT | os.O_EXCL | os.O_WRONLY) == 0
    assert status(folder / "new") == "queued"


def test_o_directory_is_for_folders(folder: Path, active: Path) -> None:
    """O_DIRECTORY refuses an image, and writing refuses a folder."""
    assert _error(active, os.O_RDONLY | os.O_DIRECTORY) == errno.ENOTDIR
    assert _error(folder, os.O_WRONLY) == errno.EISDIR


def test_what_is_not_there(folder: Path, active: Path) -> None:
    """A missing name, and a name below an image."""
    assert _error(folder / "nothing", os.O_RDONLY) == errno.ENOENT
    assert _error(active / "below", os.O_RDONLY) == errno.ENOTDIR


def test_names_the_tree_cannot_hold(folder: Path) -> None:
    """Control characters, bytes that are not UTF-8, more than 255 bytes."""
    create = os.O_CREAT | os.O_WRONLY
    assert _error(folder / "two\nlines", create) == errno.EINVAL
    assert _error(Path(os.fsdecode(bytes(folder) + b"/\xff")), create) == errno.EINVAL
    assert _error(folder / ("é" * 128), create) == errno.ENAMETOOLONG
    assert _error(Path(os.fsdecode(bytes(folder) + b"/\xff")), os.O_RDONLY) == errno.ENOENT


def test_names_of_255_bytes(folder: Path, source: Path, data: bytes) -> None:
    """The longest name there is, also in the trash twice."""
    path = folder / ("é" * 127 + "x")
    for _ in range(2):
        run("cp", source, path)
        assert_active(path, data)
        assert [p.name for p in folder.iterdir()] == [path.name]
        path.unlink()


def test_a_name_may_hold_almost_anything(folder: Path, source: Path, data: bytes) -> None:
    """Blanks, quotes, backslashes, other scripts; upper and lower case differ."""
    names = {"a b", "a'b\"c", "a\\b", "日本語", "%41", "A", "a", "-rf", "*"}
    for name in names:
        run("cp", "--", source, folder / name)
    assert {path.name for path in folder.iterdir()} == names
    for name in names:
        assert_active(folder / name, data)


def test_reading_at_any_offset(active: Path, data: bytes) -> None:
    """pread(2) in the middle, across the end, and behind it."""
    fd = os.open(active, os.O_RDONLY)
    try:
        assert os.pread(fd, 10, 4095) == data[4095:4105]
        assert os.pread(fd, 1 << 20, 100) == data[100:]
        assert os.pread(fd, 10, len(data) - 3) == data[-3:]
        assert os.pread(fd, 10, len(data) + 5) == b""
    finally:
        os.close(fd)


def test_reading_without_the_page_cache(active: Path, data: bytes) -> None:
    """O_DIRECT, as qemu's cache=none opens a disk."""
    result = attempt("dd", f"if={active}", "iflag=direct", "bs=4096", "skip=1", "count=1")
    assert result.stdout == data[4096:8192]


def test_a_map_of_an_image(active: Path) -> None:
    """mmap(2) reads."""
    script = """
import mmap, sys
with open(sys.argv[1], "rb") as file:
    data = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    assert data[:] == open(sys.argv[1], "rb").read()
"""
    python(script, active)


def test_an_image_is_a_regular_file_with_one_inode(mount: Daemon, active: Path) -> None:
    """stat(2) shows an inode that find -inum finds, and one link."""
    found = active.stat()
    assert stat.S_ISREG(found.st_mode)
    assert found.st_nlink == 1
    assert run("find", mount.path, "-inum", found.st_ino).split() == [str(active)]


def test_opening_while_it_is_written(folder: Path) -> None:
    """A reader sees what has been written so far, and then the rest."""
    script = """
import os, sys
with open(sys.argv[1], "wb", buffering=0) as file:
    file.write(b"one")
    with open(sys.argv[1], "rb", buffering=0) as reader:
        assert reader.read() == b"one"
        file.write(b"two")
        assert os.pread(reader.fileno(), 10, 0) == b"onetwo"
        assert os.fstat(reader.fileno()).st_size == 6
        assert os.getxattr(sys.argv[1], "user.image.status") == b"saving"
        assert os.getxattr(sys.argv[1], "user.image.size") == b"6"
"""
    python(script, folder / "a")
    assert_active(folder / "a", b"onetwo")


def test_a_reader_of_an_upload_reads_on_when_it_is_active(folder: Path) -> None:
    """Opened while it was saving, read after the commit."""
    script = """
import os, sys
file = open(sys.argv[1], "wb", buffering=0)
file.write(b"data")
reader = os.open(sys.argv[1], os.O_RDONLY)
file.close()
assert os.getxattr(sys.argv[1], "user.image.status") == b"active"
assert os.pread(reader, 10, 0) == b"data"
"""
    python(script, folder / "a")
    assert_active(folder / "a", b"data")


def test_two_descriptors_of_one_process(folder: Path) -> None:
    """One process may open its image twice to write; the last close counts."""
    script = """
import os, sys
one = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
two = os.open(sys.argv[1], os.O_WRONLY)
os.write(one, b"first")
os.close(one)
assert os.getxattr(sys.argv[1], "user.image.status") == b"saving"
os.pwrite(two, b"second", 5)
os.close(two)
"""
    python(script, folder / "a")
    assert_active(folder / "a", b"firstsecond")


@pytest.mark.mount_says("killed by signal 9")
def test_a_killed_image_starts_anew(folder: Path) -> None:
    """Only O_TRUNC opens a killed image, and gives the name to a new one."""
    path = folder / "a"
    attempt("sh", "-c", '{ echo data; kill -9 $$; } > "$1"', "sh", path)
    assert status(path) == "killed"
    old = field(path, "id")
    assert _error(path, os.O_RDONLY) == errno.ENOENT
    assert _error(path, os.O_WRONLY) == errno.EIO
    assert _error(path, os.O_WRONLY | os.O_TRUNC) == 0
    assert field(path, "id") != old
    assert status(path) == "queued"
