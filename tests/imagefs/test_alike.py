"""On the mount each form of a name is the same file, whatever the kernel remembers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.kit.daemon import wait_until
from tests.kit.tools import assert_active, attempt, run

NFC, NFD = "\u00e9t\u00e9.img", "e\u0301te\u0301.img"


@pytest.mark.parametrize(("name", "other"), [(NFC, NFD), (NFD, NFC)])
def test_what_one_form_writes_the_other_finds(
    folder: Path, source: Path, data: bytes, name: str, other: str
) -> None:
    """It is one file, listed as it was written; a second one cannot be made."""
    run("cp", source, folder / name)
    assert_active(folder / other, data)
    assert (folder / name).stat().st_ino == (folder / other).stat().st_ino
    assert os.listdir(folder) == [name]
    with pytest.raises(FileExistsError):
        os.mkdir(folder / other)
    with pytest.raises(FileExistsError):
        os.open(folder / other, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    assert attempt("cp", source, folder / other).returncode != 0  # it never changes
    run("cp", "-f", source, folder / other)
    assert os.listdir(folder) == [other]


def test_what_is_removed_by_one_form_is_gone_by_the_other(folder: Path, source: Path) -> None:
    """Though the kernel had found it before, by both."""
    run("cp", source, folder / NFD)
    assert (folder / NFD).exists()
    assert (folder / NFC).exists()
    (folder / NFC).unlink()
    wait_until(lambda: not (folder / NFD).exists(), "the kernel has forgotten it")
    assert not (folder / NFC).exists()
    run("cp", source, folder / NFC)
    assert (folder / NFD).exists()


def test_rsync_from_a_mac_has_nothing_to_do_twice(
    folder: Path, tmp_path: Path, data: bytes
) -> None:
    """Names are listed as they were sent, so that --delete finds no stranger."""
    (tmp_path / "mac").mkdir()
    (tmp_path / "mac" / NFD).write_bytes(data)
    run("rsync", "-a", "--delete", f"{tmp_path}/mac/", folder)
    inode = (folder / NFC).stat().st_ino
    run("rsync", "-a", "--delete", f"{tmp_path}/mac/", folder)
    assert os.listdir(folder) == [NFD]
    assert (folder / NFC).stat().st_ino == inode


def test_a_folder_has_both_forms(folder: Path, source: Path, data: bytes) -> None:
    """And what is in it is found through either."""
    (folder / NFD).mkdir()
    run("cp", source, folder / NFC / "a")
    assert_active(folder / NFD / "a", data)
    os.unlink(folder / NFD / "a")
    os.rmdir(folder / NFC)
    wait_until(lambda: not (folder / NFD).exists(), "the kernel has forgotten it")
