"""Volumes that one process makes and another fills; space that is set aside beforehand."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.daemon import Daemon, wait_until
from tests.kit.tools import (
    MIB,
    ROOT,
    as_nobody,
    assert_active,
    attempt,
    field,
    python,
    run,
    settled,
    some_bytes,
    status,
)
from tests.servers.libvirt import Libvirt, libvirtd

needs_root = pytest.mark.skipif(not ROOT, reason="the mode lets only root write to an image")


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A qcow2 image with data."""
    path = tmp_path / "whole.qcow2"
    (tmp_path / "whole.raw").write_bytes(some_bytes(2 * MIB))
    run("qemu-img", "convert", "-O", "qcow2", tmp_path / "whole.raw", path)
    return path


def _make(volume: Path, size: str = "8M") -> None:
    run("qemu-img", "create", "-q", "-f", volume.suffix.strip("."), volume, size)
    assert settled(volume) == "active"


def _fill(source: Path, volume: Path) -> int:
    return attempt("dd", f"if={source}", f"of={volume}", "conv=notrunc", "status=none").returncode


@needs_root
@pytest.mark.parametrize("name", ["volume.qcow2", "volume.raw"])
def test_another_process_fills_a_blank_volume(folder: Path, tmp_path: Path, name: str) -> None:
    """`qemu-img create` and then dd: the image is what dd wrote, and nobody changes it again."""
    source = tmp_path / f"source.{name.split('.')[1]}"
    (tmp_path / "data").write_bytes(some_bytes(8 * MIB))
    run("qemu-img", "convert", "-O", source.suffix.strip("."), tmp_path / "data", source)
    _make(folder / name)
    assert _fill(source, folder / name) == 0
    wait_until(lambda: status(folder / name) == "active", "it is committed")
    assert_active(folder / name, source.read_bytes())
    assert _fill(source, folder / name) == 1
    assert_active(folder / name, source.read_bytes())


@needs_root
def test_a_blank_volume_can_be_read_before_it_is_filled(folder: Path, whole: Path) -> None:
    """libvirt looks at what it has made; the pages that it read are not served later."""
    _make(folder / "volume.qcow2", "1G")
    before = (folder / "volume.qcow2").read_bytes()
    run("qemu-img", "info", folder / "volume.qcow2")
    run("cp", whole, folder / "volume.qcow2")
    assert_active(folder / "volume.qcow2", whole.read_bytes())
    assert before != whole.read_bytes()


@needs_root
def test_who_reads_it_now_keeps_others_from_filling_it(folder: Path, whole: Path) -> None:
    """What somebody has open does not change."""
    _make(folder / "volume.qcow2")
    with (folder / "volume.qcow2").open("rb"):
        assert _fill(whole, folder / "volume.qcow2") == 1
    assert settled(folder / "volume.qcow2") == "active"


@needs_root
def test_the_copy_of_a_blank_disk_is_no_volume(folder: Path, tmp_path: Path) -> None:
    """What was copied is complete: it never changes."""
    run("qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "blank.qcow2", "8M")
    run("cp", tmp_path / "blank.qcow2", folder)
    assert attempt("sh", "-c", 'echo more >> "$1"', "sh", folder / "blank.qcow2").returncode != 0
    assert_active(folder / "blank.qcow2", (tmp_path / "blank.qcow2").read_bytes())


@needs_root
def test_a_disk_with_data_is_no_volume(folder: Path, tmp_path: Path, whole: Path) -> None:
    """Made in place by qemu-img convert, and full: nobody else writes to it."""
    (tmp_path / "raw").write_bytes(some_bytes(MIB))
    run("qemu-img", "convert", "-O", "qcow2", tmp_path / "raw", folder / "full.qcow2")
    before = (folder / "full.qcow2").read_bytes()
    assert _fill(whole, folder / "full.qcow2") == 1
    assert_active(folder / "full.qcow2", before)


@needs_root
def test_another_user_does_not_fill_it(mount: Daemon, folder: Path) -> None:
    """The rule of every change."""
    _make(folder / "volume.qcow2")
    path = (folder / "volume.qcow2").relative_to(mount.path)
    result = as_nobody("dd", f"of={path}", "conv=notrunc", cwd=mount.path, stdin=b"x")
    assert result.returncode == 1
    assert settled(folder / "volume.qcow2") == "active"


@needs_root
@pytest.mark.mount_says("killed by signal 9")
def test_a_volume_that_is_filled_by_half_is_killed(folder: Path, tmp_path: Path) -> None:
    """It is no blank image any more, and no whole one."""
    _make(folder / "volume.raw")
    attempt("sh", "-c", '{ echo data; kill -9 $$; } 1<> "$1"', "sh", folder / "volume.raw")
    wait_until(lambda: status(folder / "volume.raw") == "killed", "the image is killed")


@pytest.mark.mount_says("space cannot be set aside")
def test_preallocation_is_refused_at_once(folder: Path) -> None:
    """Of 1 TiB too: after a few of its writes.  The reason is kept."""
    result = attempt(
        "qemu-img", "create", "-f", "raw", "-o", "preallocation=falloc", folder / "a", "1T"
    )
    assert result.returncode == 1
    assert b"Could not preallocate" in result.stderr
    wait_until(lambda: status(folder / "a") == "killed", "the image is killed")
    assert "preallocation=off" in field(folder / "a", "message")
    assert attempt("fallocate", "-x", "-l", "1T", folder / "b").returncode == 1
    wait_until(lambda: status(folder / "b") == "killed", "the image is killed")


def test_who_goes_on_without_it_is_served(folder: Path) -> None:
    """libvirt writes zeros instead: EINVAL tells it that posix_fallocate(3) is not supported."""
    script = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
try:
    os.posix_fallocate(fd, 0, 1 << 40)
except OSError as error:
    print(error.errno)
os.pwrite(fd, bytes(1 << 20), 0)
os.close(fd)
"""
    assert int(python(script, folder / "a")) == errno.EINVAL
    assert_active(folder / "a", bytes(MIB))


@pytest.mark.parametrize("option", ["full", "metadata"])
def test_other_preallocation_works(folder: Path, option: str) -> None:
    """It writes what it sets aside."""
    options = ("-f", "qcow2", "-o", f"preallocation={option}")
    run("qemu-img", "create", "-q", *options, folder / "a.qcow2", "16M")
    assert settled(folder / "a.qcow2") == "active"


def test_single_zeros_are_data(folder: Path) -> None:
    """A few bytes of zero here and there, and many side by side, are what they are."""
    script = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
for offset in [*range(0, 8 * 4096, 4096), *range(100)]:
    os.pwrite(fd, b"\\0", offset)
os.close(fd)
"""
    python(script, folder / "a")
    assert_active(folder / "a", bytes(7 * 4096 + 1))


@pytest.fixture(scope="module")
def libvirt(mount: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Libvirt]:
    """A libvirtd that the tests of this module share, and that sees the mount."""
    with libvirtd(tmp_path_factory.mktemp("libvirt")) as found:
        yield found


@needs_root
@pytest.mark.parametrize("kind", ["qcow2", "raw"])
def test_libvirt_makes_a_volume_and_fills_it(
    libvirt: Libvirt, folder: Path, whole: Path, kind: str
) -> None:
    """vol-create-as, for which it runs qemu-img, and vol-upload."""
    pool, volume = folder.name, folder / f"v.{kind}"
    assert libvirt.virsh("pool-define-as", pool, "dir", "--target", folder).returncode == 0
    assert libvirt.virsh("pool-start", pool).returncode == 0
    made = libvirt.virsh("vol-create-as", pool, volume.name, "2M", "--format", kind)
    assert made.returncode == 0, made.stderr
    source = whole if kind == "qcow2" else whole.with_suffix(".raw")
    filled = libvirt.virsh("vol-upload", "--pool", pool, volume.name, source)
    assert filled.returncode == 0, filled.stderr
    wait_until(lambda: os.stat(volume).st_size == source.stat().st_size, "it is filled")
    assert_active(volume, source.read_bytes())
