"""rename(2): within a store, between stores, over another image, in and out of the trash."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

import pytest

from tests.kit.daemon import Daemon
from tests.kit.tools import (
    assert_active,
    attempt,
    field,
    python,
    run,
    shell,
    some_bytes,
    status,
    trashed,
)

NOREPLACE, EXCHANGE = 1, 2


def _rename(source: Path, target: Path, flags: int) -> int:
    """renameat2(2); return the errno, 0 when it succeeds."""
    libc = ctypes.CDLL(None, use_errno=True)
    at_cwd = -100
    if libc.renameat2(at_cwd, bytes(source), at_cwd, bytes(target), flags) == 0:
        return 0
    return ctypes.get_errno()


@pytest.fixture
def image(folder: Path, data: bytes) -> Path:
    """An active image."""
    (folder / "image").write_bytes(data)
    return folder / "image"


def test_within_a_folder(folder: Path, image: Path, data: bytes) -> None:
    """The image has the new name, and the same id and inode."""
    before = (field(image, "id"), image.stat().st_ino)
    image.rename(folder / "new")
    assert_active(folder / "new", data)
    assert (field(folder / "new", "id"), (folder / "new").stat().st_ino) == before
    assert field(folder / "new", "name") == "new"
    assert [path.name for path in folder.iterdir()] == ["new"]


def test_into_another_folder(folder: Path, image: Path, data: bytes) -> None:
    """And back; what is open reads on."""
    (folder / "deep").mkdir()
    with image.open("rb") as reader:
        image.rename(folder / "deep/image")
        assert_active(folder / "deep/image", data)
        (folder / "deep/image").rename(image)
        assert reader.read() == data


def test_noreplace(folder: Path, image: Path, data: bytes) -> None:
    """mv -n: what is there stays."""
    (folder / "new").write_bytes(b"new")
    assert _rename(folder / "new", image, NOREPLACE) == errno.EEXIST
    assert_active(image, data)
    assert _rename(folder / "new", folder / "free", NOREPLACE) == 0


def test_exchange_is_not_offered(folder: Path, image: Path) -> None:
    """RENAME_EXCHANGE is answered as by a file system that does not know it."""
    (folder / "new").write_bytes(b"new")
    assert _rename(folder / "new", image, EXCHANGE) == errno.EINVAL


def test_what_is_replaced_is_in_the_trash(folder: Path, data: bytes) -> None:
    """mv over an image: the old one can be had back, and its readers read on."""
    (folder / "replaced-by-mv").write_bytes(b"old")
    (folder / "new").write_bytes(data)
    with (folder / "replaced-by-mv").open("rb") as reader:
        os.replace(folder / "new", folder / "replaced-by-mv")
        assert reader.read() == b"old"
    assert_active(folder / "replaced-by-mv", data)
    assert status(trashed(folder / "replaced-by-mv")) == "pending_delete"
    trashed(folder / "replaced-by-mv").rename(folder / "back")
    assert_active(folder / "back", b"old")


def test_onto_itself(image: Path, data: bytes) -> None:
    """Nothing happens."""
    image.rename(image)
    assert_active(image, data)


def test_a_protected_image_is_not_replaced(folder: Path, image: Path, data: bytes) -> None:
    """EPERM, and both images stay."""
    os.setxattr(image, "user.image.protected", b"true")
    (folder / "new").write_bytes(b"new")
    assert _rename(folder / "new", image, 0) == errno.EPERM
    assert_active(image, data)
    assert_active(folder / "new", b"new")


def test_across_stores(mount: Daemon, folder: Path, image: Path, data: bytes) -> None:
    """mv to another store moves the data and keeps the id and the properties."""
    os.setxattr(image, "user.property.os_distro", b"debian")
    number = field(image, "id")
    target = mount.path / "other/moved"
    os.rename(image, target)
    assert_active(target, data)
    assert (field(target, "id"), field(target, "stores")) == (number, "other")
    assert os.getxattr(target, "user.property.os_distro") == b"debian"
    assert not image.exists()
    assert not (mount.state / "file" / number).exists()
    assert (mount.state / "other" / number).read_bytes() == data


def test_across_stores_over_another(mount: Daemon, image: Path, data: bytes) -> None:
    """What has the name in the other store goes to that store's trash."""
    target = mount.path / "other/taken"
    target.write_bytes(b"old")
    os.rename(image, target)
    assert_active(target, data)
    assert status(mount.path / "other/.trash/taken") == "pending_delete"


def test_into_the_trash_and_out(folder: Path, data: bytes) -> None:
    """Mv into .trash deletes, out of it restores, with name, time and properties."""
    image = folder / "trash-and-back"
    image.write_bytes(data)
    os.setxattr(image, "user.property.os_distro", b"debian")
    os.utime(image, ns=(10**18, 10**18))
    number = field(image, "id")
    run("mv", image, trashed(image))
    assert status(trashed(image)) == "pending_delete"
    run("mv", trashed(image), folder)
    assert_active(image, data)
    assert field(image, "id") == number
    assert image.stat().st_mtime_ns == 10**18
    assert os.getxattr(image, "user.property.os_distro") == b"debian"


@pytest.mark.mount_says("rsync was interrupted")
def test_a_partial_file_is_refused(folder: Path, data: bytes) -> None:
    """A temporary file of the year 1970 is rsync's way to say that it is not whole."""
    (folder / ".a.XXXXXX").write_bytes(data)
    os.utime(folder / ".a.XXXXXX", ns=(0, 999_999_999))
    assert _rename(folder / ".a.XXXXXX", folder / "a", 0) == errno.EIO
    assert not (folder / "a").exists()


def test_a_temporary_name_takes_no_image(folder: Path, image: Path, data: bytes) -> None:
    """An active image cannot be hidden behind a temporary name."""
    assert _rename(image, folder / "image.part", 0) == errno.EINVAL
    assert_active(image, data)


def test_an_open_upload_is_renamed(folder: Path) -> None:
    """A writer may rename its file while it writes it."""
    script = """
import os, sys
with open(sys.argv[1], "wb", buffering=0) as file:
    file.write(b"one")
    os.rename(sys.argv[1], sys.argv[2])
    file.write(b"two")
assert os.getxattr(sys.argv[2], "user.image.status") == b"active"
"""
    python(script, folder / "a", folder / "b")
    assert_active(folder / "b", b"onetwo")
    assert [path.name for path in folder.iterdir()] == ["b"]


def test_an_open_temporary_upload_is_renamed(folder: Path) -> None:
    """To an image's name before the last close: that close publishes it, then as a whole."""
    script = """
import os, sys
with open(sys.argv[1], "wb", buffering=0) as file:
    file.write(b"one")
    os.rename(sys.argv[1], sys.argv[2])
    assert os.getxattr(sys.argv[2], "user.image.status") == b"saving"
    file.write(b"two")
assert os.getxattr(sys.argv[2], "user.image.status") == b"active"
"""
    python(script, folder / ".a.tmp", folder / "b")
    assert_active(folder / "b", b"onetwo")


def test_an_upload_is_not_replaced(folder: Path, image: Path) -> None:
    """What somebody is writing keeps its name: EBUSY."""
    with (folder / "upload").open("wb") as file:
        file.write(b"data")
        file.flush()
        assert _rename(image, folder / "upload", 0) == errno.EBUSY
    assert_active(folder / "upload", b"data")


def test_folders(folder: Path, data: bytes) -> None:
    """A folder moves with all in it; onto an empty folder, and no other."""
    (folder / "a/deep").mkdir(parents=True)
    (folder / "a/deep/image").write_bytes(data)
    (folder / "empty").mkdir()
    (folder / "full/x").mkdir(parents=True)
    assert _rename(folder / "a", folder / "full", 0) == errno.ENOTEMPTY
    assert _rename(folder / "a", folder / "a/deep/b", 0) == errno.EINVAL
    assert _rename(folder / "a", folder / "a/deep/image", 0) in (errno.ENOTDIR, errno.EINVAL)
    assert _rename(folder / "a/deep/image", folder / "empty", 0) == errno.EISDIR
    (folder / "a").rename(folder / "empty")
    assert_active(folder / "empty/deep/image", data)
    assert not (folder / "a").exists()


def test_mv_moves_a_folder_to_another_store(mount: Daemon, folder: Path, data: bytes) -> None:
    """A folder cannot be renamed to another store: mv copies it, as between file systems."""
    (folder / "tree/deep").mkdir(parents=True)
    (folder / "tree/deep/image").write_bytes(data)
    run("mv", folder / "tree", mount.path / "other/tree")
    assert_active(mount.path / "other/tree/deep/image", data)
    assert not (folder / "tree").exists()


def test_the_fixed_parts_of_the_tree_stay(mount: Daemon, image: Path) -> None:
    """Stores, trashes and /.by-id cannot be renamed, and nothing else put in their place."""
    assert _rename(mount.path / "file", mount.path / "store", 0) != 0
    assert _rename(mount.path / "file/.trash", mount.path / "file/bin", 0) != 0
    assert _rename(mount.path / ".by-id", mount.path / "ids", 0) != 0
    assert _rename(image, mount.path / ".by-id/image", 0) == errno.EACCES
    assert image.exists()


def test_the_root_holds_no_images(mount: Daemon, image: Path) -> None:
    """Only the configured stores are there."""
    assert _rename(image, mount.path / "image", 0) == errno.EACCES


def test_what_is_not_there(folder: Path, image: Path) -> None:
    """ENOENT for the source, ENOTDIR below an image."""
    assert _rename(folder / "nothing", folder / "a", 0) == errno.ENOENT
    assert _rename(image, image / "below", 0) == errno.ENOTDIR


def test_mv_of_a_whole_tree(folder: Path) -> None:
    """A hundred images in folders, renamed one by one by a shell loop."""
    for number in range(30):
        (folder / f"{number}").write_bytes(some_bytes(10, number))
    shell('cd "$1"; for n in *; do mv "$n" "image-$n"; done', folder)
    assert len(list(folder.iterdir())) == 30
    assert_active(folder / "image-7", some_bytes(10, 7))


def test_mv_f_of_an_image_from_outside(folder: Path, image: Path, source: Path) -> None:
    """mv from another file system over an image replaces it."""
    data = source.read_bytes() + b"other"
    source.write_bytes(data)
    assert attempt("mv", "-f", source, image).returncode == 0
    assert_active(image, data)
