"""statfs(2): the room there is."""

from __future__ import annotations

import os
from pathlib import Path

from tests.kit.daemon import Daemon
from tests.kit.tools import run


def test_the_room_is_the_store_s(mount: Daemon, folder: Path) -> None:
    """What df shows of the mount is what it shows of the default store's disk."""
    here, there = os.statvfs(folder), os.statvfs(mount.state / "file")
    assert here.f_blocks * here.f_frsize <= there.f_blocks * there.f_frsize
    assert here.f_blocks * here.f_frsize > there.f_blocks * there.f_frsize * 0.9
    assert 0 < here.f_bavail <= here.f_bfree <= here.f_blocks


def test_names_are_as_long_as_it_says(folder: Path) -> None:
    """f_namemax."""
    longest = "n" * os.statvfs(folder).f_namemax
    (folder / longest).touch()
    assert os.listdir(folder) == [longest]


def test_df(mount: Daemon) -> None:
    """df names the file system."""
    fields = run("df", "-T", mount.path).splitlines()[1].split()
    assert fields[:2] == ["imagefs", "fuse.imagefs"]
    assert fields[-1] == str(mount.path)
