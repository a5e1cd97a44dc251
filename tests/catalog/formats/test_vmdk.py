"""VMDK: the file itself and no other, however its descriptor is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit.images.samples import MIB, SIZE, container, footed_vmdk, qemu_img, refusal, verdict


def described(path: Path, change: tuple[bytes, bytes]) -> Path:
    """A sparse VMDK with another text in its descriptor of 20 sectors."""
    data = path.read_bytes()
    text = data[512 : data.index(0, 512)]
    assert change[0] in text
    text = text.replace(change[0], change[1])
    path.write_bytes(data[:512] + text.ljust(20 * 512, b"\0") + data[21 * 512 :])
    return path


def extent(path: Path) -> bytes:
    """The line of the descriptor that names the data."""
    data = path.read_bytes()
    lines = data[512 : data.index(0, 512)].split(b"\n")
    return next(line for line in lines if line.startswith(b"RW "))


@pytest.mark.parametrize(
    "line",
    [
        'RW 16384 SPARSE "B\u00fcro Server.vmdk"'.encode(),
        'RW 16384 SPARSE "B\u00fcro.vmdk"'.encode("cp1252"),
        'RW 16384 SPARSE "\u78c1\u76d8.vmdk"'.encode("gbk"),
        b'RW 16384 SPARSE "vm/disk.vmdk"',
        b'RW\t16384\tSPARSE\t"disk.vmdk"',
        b'rw 16384 sparse "disk.vmdk" 0',
    ],
)
def test_the_name_of_the_image_itself_may_be_any(tmp_path: Path, line: bytes) -> None:
    """qemu does not look at the name in a sparse image: it is its own."""
    path = container(tmp_path, "sparse.vmdk")
    described(path, (extent(path), line))
    assert (verdict(path).disk_format, verdict(path).virtual_size) == ("vmdk", SIZE)
    qemu_img("compare", path, tmp_path / "disk.raw")


@pytest.mark.parametrize(
    "change",
    [
        (b"parentCID=ffffffff", b"parentCID=12345678"),
        (b"parentCID=ffffffff", b'parentCID=ffffffff\nparentFileNameHint="/etc/passwd"'),
        (b"parentCID=ffffffff", b'parentCID=ffffffff\nPARENTFILENAMEHINT="/etc/passwd"'),
        (b"parentCID=ffffffff", b'parentCID=ffffffff\n#parentFileNameHint="/etc/passwd"'),
        (b"parentCID=ffffffff", b'parentCID=ffffffff\nchangeTrackPath="other-ctk.vmdk"'),
        (b"monolithicSparse", b"monolithicFlat"),
        (b"monolithicSparse", b"vmfs"),
        (b"createType=", b'createTYPE="monolithicFlat"\ncreateType='),
        (b"createType=", b'CreateType = "monolithicFlat"\ncreateType='),
        (b"createType=", b'x=1\rcreateType="monolithicFlat"\rcreateType='),
        (b"RW 16384 SPARSE", b'RW 16384 FLAT "x.raw" 0\nRW 16384 SPARSE'),
        (b"RW 16384 SPARSE", b"RW 16384 FLAT"),
        (b"RW 16384 SPARSE", b'rdonly 16384 flat "x.raw" 0\nRW 16384 SPARSE'),
        (b"RW 16384 SPARSE", b'RW 1 SPARSE "x.vmdk"\nRW 16384 SPARSE'),
        (b"# Disk", b"# Di\0k"),
        (b"CID=", b"Cid="),
        (b"RW 16384 SPARSE", b"some words\nRW 16384 SPARSE"),
    ],
)
def test_a_descriptor_that_names_another_file_is_refused(
    tmp_path: Path, change: tuple[bytes, bytes]
) -> None:
    """In whatever case, order or comment: to some program it names a file."""
    path = described(container(tmp_path, "sparse.vmdk"), change)
    refusal(path)
    refusal(path, "vmdk")


@pytest.mark.parametrize("at", [40, 5000])
def test_a_parent_behind_the_descriptor_s_end_is_found(tmp_path: Path, at: int) -> None:
    """What is behind a NUL, or behind the descriptor's size, is read by one program or another."""
    path = container(tmp_path, "sparse.vmdk")
    data = bytearray(path.read_bytes())
    end = data.index(0, 512)
    data[end + at : end + at + 32] = b'\nparentFileNameHint="/etc/passwd'
    data[36:44] = (2).to_bytes(8, "little")
    path.write_bytes(data)
    assert "parent" in refusal(path)


def test_what_qemu_img_makes_of_a_parent_is_refused(tmp_path: Path) -> None:
    """A child as everybody can make one."""
    parent = container(tmp_path, "sparse.vmdk")
    child = tmp_path / "child.vmdk"
    qemu_img("create", "-q", "-f", "vmdk", "-b", parent, "-F", "vmdk", child)
    assert "parent" in refusal(child)


def test_a_sparse_header_without_capacity_is_a_descriptor(tmp_path: Path) -> None:
    """qemu then opens the flat files that the embedded text names."""
    path = container(tmp_path, "sparse.vmdk")
    data = bytearray(path.read_bytes())
    data[12:20] = bytes(8)
    path.write_bytes(data)
    assert "other files" in refusal(path)


def test_a_part_of_a_split_disk_is_refused_as_such(tmp_path: Path) -> None:
    """It is no disk, although it begins as one."""
    source = container(tmp_path, "sparse.vmdk")
    path = tmp_path / "split.vmdk"
    qemu_img("convert", "-O", "vmdk", "-o", "subformat=twoGbMaxExtentSparse", source, path)
    assert "split" in refusal(tmp_path / "split-s001.vmdk")
    assert "names the files" in refusal(path)


def test_a_stream_with_a_footer_is_read_by_it(tmp_path: Path) -> None:
    """VMware's exports tell only at their end where the tables are."""
    path = footed_vmdk(tmp_path)
    assert (verdict(path).disk_format, verdict(path).virtual_size) == ("vmdk", SIZE)
    qemu_img("compare", path, tmp_path / "disk.raw")


@pytest.mark.parametrize("cut", [1, 512, 1024, 1536, MIB])
def test_a_stream_without_its_footer_was_cut_off(tmp_path: Path, cut: int) -> None:
    """A download that stopped is no image."""
    path = footed_vmdk(tmp_path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - cut)
    assert "cut off" in refusal(path)
