"""The format gate, on images that qemu-img and genisoimage make."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from catalog.errors import InvalidImage
from catalog.formats.gate import Declared, Detected, inspect_file
from catalog.tree.vfs import Vfs
from tests.kit.catalog import begin, image_at, set_fields, staged_files
from tests.kit.images.samples import container, luks1

MIB = 1 << 20
SIZE = 8 * MIB


def inspect(path: Path, declared: str | None) -> Detected:
    """The verdict on a file of which only the disk's format may have been declared."""
    return inspect_file(path, Declared(declared))


def qemu_img(*arguments: str | Path) -> None:
    """Run qemu-img; it must be installed."""
    subprocess.run(["qemu-img", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A raw disk with something in it."""
    path = tmp_path / "disk.raw"
    path.write_bytes(b"\x5a" * MIB + bytes(SIZE - MIB))
    return path


@pytest.mark.parametrize(
    ("made", "options", "detected"),
    [
        ("raw", "", "raw"),
        ("qcow2", "", "qcow2"),
        ("qcow2", "compat=0.10", "qcow2"),
        ("qcow2", "cluster_size=2M,lazy_refcounts=on", "qcow2"),
        ("qcow2", "compression_type=zstd", "qcow2"),
        ("qcow2", "extended_l2=on", "qcow2"),
        ("vmdk", "subformat=monolithicSparse", "vmdk"),
        ("vmdk", "subformat=streamOptimized", "vmdk"),
        ("vdi", "", "vdi"),
        ("vdi", "static=on", "vdi"),
        ("vpc", "", "vhd"),
        # Its only mark is at its end.
        ("vpc", "subformat=fixed", "vhd"),
        ("vhdx", "", "vhdx"),
    ],
)
def test_a_format_is_told_by_its_content(
    disk: Path, tmp_path: Path, made: str, options: str, detected: str
) -> None:
    """Each format qemu-img writes is recognized, with the size the guest sees."""
    path = tmp_path / "image.misleading-name.iso"
    qemu_img("convert", "-f", "raw", "-O", made, *(["-o", options] if options else []), disk, path)
    found = inspect(path, None)
    # A VHD's size is rounded up to a cylinder.
    assert SIZE <= found.virtual_size < SIZE + MIB
    assert found.disk_format == detected


def test_an_iso_is_told_by_its_content(disk: Path, tmp_path: Path) -> None:
    """What genisoimage writes is an iso, as large as its file."""
    path = tmp_path / "image"
    command = ["genisoimage", "-quiet", "-o", path, disk]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    found = inspect(path, None)
    assert (found.disk_format, found.virtual_size) == ("iso", path.stat().st_size)


@pytest.mark.parametrize("content", [b"", b"x", b"\0" * 512, b"QFI", b"\xff" * 70000])
def test_anything_else_is_raw(tmp_path: Path, content: bytes) -> None:
    """Content of no known format is a raw disk of that size."""
    path = tmp_path / "image"
    path.write_bytes(content)
    found = inspect(path, None)
    assert (found.disk_format, found.virtual_size) == ("raw", len(content))


def with_backing_file(disk: Path, path: Path) -> None:
    """A qcow2 overlay."""
    qemu_img("create", "-q", "-f", "qcow2", "-F", "raw", "-b", disk, path)


def with_data_file(disk: Path, path: Path) -> None:
    """A qcow2 whose data lies in another file."""
    option = f"data_file={disk.parent / 'data'},data_file_raw=on"
    qemu_img("create", "-q", "-f", "qcow2", "-o", option, path, "8M")


def with_unknown_feature(disk: Path, path: Path) -> None:
    """A qcow2 with an incompatible feature no program knows."""
    qemu_img("convert", "-O", "qcow2", disk, path)
    with path.open("r+b") as file:
        file.seek(72)
        file.write((1 << 60).to_bytes(8, "big"))


def with_encryption_header_missing(disk: Path, path: Path) -> None:
    """A qcow2 that says it is encrypted by LUKS, and has no header for it: qemu refuses it."""
    qemu_img("convert", "-O", "qcow2", disk, path)
    with path.open("r+b") as file:
        file.seek(32)
        file.write((2).to_bytes(4, "big"))


def with_flat_extents(disk: Path, path: Path) -> None:
    """A VMDK descriptor that names another file."""
    qemu_img("create", "-f", "vmdk", "-o", "subformat=monolithicFlat", path, "8M")


def with_padded_descriptor(disk: Path, path: Path) -> None:
    """The same with zeros behind it, as `qemu-img convert` writes it."""
    qemu_img("convert", "-O", "vmdk", "-o", "subformat=monolithicFlat", disk, path)


def with_split_extents(disk: Path, path: Path) -> None:
    """A VMDK of several files."""
    qemu_img("convert", "-O", "vmdk", "-o", "subformat=twoGbMaxExtentSparse", disk, path)


def with_bare_descriptor(disk: Path, path: Path) -> None:
    """The least qemu takes for a VMDK descriptor."""
    path.write_bytes(b'# x\r\n \nversion=1\nRW 1 FLAT "/etc/shadow" 0\n\xff')


def as_qcow1(disk: Path, path: Path) -> None:
    """The first qcow, which has backing files as well."""
    qemu_img("create", "-f", "qcow", "-F", "raw", "-b", disk, path)


def as_qed(disk: Path, path: Path) -> None:
    """A format nobody maintains."""
    qemu_img("convert", "-O", "qed", disk, path)


@pytest.mark.parametrize(
    "make",
    [
        with_backing_file,
        with_data_file,
        with_unknown_feature,
        with_encryption_header_missing,
        with_flat_extents,
        with_padded_descriptor,
        with_split_extents,
        with_bare_descriptor,
        as_qcow1,
        as_qed,
    ],
)
def test_what_refers_to_other_files_is_refused(
    make: Callable[[Path, Path], None], disk: Path, tmp_path: Path
) -> None:
    """Backing files, data files, unknown features and flat extents never pass."""
    path = tmp_path / "image"
    make(disk, path)
    with pytest.raises(InvalidImage) as caught:
        inspect(path, None)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("made", ["qcow2", "vdi", "raw"])
@pytest.mark.parametrize("declared", ["qcow2", "vdi", "raw", "iso"])
def test_a_declared_format_must_be_the_content_s(
    disk: Path, tmp_path: Path, made: str, declared: str
) -> None:
    """A declaration the content contradicts is refused, above all "raw"."""
    path = tmp_path / "image"
    qemu_img("convert", "-O", made, disk, path)
    if made == declared:
        assert inspect(path, declared).disk_format == made
        return
    with pytest.raises(InvalidImage, match=f"declared {declared}"):
        inspect(path, declared)


@pytest.mark.parametrize("declared", ["ami", "ari", "aki", "raw", "ploop"])
def test_a_name_of_raw_data_is_kept_as_declared(disk: Path, declared: str) -> None:
    """Amazon's formats are raw data by content: what was declared says more."""
    assert inspect(disk, declared).disk_format == declared


@pytest.mark.parametrize(
    "table",
    [
        b"\x80\0\2\0\xee\xff\xff\xff\1\0\0\0\xff\xff\0\0" + b"\x80\0\1\0\x83" + bytes(11),
        bytes(range(64)),
        bytes(64),
    ],
)
def test_any_partition_table_is_the_guest_s(disk: Path, table: bytes) -> None:
    """A hybrid table, boot code where a table would be, none at all: a hypervisor reads none."""
    with disk.open("r+b") as file:
        file.write(bytes(446) + table.ljust(64, b"\0") + b"\x55\xaa")
    assert inspect(disk, None).disk_format == "raw"
    assert inspect(disk, "gpt").disk_format == "gpt"


@pytest.mark.parametrize("first_entry", [b"\x80\0\x02\0\x83", b"\0\0\0\0\0", b"NTLDR"])
def test_a_boot_sector_is_a_raw_disk(disk: Path, first_entry: bytes) -> None:
    """A disk with a partition table, and one that boots without, is raw."""
    with disk.open("r+b") as file:
        file.write(bytes(446) + first_entry.ljust(64, b"\0") + b"\x55\xaa")
    assert inspect(disk, None).disk_format == "raw"
    assert inspect(disk, "raw").disk_format == "raw"


@pytest.mark.stress
def test_luks_is_told_with_its_size(tmp_path: Path) -> None:
    """An encrypted disk's virtual size is without its header (LUKS 1 on-disk format)."""
    found = inspect(luks1(tmp_path), None)
    assert (found.disk_format, found.virtual_size) == ("luks", MIB)


def test_a_gate_that_refuses_kills_the_upload(vfs: Vfs, disk: Path, tmp_path: Path) -> None:
    """The image is killed, its message says why, and nothing stays staged."""
    path = tmp_path / "overlay"
    with_backing_file(disk, path)
    upload = begin(vfs, "/file/a", path.read_bytes())
    with pytest.raises(InvalidImage, match="backing"):
        upload.commit()
    image = image_at(vfs, "/file/a")
    assert image.status == "killed"
    assert "backing" in image.message
    assert staged_files(tmp_path) == []


def test_the_detected_format_is_recorded(vfs: Vfs, disk: Path, tmp_path: Path) -> None:
    """disk_format and virtual_size come from the content, whatever the name says."""
    path = tmp_path / "image"
    qemu_img("convert", "-O", "qcow2", disk, path)
    upload = begin(vfs, "/file/a.iso", path.read_bytes())
    set_fields(vfs, "/file/a.iso", disk_format="qcow2")
    upload.commit()
    image = image_at(vfs, "/file/a.iso")
    assert (image.disk_format, image.virtual_size) == ("qcow2", SIZE)
    info = json.loads(subprocess.check_output(["qemu-img", "info", "--output=json", path]))
    assert info["virtual-size"] == image.virtual_size


def test_what_is_declared_after_the_data_counts(vfs: Vfs, disk: Path) -> None:
    """A format that is set between close and rename is held to the data, and recorded."""
    upload = begin(vfs, "/file/a.part", disk.read_bytes())
    upload.finish()
    set_fields(vfs, "/file/a.part", disk_format="aki")
    upload.commit()
    assert image_at(vfs, "/file/a.part").disk_format == "aki"


def test_vpc_is_a_name_of_vhd(vfs: Vfs, tmp_path: Path) -> None:
    """qemu's name of the format may be declared."""
    upload = begin(vfs, "/file/a", container(tmp_path, "fixed.vhd").read_bytes())
    set_fields(vfs, "/file/a", disk_format="vpc")
    upload.commit()
    image = image_at(vfs, "/file/a")
    assert (image.disk_format, image.virtual_size) == ("vhd", SIZE)
