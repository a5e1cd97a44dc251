"""chmod(2), chown(2), utimens(2): tools call them, and they succeed.

Source: docs/facts.md#tools-that-copy.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.kit.tools import field, mode, run


@pytest.fixture
def image(folder: Path, data: bytes) -> Path:
    """An active image."""
    (folder / "image").write_bytes(data)
    return folder / "image"


@pytest.mark.parametrize("bits", ["0777", "u+w", "000", "4755"])
def test_chmod_succeeds_and_changes_nothing(image: Path, bits: str) -> None:
    """The mode follows from the status."""
    run("chmod", bits, image)
    assert mode(image) == 0o444


def test_chown_succeeds_and_changes_nothing(image: Path) -> None:
    """The owner is a field, which only an administrator gives away."""
    run("chown", "nobody:nogroup", image)
    assert image.stat().st_uid == os.geteuid()
    os.setxattr(image, "user.image.owner", b"nobody")
    assert image.stat().st_uid == 65534
    assert field(image, "owner") == "nobody"


@pytest.mark.parametrize(
    "time", [0, 1, 981_173_106_123_456_789, 10**18 + 1, 4_000_000_000_999_999_999]
)
def test_times_are_kept_to_the_nanosecond(image: Path, time: int) -> None:
    """Of an active image."""
    os.utime(image, ns=(5, time))
    assert image.stat().st_mtime_ns == time


def test_times_before_1970(image: Path) -> None:
    """An archive may hold anything."""
    os.utime(image, ns=(0, -(10**9)))
    assert image.stat().st_mtime_ns == -(10**9)


def test_touch_now(image: Path) -> None:
    """UTIME_NOW."""
    os.utime(image, ns=(0, 0))
    before = os.stat("/proc/self").st_mtime
    run("touch", image)
    assert image.stat().st_mtime >= before - 1


def test_only_the_time_of_access(image: Path) -> None:
    """touch -a changes nothing that is kept."""
    before = image.stat().st_mtime_ns
    run("touch", "-a", "-d", "2001-02-03", image)
    assert image.stat().st_mtime_ns == before


def test_times_of_an_upload(folder: Path) -> None:
    """Set before there is data, or while it is written: the image has it."""
    (folder / "queued").touch()
    os.utime(folder / "queued", ns=(0, 10**18 + 3))
    assert (folder / "queued").stat().st_mtime_ns == 10**18 + 3
    with (folder / "written").open("wb") as file:
        file.write(b"data")
        file.flush()
        os.utime(file.fileno(), ns=(0, 10**18 + 5))
    assert (folder / "written").stat().st_mtime_ns == 10**18 + 5


@pytest.mark.parametrize("second", [10**11, -(10**11)])
def test_times_that_cannot_be_kept(folder: Path, second: int) -> None:
    """The nearest one that can: a copy with its times fails for nothing else (tar, cp -p)."""
    with (folder / "written").open("wb") as file:
        file.write(b"data")
        file.flush()
        os.utime(file.fileno(), (second, second))
    for _ in range(2):
        assert (folder / "written").stat().st_mtime_ns in (2**63 - 1, -(2**63))
        os.utime(folder / "written", (second, second))


def test_folders_take_them_too(folder: Path) -> None:
    """cp -a and tar set mode and time of folders."""
    (folder / "deep").mkdir()
    run("chmod", "0700", folder / "deep")
    run("touch", "-d", "2001-02-03", folder / "deep")
    run("chown", "nobody", folder / "deep")
    assert mode(folder / "deep") == 0o1777
