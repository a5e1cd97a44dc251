"""`imagefs add` takes the disk out of what it is packed in, whole and as it streams by."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator

import pytest
from backports import zstd

from catalog.errors import CatalogError, IncompleteUpload, InvalidImage
from catalog.unpacking import Unpacked
from tests.catalog.actions import some_bytes
from tests.catalog.formats.samples import MIB

DISK = some_bytes(MIB + 17) + bytes(3 * MIB)
CHECKSUM = zstd.CompressionParameter.checksum_flag
"""The command zstd writes one, the library does not by itself."""

PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "zstd": lambda data: zstd.compress(data, options={CHECKSUM: 1}),
    "bzip2": bz2.compress,
}
OVF = b'<?xml version="1.0"?>\n<Envelope><References>%s</References>%s</Envelope>\n'


def ova(
    members: dict[str, bytes], description: bytes | None = None, kind: int = tarfile.USTAR_FORMAT
) -> bytes:
    """An appliance of some files, described as one disk unless said otherwise."""
    files = b"".join(b'<File href="%s"/>' % name.encode() for name in members)
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=kind) as archive:
        described = {"vm.ovf": OVF % (files, b"") if description is None else description}
        for name, data in {**described, **members}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return made.getvalue()


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    """Data in pieces, as a pipe gives it."""
    return (data[at : at + size] for at in range(0, len(data), size))


def disk_in(data: bytes, size: int = 65537) -> tuple[Unpacked, bytes]:
    """What comes out, holes as zeros."""
    packed = Unpacked("image", pieces(data, size))
    found = bytearray()
    for offset, block in packed.blocks():
        found += bytes(offset - len(found)) + block
    assert packed.source_sha256() == hashlib.sha256(data).hexdigest()
    assert packed.taken == len(data)
    return packed, bytes(found)


@pytest.mark.parametrize("size", [1009, 65536, 1 << 24])
@pytest.mark.parametrize("name", PACK)
def test_compressed_data_is_unpacked(name: str, size: int) -> None:
    """In pieces of any size; the digest of what came is kept."""
    packed, found = disk_in(PACK[name](DISK), size)
    assert (packed.layers, found == DISK) == ([name], True)


@pytest.mark.parametrize("name", PACK)
def test_streams_behind_each_other_are_one(name: str) -> None:
    """pigz, pixz and pzstd write so; tapes pad with zeros."""
    _, found = disk_in(PACK[name](DISK) + PACK[name](b"end") + bytes(1024))
    assert found == DISK + b"end"


@pytest.mark.parametrize("name", PACK)
def test_a_cut_is_told(name: str) -> None:
    """However short it is, nothing passes for whole."""
    data = PACK[name](DISK)
    for end in (len(data) - 1, len(data) // 2, 40):
        with pytest.raises(IncompleteUpload, match=r"ends too soon"):
            disk_in(data[:end])


@pytest.mark.parametrize("name", PACK)
def test_damage_is_told(name: str) -> None:
    """A flipped bit ends in one line that says what is damaged, or in a cut."""
    data = bytearray(PACK[name](DISK))
    data[len(data) // 2] ^= 0x10
    with pytest.raises((InvalidImage, IncompleteUpload), match=name):
        disk_in(bytes(data))
    with pytest.raises(InvalidImage, match="something else follows"):
        disk_in(PACK[name](b"disk") + b"something else")


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("name", ["disk.vmdk", "folder/" + "long" * 24 + "/disk.vmdk"])
def test_the_disk_is_taken_out_of_an_ova(name: str, kind: int) -> None:
    """Whatever else is in the archive, and however tar spells its name."""
    packed, found = disk_in(ova({"vm.mf": b"text", name: DISK, "iso.txt": b"x"}, kind=kind))
    assert (packed.layers, packed.disk_name, found == DISK) == (["ova"], name, True)
    assert packed.name("appliance.ova") == "appliance.vmdk"


def test_the_disk_of_the_description_is_taken() -> None:
    """A DVD beside the disk is no disk of the appliance."""
    files = b'<ovf:File ovf:id="f1" ovf:href="cd.iso"/><ovf:File ovf:id="f2" ovf:href="d.img"/>'
    disks = b'<ovf:DiskSection><ovf:Disk ovf:fileRef="f2"/></ovf:DiskSection>'
    text = (OVF % (files, disks)).replace(b"<Envelope>", b'<Envelope xmlns:ovf="urn:x">')
    packed, found = disk_in(ova({"cd.iso": b"cd" * 999, "d.img": DISK}, text))
    assert (packed.disk_name, found == DISK) == ("d.img", True)


def test_an_ova_and_its_disk_may_be_compressed() -> None:
    """One in the other in the other."""
    packed, found = disk_in(lzma.compress(ova({"disk.vmdk.gz": gzip.compress(DISK)})))
    assert (packed.layers, found == DISK) == (["xz", "ova", "gzip"], True)
    assert packed.name("appliance.ova.xz") == "appliance.vmdk"


@pytest.mark.parametrize(
    ("archive", "words"),
    [
        (ova({"a.vmdk": b"1", "b.vmdk": b"2"}), r"2 disks \(a.vmdk, b.vmdk\): take them out"),
        (ova({"a.txt": b"1"}), "no disk"),
        (ova({"a.vmdk": b"1"}, b"<Envelope>"), "description of the appliance is damaged"),
        (ova({}, OVF % (b'<File href="a.vmdk"/>', b"")), "a.vmdk, which is not in the archive"),
        (
            ova({}, b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>'),
            "description of the appliance is damaged",
        ),
        (ova({"a.vmdk": DISK})[: 2 * MIB], "cut off"),
    ],
)
def test_an_ova_that_cannot_be_taken_apart_says_why(archive: bytes, words: str) -> None:
    """One line for each."""
    with pytest.raises(CatalogError, match=words):
        disk_in(archive)


def test_what_is_not_packed_is_left_alone() -> None:
    """A disk is a disk."""
    packed, found = disk_in(DISK)
    assert (packed.layers, found == DISK) == ([], True)
    assert packed.name("backup.gz") == "backup.gz"


@pytest.mark.parametrize("name", PACK)
def test_a_bomb_comes_out_in_small_pieces(name: str) -> None:
    """Memory does not grow with what the data says: whoever reads it may stop."""
    bomb = PACK[name](bytes(64 * MIB))
    largest = max(len(block) for _, block in Unpacked("image", [bomb]).blocks())
    assert largest <= MIB


def test_xz_takes_no_more_memory_than_allowed() -> None:
    """A dictionary of a GiB is for nobody (the .xz file format, 5.3.1)."""
    data = bytearray(lzma.compress(b"x"))
    assert data[14:16] == b"\x21\x01"  # of the block: LZMA2, one byte of properties
    data[16] = 36
    end = 12 + data[12] * 4
    data[end : end + 4] = zlib.crc32(data[12:end]).to_bytes(4, "little")
    with pytest.raises(InvalidImage, match=r"(?i)memory"):
        disk_in(bytes(data))
