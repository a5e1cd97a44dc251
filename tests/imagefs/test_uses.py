"""Golden images of guests: what a mount tells of their use, and what that spares."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from tests.kit.daemon import COMMAND, Daemon, wait_until
from tests.kit.tools import attempt, field, run, some_bytes, trashed

DATA = some_bytes(3 * 1024 * 1024)


def _golden(folder: Path, tmp_path: Path, data: bytes, name: str = "golden") -> str:
    """A qcow2 image of that data; its id."""
    (tmp_path / "raw").write_bytes(data)
    run("qemu-img", "convert", "-O", "qcow2", tmp_path / "raw", tmp_path / name)
    run("cp", tmp_path / name, folder / f"{name}.part")
    run("mv", folder / f"{name}.part", folder / "golden")
    return field(folder / "golden", "id")


def _users(mount: Daemon, image: str) -> list[str]:
    found = mount.command("show", image, "--json")
    return [use["user"] for use in found.get("used_by", [])]


def test_show_says_who_has_it_open(mount: Daemon, folder: Path, data: bytes) -> None:
    """The program and its pid, as long as it has the file open."""
    (folder / "a").write_bytes(data)
    image = field(folder / "a", "id")
    with (folder / "a").open("rb"):
        wait_until(lambda: _users(mount, image), "its use is known")
        (user,) = _users(mount, image)
        assert re.fullmatch(rf".+ \(pid {os.getpid()}\)", user)
        assert "used by" in mount.command("show", image)
    wait_until(lambda: not _users(mount, image), "its end is known")


def _says(mount: Daemon, line: str) -> None:
    wait_until(lambda: line in mount.log.read_text(), f"the mount says: {line}")


def test_deleting_what_is_open_is_logged(mount: Daemon, folder: Path, data: bytes) -> None:
    """Also when the opening has not been published yet."""
    (folder / "used-deleted").write_bytes(data)
    with (folder / "used-deleted").open("rb") as file:
        image = field(folder / "used-deleted", "id")
        (folder / "used-deleted").unlink()
        assert file.read() == data
    _says(mount, f"used-deleted ({image}) was deleted while in use by ")


def test_replacing_what_is_open_is_logged(
    mount: Daemon, folder: Path, data: bytes, source: Path
) -> None:
    """`mv -f`, `cp -f` and `rsync` tell nobody else."""
    (folder / "used-replaced").write_bytes(data)
    with (folder / "used-replaced").open("rb") as file:
        image = field(folder / "used-replaced", "id")
        run("rsync", "-I", source, folder / "used-replaced")
        assert file.read() == data
    _says(mount, f"used-replaced ({image}) was replaced while in use by ")


def test_what_a_guest_has_open_is_not_deleted_for_good(
    mount: Daemon, folder: Path, data: bytes
) -> None:
    """`rm` in the trash, on the guest's own mount, is EBUSY as long as it has the file open."""
    (folder / "guests").write_bytes(data)
    (folder / "guests").unlink()
    gone = trashed(folder / "guests")
    with gone.open("rb") as file:
        result = attempt("rm", gone)
        assert result.returncode == 1
        assert b"busy" in result.stderr
        assert file.read() == data
    for _ in range(20):
        assert gone.read_bytes() == data
    run("rm", gone)
    assert not gone.exists()


def test_the_command_warns(mount: Daemon, folder: Path, data: bytes) -> None:
    """`imagefs delete` of what a mount has open says so on standard error, and does it."""
    (folder / "used-warned").write_bytes(data)
    image = field(folder / "used-warned", "id")
    with (folder / "used-warned").open("rb"):
        wait_until(lambda: _users(mount, image), "its use is known")
        path = f"/file/{folder.name}/used-warned"
        result = attempt(*COMMAND, "--config", mount.config, "delete", path)
    assert result.returncode == 0
    assert b"was deleted while in use by" in result.stderr
    assert trashed(folder / "used-warned").exists()


def test_a_guest_that_is_shut_off_keeps_its_backing_file(
    daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    """An overlay on .by-id reads the old bytes after the replacement and after the scrub."""
    with daemon(catalog="scrub_time = 0").mounted() as mount:
        folder = mount.path / "file"
        image = _golden(folder, tmp_path, DATA, "old")
        overlay = tmp_path / "overlay.qcow2"
        backing = mount.path / ".by-id" / image
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", backing, "-F", "qcow2", overlay)
        _golden(folder, tmp_path, DATA[::-1], "new")
        assert field(folder / "golden", "id") != image
        assert mount.command("scrub").startswith(f"kept  {image}  golden: golden: was in use at")
        run("qemu-img", "convert", "-O", "raw", overlay, tmp_path / "out.raw")
        assert (tmp_path / "out.raw").read_bytes() == DATA
        (folder / ".trash/golden").unlink()
        wait_until(lambda: not os.path.lexists(backing), "who deletes it for good means it")
