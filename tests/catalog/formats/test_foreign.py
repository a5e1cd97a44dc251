"""What is no disk is refused by name, with what to do; who knows better is believed."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.kit.images.samples import MIB, SIZE, container, disk, qemu_img, refusal, run, verdict

HIGH = bytes(range(128, 256)) * 256
PAGE = b"<!DOCTYPE html>\n<title>404 Not Found</title>\n<h1>Not Found</h1>\n"


def zipped() -> bytes:
    """A zip archive."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("disk.raw", bytes(MIB))
    return made.getvalue()


def tarred(*names: str) -> bytes:
    """A tar archive of small files."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 600
            archive.addfile(member, io.BytesIO(b"<x/>".ljust(600)))
    return made.getvalue()


FOREIGN = [
    (PAGE * 20, "page"),
    (PAGE, "page"),
    (b"\xef\xbb\xbf" + PAGE, "page"),
    (b"\n  <html>" + PAGE, "page"),
    (("<!DOCTYPE html>\n" + "<p>a line</p>\n" * 60 + "Z\u00fcrich").encode(), "page"),
    (b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>NoSuchKey</Code></Error>', "XML"),
    (b'{"message": "not found", "status": 404}\n', "JSON"),
    (b'[{"name": "' + b"x" * 8000 + b'"}]', "JSON"),
    (b"#!/bin/sh\n" + b"# a line of an installer\n" * 60 + HIGH, "script"),
    (("#cloud-config\n" + "# text\n" * 100 + "gecos: J\u00fcrgen\n").encode(), "cloud-init"),
    (b"a line of text\n" * 50 + b"\xe9\n", "text"),
    (b"-----BEGIN PGP SIGNED MESSAGE-----\n", "signature"),
    (gzip.compress(bytes(MIB)), "gzip-compressed: unpack it, or use 'imagefs add'"),
    (lzma.compress(bytes(MIB)), "xz-compressed: unpack it, or use 'imagefs add'"),
    (bz2.compress(bytes(MIB)), "bzip2-compressed: unpack it, or use 'imagefs add'"),
    (bytes.fromhex("28b52ffd") + HIGH, "zstd-compressed: unpack it, or use 'imagefs add'"),
    (zipped(), "zip archive"),
    (tarred("disk.raw"), "tar archive"),
    (tarred("vm.ovf", "vm.mf", "disk.vmdk"), "OVA"),
    (b"7z\xbc\xaf\x27\x1c\0\4" + HIGH, "7z"),
    (b"%PDF-1.7\n" + HIGH, "PDF"),
    (b"\x7fELF\2\1\1" + bytes(MIB), "program"),
    (bytes(MIB) + b"koly\0\0\0\4".ljust(512, b"\0"), "Apple"),
]


@pytest.mark.parametrize(("content", "word"), FOREIGN)
def test_what_is_no_disk_is_refused(tmp_path: Path, content: bytes, word: str) -> None:
    """Pages, text, archives and compressed images: the words say what it is and what to do."""
    path = tmp_path / "image.qcow2"
    path.write_bytes(content)
    assert word in refusal(path)
    assert "disk_format=raw" in refusal(path)


@pytest.mark.parametrize("declared", ["raw", "ari", "aki", "ami"])
@pytest.mark.parametrize(("content", "word"), FOREIGN)
def test_who_declares_it_raw_is_believed(
    tmp_path: Path, content: bytes, word: str, declared: str
) -> None:
    """A guest may be given anything as a disk, and an initrd is an archive."""
    path = tmp_path / "image.qcow2"
    path.write_bytes(content)
    found = verdict(path, declared)
    assert (found.disk_format, found.virtual_size) == (declared, len(content)), word


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x",
        b"hypervisor-12\n",
        b"half of it",
        b"text" * 100,
        b"x" * MIB,
        b"a line\n" * 20 + bytes(MIB),
        HIGH,
        b"\x1f\x8b" + HIGH,
        b"BZh9" + HIGH,
        b"PK" + HIGH,
        b"<" + HIGH,
        b"MZ\x90\0" + bytes(MIB),
    ],
)
def test_what_may_be_a_disk_is_raw(tmp_path: Path, content: bytes) -> None:
    """Too short for a text that matters, or only like something by chance."""
    path = tmp_path / "image"
    path.write_bytes(content)
    found = verdict(path)
    assert (found.disk_format, found.virtual_size) == ("raw", len(content))


def test_a_fixed_vhd_is_told_by_its_footer(tmp_path: Path) -> None:
    """Its guest does not see the footer; whoever declares it raw sees it."""
    path = container(tmp_path, "fixed.vhd")
    for declared in (None, "vhd"):
        found = verdict(path, declared)
        assert (found.disk_format, found.virtual_size) == ("vhd", SIZE)
    assert verdict(path, "raw").virtual_size == SIZE + 512


def test_parallels_is_told(tmp_path: Path) -> None:
    """Glance's name of such disks is ploop."""
    path = tmp_path / "image"
    qemu_img("convert", "-O", "parallels", disk(tmp_path), path)
    assert "parallels" in refusal(path)
    assert "qemu-img convert" in refusal(path)
    assert "parallels" in refusal(path, "raw")
    found = verdict(path, "ploop")
    assert (found.disk_format, found.virtual_size) == ("ploop", SIZE)


def test_luks2_is_told(tmp_path: Path) -> None:
    """qemu opens only version 1; a guest may unlock the other by itself."""
    path = tmp_path / "image"
    path.write_bytes(bytes(20 * MIB))
    fast = ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")
    run("cryptsetup", "-q", "luksFormat", "--type", "luks2", *fast, path, "-", input_=b"word")
    assert "version 2" in refusal(path)
    assert "version 2" in refusal(path, "luks")
    assert verdict(path, "raw").virtual_size == 20 * MIB


def test_udf_alone_is_an_iso(tmp_path: Path) -> None:
    """A DVD need not have an ISO 9660 volume beside its UDF."""
    path = tmp_path / "image"
    volume = b"\0BEA01\1".ljust(2048, b"\0") + b"\0NSR03\1".ljust(2048, b"\0")
    path.write_bytes(bytes(16 * 2048) + volume + bytes(200_000))
    for declared in (None, "iso"):
        assert verdict(path, declared).disk_format == "iso"
    assert verdict(path, "raw").disk_format == "raw"


def test_an_iso_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    """Its volume descriptor tells how long it is."""
    path = tmp_path / "image"
    run("genisoimage", "-quiet", "-o", path, disk(tmp_path))
    assert verdict(path).disk_format == "iso"
    with path.open("r+b") as file:
        file.truncate(SIZE // 2)
    assert "cut off" in refusal(path)


def test_what_is_packed_on_purpose_is_kept_as_declared(tmp_path: Path) -> None:
    """As Glance has it: an OVA with the format of its disk, a compressed image."""
    path = tmp_path / "image"
    path.write_bytes(tarred("vm.ovf", "disk.vmdk"))
    assert verdict(path, "vmdk", "ova").disk_format == "vmdk"
    path.write_bytes(gzip.compress(bytes(MIB)))
    assert verdict(path, "qcow2", "compressed").disk_format == "qcow2"
    assert "ova" in refusal(path, None, "ova")
    path.write_bytes(HIGH)
    assert "compressed" in refusal(path, None, "compressed")


@pytest.mark.parametrize("packed", ["ova", "docker", "compressed", "aki"])
def test_a_container_format_hides_no_disk_format(tmp_path: Path, packed: str) -> None:
    """What qemu would probe is judged as that, whatever it is said to be packed in."""
    path = tmp_path / "overlay.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-F", "raw", "-b", disk(tmp_path), path)
    assert "backing" in refusal(path, "raw", packed)
