"""SHA256SUMS of a folder."""

from __future__ import annotations

import subprocess
from pathlib import Path

from catalog.tree.vfs import Vfs
from dav.browse import sums
from tests.dav.browse.asking import HOSTILE, document, text
from tests.kit.catalog import begin, image_at, put_as_before, rename


def test_sha256sum_accepts_the_sums_of_a_folder(vfs: Vfs, tmp_path: Path) -> None:
    """Every name, also one that has to be escaped; only what is active is there."""
    folder = tmp_path / "fetched"
    folder.mkdir()
    for name in HOSTILE:
        data = b"\0" + name.encode()
        put_as_before(vfs, f"/file/{name}", data)
        (folder / name).write_bytes(data)
    begin(vfs, "/file/unfinished", b"x")
    found = text(vfs, "/file/SHA256SUMS")
    assert len(found.splitlines()) == len(HOSTILE)
    checked = subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet"], input=found.encode(), cwd=folder
    )
    assert checked.returncode == 0
    (folder / HOSTILE[0]).write_bytes(b"something else")
    checked = subprocess.run(["sha256sum", "--check", "--status"], input=found.encode(), cwd=folder)
    assert checked.returncode == 1


def test_no_image_passes_for_the_sums_of_a_folder(vfs: Vfs) -> None:
    """One of an earlier version may be called so: its page is there, and a new name for it."""
    image = put_as_before(vfs, "/file/SHA256SUMS", b"0000  debian.qcow2\n")
    assert text(vfs, "/file/SHA256SUMS") == sums.line(image.os_hash_value or "", image.name) + "\n"
    assert document(vfs, "/file/SHA256SUMS", "page")["id"] == image.id
    rename(vfs, "/file/SHA256SUMS", "/file/sums.raw")
    assert image_at(vfs, "/file/sums.raw").id == image.id
