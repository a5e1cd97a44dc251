"""link(2): a copy of an image in another store, under one inode."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.kit.daemon import Daemon
from tests.kit.tools import assert_active, attempt, field, run, status, trashed


@pytest.fixture
def linked(mount: Daemon, folder: Path, data: bytes) -> tuple[Path, Path]:
    """An image in `file`, and its link in `other`."""
    there = mount.path / "other" / folder.name
    (folder / "image").write_bytes(data)
    run("ln", folder / "image", there)
    return folder / "image", there


def test_ln_replicates(mount: Daemon, linked: tuple[Path, Path], data: bytes) -> None:
    """Both stores hold the data; it is one image, one inode, with two links."""
    here, there = linked
    number = field(here, "id")
    for path in linked:
        assert_active(path, data)
        assert path.stat().st_nlink == 2
        assert field(path, "id") == number
        assert field(path, "stores") == "file,other"
    assert here.stat().st_ino == there.stat().st_ino
    for store in ("file", "other"):
        assert (mount.state / store / number).read_bytes() == data


@pytest.mark.parametrize("gone", [0, 1])
def test_rm_of_one_link_drops_that_copy(
    mount: Daemon, linked: tuple[Path, Path], data: bytes, gone: int
) -> None:
    """The other stays active, and its own store alone holds it."""
    stays = linked[1 - gone]
    number = field(stays, "id")
    run("rm", "-f", linked[gone])
    assert_active(stays, data)
    assert stays.stat().st_nlink == 1
    assert not linked[gone].exists()
    assert not trashed(linked[gone]).exists()
    assert not (mount.state / ("file", "other")[gone] / number).exists()


def test_a_reader_reads_on_without_the_copy_it_reads(
    linked: tuple[Path, Path], data: bytes
) -> None:
    """Opened by one link, which is then removed."""
    with linked[0].open("rb") as reader:
        run("rm", "-f", linked[0])
        assert reader.read() == data


def test_attributes_are_the_image_s(linked: tuple[Path, Path]) -> None:
    """A property set by one name is seen by the other."""
    os.setxattr(linked[0], "user.property.os_distro", b"debian")
    assert os.getxattr(linked[1], "user.property.os_distro") == b"debian"


def test_a_link_within_a_store_is_refused(folder: Path, data: bytes) -> None:
    """One copy a store: EPERM, as from a file system without links."""
    (folder / "image").write_bytes(data)
    with pytest.raises(PermissionError) as caught:
        os.link(folder / "image", folder / "again")
    assert caught.value.errno == errno.EPERM
    assert not (folder / "again").exists()


def test_a_taken_name_is_refused(mount: Daemon, folder: Path, data: bytes) -> None:
    """ln does not replace: EEXIST."""
    (folder / "image").write_bytes(data)
    (mount.path / "other/taken-name").write_bytes(b"taken")
    with pytest.raises(FileExistsError):
        os.link(folder / "image", mount.path / "other/taken-name")
    assert_active(mount.path / "other/taken-name", b"taken")


def test_only_an_active_image_is_replicated(mount: Daemon, folder: Path) -> None:
    """A queued image has nothing to copy: EBUSY."""
    (folder / "queued").touch()
    with pytest.raises(OSError, match="busy"):
        os.link(folder / "queued", mount.path / "other/queued-link")
    assert not (mount.path / "other/queued-link").exists()
    assert status(folder / "queued") == "queued"


def test_no_links_to_folders(mount: Daemon, folder: Path) -> None:
    """As anywhere."""
    (folder / "deep").mkdir()
    assert attempt("ln", folder / "deep", mount.path / "other/deep-link").returncode != 0


def test_cp_l_makes_links(mount: Daemon, folder: Path, data: bytes) -> None:
    """cp -l replicates as well."""
    (folder / "cp-l").write_bytes(data)
    run("cp", "-l", folder / "cp-l", mount.path / "other/")
    assert_active(mount.path / "other/cp-l", data)
    assert field(mount.path / "other/cp-l", "stores") == "file,other"
