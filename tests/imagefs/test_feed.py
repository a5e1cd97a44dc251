"""What other processes change is seen through the mount, whatever the kernel has cached."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.kit.daemon import Daemon, wait_until
from tests.kit.tools import field, mode, status


@pytest.fixture
def image(folder: Path, data: bytes) -> Path:
    """An active image whose name and attributes the kernel has cached."""
    (folder / "image").write_bytes(data)
    assert (folder / "image").stat().st_size == len(data)
    assert os.listdir(folder) == ["image"]
    return folder / "image"


def _in_catalog(path: Path) -> str:
    return f"/file/{path.parent.name}/{path.name}"


def test_a_deletion(mount: Daemon, image: Path) -> None:
    """The name is gone, in lookups and in listings."""
    mount.command("delete", _in_catalog(image))
    wait_until(lambda: not image.exists(), "the name is gone")
    wait_until(lambda: os.listdir(image.parent) == [], "the listing is empty")


def test_a_status(mount: Daemon, image: Path) -> None:
    """Deactivated elsewhere: the mode says so here."""
    mount.command("deactivate", _in_catalog(image))
    wait_until(lambda: mode(image) == 0o400, "the mode changes")
    assert status(image) == "deactivated"
    mount.command("reactivate", _in_catalog(image))
    wait_until(lambda: mode(image) == 0o444, "the mode changes back")


def test_an_attribute(mount: Daemon, image: Path) -> None:
    """Extended attributes are always asked for."""
    mount.command("set", _in_catalog(image), "property.os_distro=debian")
    assert os.getxattr(image, "user.property.os_distro") == b"debian"


def test_a_new_image(mount: Daemon, image: Path, source: Path, data: bytes) -> None:
    """A name that was looked for in vain is there."""
    name = "added"
    assert not (mount.path / "file" / name).exists()
    mount.command("add", str(source), "--name", name)
    wait_until(lambda: (mount.path / "file" / name).exists(), "the name is there")
    assert (mount.path / "file" / name).read_bytes() == data


def test_a_name_that_means_another_image(mount: Daemon, image: Path) -> None:
    """Replaced elsewhere: the name leads to the new image, an open file to the old one."""
    old, number = image.read_bytes(), field(image, "id")
    with image.open("rb") as reader:
        mount.command("delete", _in_catalog(image))
        wait_until(lambda: not image.exists(), "the name is gone")
        image.write_bytes(b"new")
        assert image.read_bytes() == b"new"
        assert field(image, "id") != number
        assert reader.read() == old


def test_another_process_s_upload_is_not_ours(mount: Daemon, folder: Path) -> None:
    """Two mounts of one catalog: the second sees the first's upload and its commit."""
    second = Daemon.__new__(Daemon)
    second.__dict__.update(mount.__dict__, path=mount.state / "second", process=None)
    second.path.mkdir()
    second.start()
    there = second.path / "file" / folder.name / "a"
    try:
        with (folder / "a").open("wb", buffering=0) as file:
            file.write(b"data")
            wait_until(there.exists, "the upload is seen")
            assert status(there) == "saving"
            with pytest.raises(OSError, match="busy"):
                there.open("wb")
        wait_until(lambda: status(there) == "active", "the commit is seen")
        wait_until(lambda: there.stat().st_size == 4, "the size is seen")
        assert there.read_bytes() == b"data"
        (folder / "a").rename(folder / "b")
        wait_until(lambda: not there.exists(), "the rename is seen")
        assert there.with_name("b").read_bytes() == b"data"
    finally:
        assert second.stop() == 0
        second.unmount()
