"""Uploads staged on a disk that fails behind the page cache's back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.errors import StoreFull, StoreUnavailable
from catalog.model.status import Status
from catalog.tree.vfs import Vfs
from catalog.uploads.writeback import check_written_back
from tests.kit.catalog import begin, image_at, new_catalog, settings_at, some_bytes, staged_files
from tests.kit.tools import MIB, run


@pytest.fixture
def staging(tmp_path: Path) -> Iterator[Path]:
    """A file system that promises 64 MiB, on a disk that has 4."""
    if os.geteuid() != 0:
        pytest.skip("a file system of its own needs root")
    below, path = tmp_path / "below", tmp_path / "staging"
    for folder in (below, path):
        folder.mkdir()
    run("mount", "-t", "tmpfs", "-o", f"size={4 * MIB}", "tmpfs", below)
    try:
        disk = below / "disk"
        run("truncate", "-s", 64 * MIB, disk)
        run("mkfs.ext4", "-q", "-O", "^has_journal", disk)
        run("mount", "-o", "loop", disk, path)
        (path / "lost+found").rmdir()
        try:
            yield path
        finally:
            run("umount", "-l", path)  # an upload that was refused may still be open
    finally:
        run("umount", "-l", below)


def test_nothing_failed(tmp_path: Path) -> None:
    """Of a file that is dirty, or written, nothing is to be told."""
    with (tmp_path / "file").open("wb", buffering=0) as file:
        file.write(some_bytes(MIB))
        check_written_back(file.fileno())
        os.fsync(file.fileno())
        check_written_back(file.fileno())


def test_upload_is_not_trusted_when_the_disk_lost_a_page(staging: Path, tmp_path: Path) -> None:
    """It is killed with the reason, though all could be read so far and was sent."""
    vfs = Vfs(new_catalog(settings_at(tmp_path)))
    upload = begin(vfs, "/memory/a", some_bytes(8 * MIB))
    os.sync()
    with pytest.raises((StoreFull, StoreUnavailable), match="staging"):
        upload.commit()
    image = image_at(vfs, "/memory/a")
    assert image.status is Status.KILLED
    assert "staging" in (image.message or "")
    assert list(vfs.catalog.store("memory").keys()) == []
    assert staged_files(tmp_path) == []
    vfs.catalog.close()
