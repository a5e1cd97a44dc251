"""rclone(1): copying and mirroring whole folders, and a mount of its own."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dav.clients.rclone_remote import environment
from tests.kit.daemon import Daemon, wait_until
from tests.kit.service import Service, service
from tests.kit.tools import run, some_bytes


@pytest.fixture(scope="module")
def open_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server whose catalog keeps the digest that rclone knows, too."""
    with service(Daemon(tmp_path_factory.mktemp("open"), catalog="checksum = true")) as running:
        yield running


def rclone(service: Service, *arguments: object, vendor: str = "owncloud") -> bytes:
    """Run rclone; return what it prints to either stream."""
    if service.tls:
        arguments = (*arguments, "--no-check-certificate")
    result = subprocess.run(
        ["rclone", *(str(word) for word in arguments)],
        env=environment(service, vendor),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        timeout=60,
    )
    assert result.returncode == 0, result.stdout.decode()
    return result.stdout


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A local folder with images in it, of a time in the past."""
    top = tmp_path / "tree"
    for name in ("a.img", "sub/b.img", "sub/with blank & ümlaut.img"):
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(some_bytes(50_000, seed=len(name)))
        os.utime(path, (1_600_000_000, 1_600_000_000))
    return top


def test_a_copy_is_the_same(open_service: Service, folder: str, tree: Path, tmp_path: Path) -> None:
    """A tree goes there and comes back, with its times; all of it is active."""
    rclone(open_service, "copy", tree, f"images:{folder}")
    rclone(open_service, "copy", f"images:{folder}", tmp_path / "back")
    run("diff", "-r", tree, tmp_path / "back")
    assert (tmp_path / "back" / "a.img").stat().st_mtime == 1_600_000_000
    assert open_service.status(f"{folder}/sub/b.img") == "active"


@pytest.mark.parametrize("vendor", ["owncloud", "other"])
def test_a_second_sync_sends_nothing(
    open_service: Service, folder: str, tree: Path, vendor: str
) -> None:
    """Only what has changed, and what has gone, is dealt with by the next sync."""
    command = ("sync", "-v", tree, f"images:{folder}")
    assert b"3 / 3, 100%" in rclone(open_service, *command, vendor=vendor)
    assert transferred(rclone(open_service, *command, vendor=vendor)) == []
    (tree / "a.img").write_bytes(b"longer by far than it was" * 4000)
    (tree / "sub" / "b.img").unlink()
    assert transferred(rclone(open_service, *command, vendor=vendor)) == ["a.img"]
    assert open_service.status(f"{folder}/sub/b.img") == ""
    assert open_service.status("/file/.trash/b.img") == "pending_delete"


def transferred(said: bytes) -> list[str]:
    """The files that rclone has sent, by its own word."""
    return re.findall(r"INFO\s*: (.*): Copied", said.decode())


def test_check_compares_the_data(open_service: Service, folder: str, tree: Path) -> None:
    """What is there is what was sent, by its digest and byte by byte."""
    rclone(open_service, "copy", tree, f"images:{folder}")
    for options in ((), ("--download",)):
        said = rclone(open_service, "check", *options, tree, f"images:{folder}")
        assert b"3 matching files" in said
        assert b"0 differences" in said
        assert b"could not be checked" not in said


def test_ranges(open_service: Service, folder: str, tree: Path) -> None:
    """`cat` of a part reads that part."""
    rclone(open_service, "copy", tree, f"images:{folder}")
    part = ("cat", "--offset", 1000, "--count", 500, f"images:{folder}/a.img")
    assert rclone(open_service, *part) == (tree / "a.img").read_bytes()[1000:1500]


def test_one_image_moves_and_goes(open_service: Service, folder: str, tree: Path) -> None:
    """`copyto`, `moveto` (which keeps the id) and `deletefile` of a single image."""
    rclone(open_service, "copyto", tree / "a.img", f"images:{folder}/one.img")
    before = open_service.fields(f"{folder}/one.img")
    rclone(open_service, "moveto", f"images:{folder}/one.img", f"images:{folder}/two.img")
    assert open_service.status(f"{folder}/one.img") == ""
    assert open_service.fields(f"{folder}/two.img")["id"] == before["id"]
    rclone(open_service, "deletefile", f"images:{folder}/two.img")
    assert open_service.status(f"{folder}/two.img") == ""


def test_a_stream(open_service: Service, folder: str, tree: Path) -> None:
    """`rcat` does not know the size before."""
    data = (tree / "a.img").read_bytes()
    subprocess.run(
        ["rclone", "rcat", f"images:{folder}/piped.img"],
        env=environment(open_service, "owncloud"),
        input=data * 10,
        check=True,
        timeout=60,
    )
    assert rclone(open_service, "cat", f"images:{folder}/piped.img") == data * 10


def test_mount(open_service: Service, folder: str, tree: Path, tmp_path: Path) -> None:
    """Through a mount by rclone images are read in parts, and written."""
    rclone(open_service, "copy", tree, f"images:{folder}")
    point = tmp_path / "mnt"
    point.mkdir()
    mount = subprocess.Popen(
        ["rclone", "mount", "--vfs-cache-mode=writes", f"--cache-dir={tmp_path / 'cache'}"]
        + ["--vfs-write-back=0s", f"images:{folder}", str(point)],
        env=environment(open_service, "owncloud"),
    )
    try:
        wait_until(lambda: os.path.ismount(point), "rclone has mounted")
        with (point / "a.img").open("rb") as image:
            image.seek(20_000)
            assert image.read(100) == (tree / "a.img").read_bytes()[20_000:20_100]
        run("cp", tree / "a.img", point / "new.img")
        wait_until(lambda: open_service.status(f"{folder}/new.img") == "active", "it is uploaded")
    finally:
        run("fusermount3", "-u", point)
        mount.wait(30)
    assert rclone(open_service, "cat", f"images:{folder}/new.img") == (tree / "a.img").read_bytes()


def test_tls_and_a_user(secure_service: Service, tree: Path) -> None:
    """With a name and a password over TLS."""
    rclone(secure_service, "copy", tree, "images:/file/tree")
    assert b"0 differences" in rclone(
        secure_service, "check", "--download", tree, "images:/file/tree"
    )
