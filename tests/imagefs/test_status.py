"""Each status as a file (docs/semantics.md#statuses)."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.kit.daemon import Daemon, wait_until
from tests.kit.tools import ROOT, as_nobody, attempt, field, mode, status, trashed


def _open(path: Path, flags: int) -> int:
    try:
        os.close(os.open(path, flags))
    except OSError as error:
        return error.errno or -1
    return 0


def _assert_row(path: Path, name: str, bits: int, size: int, read: int, write: int) -> None:
    assert status(path) == name
    wait_until(lambda: mode(path) == bits, f"the mode of {name}: {mode(path):o}")
    assert path.stat().st_size == size
    assert _open(path, os.O_RDONLY) == read
    assert _open(path, os.O_WRONLY) == write


def test_queued(folder: Path) -> None:
    """Empty, and open to take data."""
    (folder / "a").touch()
    _assert_row(folder / "a", "queued", 0o644, 0, 0, 0)


def test_saving(folder: Path) -> None:
    """Its writer's alone, with the bytes so far."""
    with (folder / "a").open("wb", buffering=0) as file:
        file.write(b"12345")
        _assert_row(folder / "a", "saving", 0o600, 5, 0, 0)


def test_active(folder: Path) -> None:
    """Readable, immutable."""
    attempt("dd", f"of={folder / 'a'}", stdin=b"12345")
    _assert_row(folder / "a", "active", 0o444, 5, 0, errno.EPERM)


def test_deactivated(folder: Path) -> None:
    """The administrator's."""
    attempt("dd", f"of={folder / 'a'}", stdin=b"12345")
    os.setxattr(folder / "a", "user.image.status", b"deactivated")
    _assert_row(folder / "a", "deactivated", 0o400, 5, 0, errno.EPERM)


@pytest.mark.mount_says("killed by signal 9")
def test_killed(folder: Path) -> None:
    """Nothing to read; only O_TRUNC starts anew."""
    attempt("sh", "-c", '{ echo data; kill -9 $$; } > "$1"', "sh", folder / "a")
    _assert_row(folder / "a", "killed", 0, 0, errno.ENOENT, errno.EIO)
    assert _open(folder / "a", os.O_WRONLY | os.O_TRUNC) == 0


def test_pending_delete(folder: Path) -> None:
    """In the trash, open to whom it was open before."""
    name = folder / "status-pending"
    attempt("dd", f"of={name}", stdin=b"12345")
    name.unlink()
    _assert_row(trashed(name), "pending_delete", 0o444, 5, 0, errno.EPERM)
    listed = {entry.name: entry for entry in os.scandir(trashed(name).parent)}
    assert listed[name.name].stat().st_mode & 0o777 == 0o444


@pytest.mark.skipif(not ROOT, reason="only root can act as another user")
def test_by_id_in_the_trash(mount: Daemon, folder: Path) -> None:
    """A guest's disk that names its backing file by id can be opened after the deletion."""
    ids = {}
    for name, visibility in (("pending-public", b"public"), ("pending-private", b"private")):
        (folder / name).touch()
        os.setxattr(folder / name, "user.image.visibility", visibility)
        attempt("dd", f"of={folder / name}", stdin=b"12345")
        ids[name] = field(folder / name, "id")
        (folder / name).unlink()

    def read(name: str) -> bytes:
        return as_nobody("cat", f".by-id/{ids[name]}", cwd=mount.path).stdout

    wait_until(lambda: read("pending-public") == b"12345", "another user reads it")
    assert read("pending-private") == b""


def test_private(folder: Path) -> None:
    """Visibility takes the others' bits away."""
    (folder / "a").touch()
    os.setxattr(folder / "a", "user.image.visibility", b"private")
    _assert_row(folder / "a", "queued", 0o600, 0, 0, 0)
    attempt("dd", f"of={folder / 'a'}", stdin=b"12345")
    _assert_row(folder / "a", "active", 0o400, 5, 0, errno.EPERM)
