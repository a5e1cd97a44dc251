"""What qemu would probe as a format is that format, or refused, whatever else it looks like."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from catalog.errors import InvalidImage
from catalog.formats import gate
from tests.kit.images.samples import container, refusal, short_overlay, verdict

BOOT_SIGNATURE = (510, b"\x55\xaa")
ISO = (16 * 2048, b"\1CD001\1")
DESCRIPTOR = b'# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="%s"\n%s\n'
FLAT = b'RW 16384 FLAT "secret.raw" 0'


def with_marks(content: bytes, *marks: tuple[int, bytes]) -> bytes:
    """The content with other bytes at some offsets."""
    data = bytearray(content)
    for offset, mark in marks:
        data += bytes(max(0, offset + len(mark) - len(data)))
        data[offset : offset + len(mark)] = mark
    return bytes(data)


def test_an_overlay_that_is_shorter_than_a_sector_is_refused(tmp_path: Path) -> None:
    """qemu reads zeros behind the end of a file: 222 bytes are enough to name any file."""
    path = short_overlay(tmp_path)
    assert path.stat().st_size == 222
    info = subprocess.check_output(["qemu-img", "info", "--output=json", path])
    assert json.loads(info)["backing-filename"] == "/etc/passwd"
    for declared in (None, "raw", "qcow2", "aki"):
        assert "backing" in refusal(path, declared)


@pytest.mark.parametrize("length", [4, 8, 20, 71, 72, 103, 104, 511, 512, 600, 65535])
@pytest.mark.parametrize("name", ["qcow2", "sparse.vmdk", "vhdx", "vdi", "dynamic.vhd"])
def test_a_beginning_is_no_raw_disk(tmp_path: Path, name: str, length: int) -> None:
    """However short a file is: once its magic number is there, it is of that format."""
    path = container(tmp_path, name)
    with path.open("r+b") as file:
        file.truncate(length)
    if name == "vdi" and length <= 64:
        assert verdict(path).disk_format == "raw"  # its magic number is at byte 64
    elif name in ("vhdx", "dynamic.vhd") and length < 8:
        assert verdict(path).disk_format == "raw"
    else:
        refusal(path)
        refusal(path, "raw")


@pytest.mark.parametrize("marks", [(), (BOOT_SIGNATURE,), (ISO,), (BOOT_SIGNATURE, ISO)])
@pytest.mark.parametrize("kind", [b"monolithicFlat", b"monolithicSparse", b"custom", b""])
def test_a_vmdk_descriptor_is_refused_whatever_follows(
    tmp_path: Path, kind: bytes, marks: tuple[tuple[int, bytes], ...]
) -> None:
    """qemu looks for a descriptor first: a boot sector or an ISO 9660 volume hides none."""
    path = tmp_path / "image"
    path.write_bytes(with_marks(DESCRIPTOR % (kind, FLAT), *marks))
    for declared in (None, "raw", "iso", "vmdk"):
        refusal(path, declared)


@pytest.mark.parametrize(
    "text",
    [
        b"version=1\n",
        b"version=3\r\n" + FLAT,
        b" \n#x\n   \r\nversion=2\n",
        b"#" * 400 + b"\nversion=1\n",
        b"# Disk DescriptorFile\nVERSION = 1\n" + FLAT,
        b'x=1\ncreateTYPE="monolithicFlat"\n' + FLAT,
    ],
)
def test_the_least_of_a_descriptor_is_one(tmp_path: Path, text: bytes) -> None:
    """What qemu, VMware or Glance reads as a descriptor is no raw disk."""
    path = tmp_path / "image"
    path.write_bytes(text + bytes(4096))
    refusal(path)
    refusal(path, "raw")


@pytest.mark.parametrize("mark", [BOOT_SIGNATURE, ISO, (64, b"\x7f\x10\xda\xbe")])
@pytest.mark.parametrize("name", ["qcow2", "sparse.vmdk"])
def test_two_formats_at_once_are_refused(
    tmp_path: Path, name: str, mark: tuple[int, bytes]
) -> None:
    """What programs would read differently is nothing for anybody."""
    path = container(tmp_path, name)
    path.write_bytes(with_marks(path.read_bytes(), mark))
    assert "several formats at once" in refusal(path)


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"QED\0", "qed"),
        (b"Bochs Virtual HD Image\0", "bochs"),
        (b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0", "cloop"),
        (b"COWD\1\0\0\0", "vmdk"),
    ],
)
def test_a_format_of_no_use_is_refused_by_name(tmp_path: Path, head: bytes, name: str) -> None:
    """qemu probes more formats than a catalog needs."""
    path = tmp_path / "image"
    path.write_bytes(head.ljust(1 << 20, b"\0"))
    assert name in refusal(path)
    assert name in refusal(path, "raw")


def test_a_mistake_of_the_gate_lets_nothing_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever an inspector raises ends in a verdict."""

    def fail(_content: object) -> int:
        raise AttributeError("a mistake")

    monkeypatch.setitem(gate._EXAMINE, "vdi", fail)
    path = container(tmp_path, "vdi")
    with pytest.raises(InvalidImage, match="cannot be judged"):
        verdict(path)
