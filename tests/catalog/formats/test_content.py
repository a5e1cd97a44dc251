"""What a header or a table points at lies in the file: a cut image is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalog.formats.content import opened
from catalog.formats.gate import Declared, Detected, Refused, judge
from tests.kit.images.samples import (
    CONTAINERS,
    SIZE,
    container,
    disk,
    luks1,
    qemu_img,
    refusal,
    verdict,
)


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_passes_whole(tmp_path: Path, name: str) -> None:
    """Each that qemu-img writes is recorded as what it is, with the size the guest sees."""
    found = verdict(container(tmp_path, name))
    assert (found.disk_format, found.virtual_size) == (CONTAINERS[name][2], SIZE)


@pytest.mark.parametrize("left", [0.98, 2 / 3, 0.1])
@pytest.mark.parametrize("name", sorted(set(CONTAINERS) - {"fixed.vhd"}))
def test_a_cut_container_is_refused(tmp_path: Path, name: str, left: float) -> None:
    """A download that stopped, wherever it stopped."""
    path = container(tmp_path, name)
    with path.open("r+b") as file:
        file.truncate(int(path.stat().st_size * left))
    refusal(path)


def test_a_fixed_vhd_without_its_beginning_is_refused(tmp_path: Path) -> None:
    """Its footer tells how much should be there."""
    path = container(tmp_path, "fixed.vhd")
    path.write_bytes(path.read_bytes()[1024:])
    assert "cut off" in refusal(path)


def test_a_qcow2_cut_in_its_snapshot_is_refused(tmp_path: Path) -> None:
    """What only a snapshot has is in the file too."""
    path = container(tmp_path, "qcow2")
    qemu_img("snapshot", "-c", "one", path)
    assert verdict(path).disk_format == "qcow2"
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 8)
    assert "snapshots" in refusal(path)


def test_a_qcow2_with_bitmaps_passes(tmp_path: Path) -> None:
    """Bitmaps of backup programs are harmless."""
    path = container(tmp_path, "qcow2")
    qemu_img("bitmap", "--add", path, "backup")
    assert verdict(path).disk_format == "qcow2"


CUTS = (12, 14, 60, 80, 100, 109, 300, 600, 70_000)
"""Behind the magic, in the offset of the backing file, further on in the header, behind it."""


def _judged(path: Path, length: int) -> Refused | Detected:
    data = path.read_bytes()
    assert length < len(data)
    cut = path.with_suffix(".cut")
    cut.write_bytes(data[:length])
    with opened(cut) as source:
        return judge(source, Declared())


@pytest.mark.parametrize("length", CUTS)
def test_a_cut_qcow2_is_known_to_stand_alone(tmp_path: Path, length: int) -> None:
    """Wherever it ends, bitmaps or not: it is of no use, and of no harm."""
    path = container(tmp_path, "qcow2")
    qemu_img("bitmap", "--add", path, "backup")
    found = _judged(path, length)
    assert isinstance(found, Refused)
    assert (found.stands_alone, "cut off" in found.reason) == (True, True), found.reason


@pytest.mark.parametrize("length", CUTS[2:])
def test_a_cut_qcow2_with_another_file_does_not_stand_alone(tmp_path: Path, length: int) -> None:
    """As long as what is left of its header tells of one."""
    overlay, split = tmp_path / "overlay", tmp_path / "split"
    qemu_img("create", "-q", "-f", "qcow2", "-F", "raw", "-b", disk(tmp_path), overlay)
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={tmp_path}/data", split, "16M")
    for path in (overlay, split) if length >= 80 else (overlay,):
        found = _judged(path, length)
        assert isinstance(found, Refused)
        assert not found.stands_alone, found.reason


def test_a_last_cluster_may_end_with_the_disk(tmp_path: Path) -> None:
    """Of the guest's last cluster the file need not have what no guest sees."""
    raw = tmp_path / "odd.raw"
    raw.write_bytes(b"\x5a" * (SIZE - 512))
    path = tmp_path / "odd.qcow2"
    qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 512)
    assert verdict(path).virtual_size == SIZE - 512
    qemu_img("compare", "-f", "raw", "-F", "qcow2", raw, path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 512)
    assert "cut off" in refusal(path)


@pytest.mark.stress
def test_a_luks_disk_without_its_data_is_refused(tmp_path: Path) -> None:
    """The header tells where the data begins."""
    path = luks1(tmp_path)
    with path.open("r+b") as file:
        file.truncate(1 << 20)
    assert "cut off" in refusal(path)


@pytest.mark.parametrize(
    ("name", "offset", "size"),
    [("qcow2", 24, 2**64 - 1), ("qcow2", 24, 2**63), ("qcow2", 24, 2**62)],
)
def test_an_impossible_size_is_refused(tmp_path: Path, name: str, offset: int, size: int) -> None:
    """A virtual size that no disk has ends in a verdict."""
    path = container(tmp_path, name)
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(size.to_bytes(8, "big"))
    assert "not possible" in refusal(path)


def test_a_qcow2_that_says_it_is_damaged_is_refused(tmp_path: Path) -> None:
    """qemu sets that mark when it finds tables that overlap; the words say what to do."""
    path = container(tmp_path, "qcow2")
    with path.open("r+b") as file:
        file.seek(79)
        file.write(b"\2")
    assert "qemu-img check" in refusal(path)


def test_tables_that_name_each_other_often_cost_little(tmp_path: Path) -> None:
    """A first table of 2^20 entries that name one table is looked into once."""
    path = container(tmp_path, "small.qcow2")
    data = bytearray(path.read_bytes())
    l1 = int.from_bytes(data[40:48], "big")
    entry = bytes(data[l1 : l1 + 8])
    end = len(data) + -len(data) % 4096
    data += bytes(end - len(data)) + entry * (1 << 20)
    data[36:40] = (1 << 20).to_bytes(4, "big")
    data[40:48] = end.to_bytes(8, "big")
    path.write_bytes(data)
    assert verdict(path).virtual_size == SIZE
