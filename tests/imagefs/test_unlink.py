"""unlink(2), rmdir(2): deleting is moving to the trash; there, it is for good."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.kit.daemon import Daemon, wait_until
from tests.kit.tools import assert_active, attempt, field, python, run, shell, status, trashed


def test_rm_moves_to_the_trash(folder: Path, data: bytes) -> None:
    """The image is pending_delete, its data is there, and mv brings it back."""
    image = folder / "to-trash"
    image.write_bytes(data)
    run("rm", image)
    assert not image.exists()
    assert status(trashed(image)) == "pending_delete"
    assert trashed(image).read_bytes() == data
    run("mv", trashed(image), folder)
    assert_active(image, data)


def test_rm_of_a_tree(folder: Path, data: bytes) -> None:
    """rm -r removes the folders, and every image is in the trash."""
    (folder / "tree/deep").mkdir(parents=True)
    for number in range(20):
        (folder / f"tree/deep/tree-{number}").write_bytes(data)
    run("rm", "-r", folder / "tree")
    assert not (folder / "tree").exists()
    in_trash = {path.name for path in trashed(folder / "x").parent.iterdir()}
    assert {f"tree-{number}" for number in range(20)} <= in_trash


def test_the_same_name_twice_in_the_trash(folder: Path) -> None:
    """Both are kept, each under a name of its own."""
    for content in (b"one", b"two", b"three"):
        (folder / "same").write_bytes(content)
        (folder / "same").unlink()
    found = [p for p in trashed(folder / "same").parent.iterdir() if p.name.startswith("same")]
    assert sorted(path.read_bytes() for path in found) == [b"one", b"three", b"two"]


def test_rm_in_the_trash_is_for_good(mount: Daemon, folder: Path, data: bytes) -> None:
    """The data is gone from the store."""
    image = folder / "for-good"
    image.write_bytes(data)
    stored = mount.state / "file" / field(image, "id")
    assert stored.exists()
    image.unlink()
    trashed(image).unlink()
    assert not trashed(image).exists()
    assert not stored.exists()


def test_a_reader_reads_on(folder: Path, data: bytes) -> None:
    """Deleted while it is open: it can be read to the end, and is not deleted for good."""
    image = folder / "read-on"
    image.write_bytes(data)
    with image.open("rb", buffering=0) as reader:
        first = reader.read(10)
        image.unlink()
        with pytest.raises(OSError, match="busy"):
            trashed(image).unlink()
        rest = reader.read()
        assert first + (rest or b"") == data
        assert os.fstat(reader.fileno()).st_size == len(data)


def test_a_protected_image_stays(folder: Path, data: bytes) -> None:
    """Rm, and mv to the trash: EPERM, until protected is taken away."""
    image = folder / "protected"
    image.write_bytes(data)
    os.setxattr(image, "user.image.protected", b"true")
    for command in (("rm", "-f", image), ("mv", image, trashed(image))):
        assert os.strerror(errno.EPERM) in attempt(*command).stderr.decode()
    assert_active(image, data)
    os.setxattr(image, "user.image.protected", b"false")
    run("rm", image)


def test_an_upload_is_deleted_while_it_is_written(folder: Path) -> None:
    """The writer's next write fails, and nothing is published."""
    script = """
import errno, os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
os.write(fd, b"one")
os.unlink(sys.argv[1])
try:
    os.write(fd, b"two")
except OSError as error:
    print(errno.errorcode[error.errno])
"""
    assert python(script, folder / "in-the-middle") == "EIO\n"
    assert not (folder / "in-the-middle").exists()
    assert status(trashed(folder / "in-the-middle")) == "pending_delete"


def test_an_empty_image_is_deleted(folder: Path) -> None:
    """A queued image goes to the trash and comes back as queued."""
    image = folder / "queued"
    image.touch()
    image.unlink()
    trashed(image).rename(image)
    assert status(image) == "queued"


def test_a_temporary_file_leaves_nothing(mount: Daemon, folder: Path, data: bytes) -> None:
    """It never was an image: not even the trash keeps it."""
    (folder / ".temporary.XXXX").write_bytes(data)
    (folder / ".temporary.XXXX").unlink()
    assert not trashed(folder / ".temporary.XXXX").exists()
    assert mount.staged() == []


@pytest.mark.mount_says("killed by signal 9")
def test_a_killed_image_is_deleted(folder: Path) -> None:
    """Rm takes a killed image away like any other."""
    image = folder / "killed-one"
    attempt("sh", "-c", '{ echo data; kill -9 $$; } > "$1"', "sh", image)
    wait_until(lambda: status(image) == "killed", "it is killed")
    run("rm", "-f", image)
    assert status(trashed(image)) == "pending_delete"
    run("rm", "-f", trashed(image))


def test_rmdir(folder: Path, data: bytes) -> None:
    """Only empty folders, and no image."""
    (folder / "deep").mkdir()
    (folder / "deep/image").write_bytes(data)
    for path, expected in (
        (folder / "deep", errno.ENOTEMPTY),
        (folder / "deep/image", errno.ENOTDIR),
    ):
        with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is looked at
            path.rmdir()
        assert caught.value.errno == expected
    (folder / "deep/image").unlink()
    (folder / "deep").rmdir()
    assert list(folder.iterdir()) == []


def test_rm_is_not_for_folders(folder: Path) -> None:
    """unlink(2) of a folder: EISDIR."""
    (folder / "deep").mkdir()
    assert "Is a directory" in attempt("unlink", folder / "deep").stderr.decode()


def test_the_fixed_parts_of_the_tree_stay(mount: Daemon) -> None:
    """No store, no trash, not /.by-id nor what is in it."""
    (mount.path / "file/fixed").touch()
    link = mount.path / ".by-id" / field(mount.path / "file/fixed", "id")
    for path in (mount.path / "file", mount.path / "other/.trash", mount.path / ".by-id"):
        with pytest.raises(OSError, match=r"Permission denied|not empty"):
            path.rmdir()
    with pytest.raises(PermissionError):
        link.unlink()


def test_deep_folders(folder: Path, data: bytes) -> None:
    """Fifty levels down."""
    deep = folder.joinpath(*["level"] * 50)
    deep.mkdir(parents=True)
    (deep / "image").write_bytes(data)
    assert_active(deep / "image", data)
    shell('cd "$1" && rm -r level', folder)
    assert list(folder.iterdir()) == []


def test_a_folder_that_goes_away_under_a_process(folder: Path) -> None:
    """A working folder that has been removed takes no new images."""
    (folder / "gone").mkdir()
    result = attempt("sh", "-c", 'rmdir "$PWD"; echo x > a', "sh", cwd=folder / "gone")
    assert result.returncode != 0
