"""/.by-id: a stable path for every image."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from tests.kit.daemon import Daemon, wait_until
from tests.kit.tools import attempt, field, run, trashed


@pytest.fixture
def link(mount: Daemon, folder: Path, data: bytes) -> Path:
    """The link to a new image."""
    (folder / "image").write_bytes(data)
    return mount.path / ".by-id" / field(folder / "image", "id")


def test_it_leads_to_the_image(folder: Path, link: Path, data: bytes) -> None:
    """A relative symbolic link, so that it works wherever the tree is mounted."""
    assert os.readlink(link) == f"../file/{folder.name}/image"
    assert link.resolve() == folder / "image"
    assert link.read_bytes() == data
    assert link.name in os.listdir(link.parent)
    assert field(link.resolve(), "id") == link.name


def _leads_to(link: Path, target: Path) -> bool:
    return link.resolve() == target


def test_it_follows_the_image(folder: Path, link: Path, data: bytes) -> None:
    """After a rename, to another folder, and into the trash."""
    (folder / "deep").mkdir()
    for target in (folder / "new", folder / "deep/new"):
        link.resolve().rename(target)
        wait_until(partial(_leads_to, link, target), "the link follows")
    link.resolve().unlink()
    wait_until(lambda: link.resolve() == trashed(folder / "new"), "the link follows")
    assert link.read_bytes() == data


def test_it_goes_with_the_image(folder: Path, link: Path) -> None:
    """Deleted for good, it is no more."""
    (folder / "image").rename(folder / "by-id-gone")
    (folder / "by-id-gone").unlink()
    trashed(folder / "by-id-gone").unlink()
    wait_until(lambda: not link.is_symlink(), "the link is gone")


def test_only_ids_are_there(mount: Daemon, link: Path) -> None:
    """Neither names nor parts of ids."""
    for name in ("image", link.name[:8], "00000000-0000-0000-0000-000000000000"):
        assert not (mount.path / ".by-id" / name).is_symlink()


def test_nobody_changes_it(mount: Daemon, link: Path, source: Path) -> None:
    """The catalog makes it."""
    by_id = mount.path / ".by-id"
    for command in (
        ("cp", source, by_id / "a"),
        ("mkdir", by_id / "a"),
        ("ln", "-s", "http://example.com/", by_id / "a"),
        ("mv", link, by_id / "a"),
        ("rm", "-f", link),
    ):
        assert attempt(*command).returncode != 0
    assert link.is_symlink()


def test_qemu_opens_it(link: Path) -> None:
    """As Nova and libvirt would."""
    assert "raw" in run("qemu-img", "info", link)
