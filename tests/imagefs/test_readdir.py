"""readdir(3): what a listing shows while the folder changes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from imagefs.tree import PAGE
from tests.kit.daemon import Daemon, wait_until
from tests.kit.tools import run, status


def test_the_root(mount: Daemon) -> None:
    """A folder for each store, and /.by-id."""
    assert sorted(os.listdir(mount.path)) == [".by-id", "file", "other", "web"]


def test_types_are_told(folder: Path) -> None:
    """d_type, which find relies on."""
    (folder / "deep").mkdir()
    (folder / "image").write_bytes(b"data")
    with os.scandir(folder) as entries:
        assert {entry.name: entry.is_dir() for entry in entries} == {"deep": True, "image": False}
    assert run("find", folder, "-type", "f").split() == [str(folder / "image")]


def test_dot_and_dot_dot(folder: Path) -> None:
    """Not listed, as by many file systems, but resolved."""
    (folder / "deep").mkdir()
    assert run("ls", "-A", folder / "deep").split() == []
    assert (folder / "deep/..").stat().st_ino == folder.stat().st_ino
    assert (folder / "deep/.").stat().st_ino == (folder / "deep").stat().st_ino


@pytest.fixture(scope="module")
def many(mount: Daemon) -> Path:
    """A folder with more members than a page holds."""
    path = mount.path / "other/many"
    path.mkdir()
    for number in range(PAGE + 50):
        (path / str(number)).mkdir()
    return path


def test_a_listing_of_many(many: Path) -> None:
    """More than one page, each exactly once."""
    assert sorted(map(int, os.listdir(many))) == list(range(PAGE + 50))


def test_what_stays_is_listed_once_while_others_come_and_go(many: Path) -> None:
    """Members that were there all the time are neither missed nor repeated."""
    seen: list[str] = []
    with os.scandir(many) as entries:
        for count, entry in enumerate(entries):
            seen.append(entry.name)
            if count % 40 == 0:
                (many / f"new-{count}").mkdir()
            if count % 40 == 20:
                (many / f"new-{count - 20}").rmdir()
    stayed = [name for name in seen if not name.startswith("new")]
    assert sorted(map(int, stayed)) == list(range(PAGE + 50))
    assert len(seen) == len(set(seen))


def test_rm_while_listing(many: Path) -> None:
    """rm -r deletes as it reads the folder.  The last test of these."""
    with os.scandir(many) as entries:
        for entry in entries:
            os.rmdir(entry.path)
    assert os.listdir(many) == []


def test_rewinding(folder: Path) -> None:
    """A program that reads a folder twice by one descriptor sees what is new."""
    (folder / "one").touch()
    fd = os.open(folder, os.O_RDONLY)
    try:
        assert os.listdir(fd) == ["one"]
        (folder / "two").touch()
        assert sorted(os.listdir(fd)) == ["one", "two"]
    finally:
        os.close(fd)


def test_listing_while_uploading(folder: Path) -> None:
    """An upload is shown with the bytes it has so far, and other members as ever."""
    (folder / "image").write_bytes(b"data")
    with (folder / "upload").open("wb", buffering=0) as file:
        for size in (5, 10):
            file.write(b"12345")
            with os.scandir(folder) as entries:
                found = {entry.name: entry.stat().st_size for entry in entries}
            assert found == {"image": 4, "upload": size}
        assert status(folder / "upload") == "saving"


def test_a_listing_s_attributes_are_right(folder: Path) -> None:
    """ls -l after a change by name shows the change."""
    (folder / "image").write_bytes(b"data")
    run("ls", "-l", folder)
    os.setxattr(folder / "image", "user.image.visibility", b"private")
    wait_until(lambda: run("ls", "-l", folder / "image").startswith("-r-------- "), "ls sees it")
    assert run("ls", "-l", folder).splitlines()[1].split()[0] == "-r--------"
