"""`imagefs add` takes the disk out of what it is packed in, whole and as it streams by."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator

import pytest

from catalog.errors import CatalogError, DigestMismatch, IncompleteUpload, InvalidImage
from catalog.uploads.packed.unpacking import Unpacked
from tests.kit.catalog import some_bytes
from tests.kit.images.packed import OVF, PACK, ova
from tests.kit.images.samples import MIB

DISK = some_bytes(MIB + 17) + bytes(3 * MIB)


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
    packed, found = disk_in(PACK["xz"](ova({"disk.vmdk.gz": PACK["gzip"](DISK)})))
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


DESCRIPTION = OVF % (b'<File href="d.img"/>', b"")


def manifest(algorithm: str = "SHA256", form: str = "{}({})= {}\n", **wrong: str) -> bytes:
    """A manifest of DISK and its description; `wrong` are digests that are not theirs."""
    algo = algorithm.lower().replace("sha2-", "sha").replace("-", "")
    lines = []
    for name, data in (("vm.ovf", DESCRIPTION), ("d.img", DISK)):
        digest = wrong.get(name[0], hashlib.new(algo, data).hexdigest())
        lines.append(form.format(algorithm, name, digest))
    return "".join(lines).encode()


def described(text: bytes, disk: bytes = DISK, *, is_last: bool = False) -> bytes:
    """An appliance with that manifest, behind its description or at the end."""
    members = {"d.img": disk, "vm.mf": text} if is_last else {"vm.mf": text, "d.img": disk}
    return ova(members, DESCRIPTION)


@pytest.mark.parametrize("is_last", [False, True])
@pytest.mark.parametrize(
    ("algorithm", "form"),
    [
        ("SHA1", "{} ({}) = {}\r\n"),
        ("SHA256", "{}({})= {}\n"),
        ("SHA2-256", "{}(./{})={}\n\n"),
        ("SHA512", "{}({})= {}\n"),
    ],
)
def test_an_appliance_is_as_its_manifest_says(algorithm: str, form: str, is_last: bool) -> None:
    """In each spelling that is met: all right, or the disk or the description is another one."""
    packed, found = disk_in(described(manifest(algorithm, form), is_last=is_last))
    assert (packed.notes, found == DISK) == ([], True)
    for name, wrong in (("d.img", {"d": "00" * 32}), ("vm.ovf", {"v": "00" * 32})):
        archive = described(manifest(algorithm, form, **wrong), is_last=is_last)
        with pytest.raises(DigestMismatch, match=f"of {name} is .* vm.mf says 0+: .* get it again"):
            disk_in(archive)


def test_a_changed_disk_is_told_by_the_manifest() -> None:
    """One bit; a wrong description is told before the disk was carried."""
    changed = bytes([DISK[0] ^ 1]) + DISK[1:]
    for is_last in (False, True):
        with pytest.raises(DigestMismatch, match=r"of d\.img"):
            disk_in(described(manifest(), changed, is_last=is_last))
    with pytest.raises(DigestMismatch, match=r"of vm\.ovf"):
        disk_in(described(manifest(v="0"))[: 8 * 512])


def test_a_manifest_is_of_the_disk_as_it_lies_in_the_archive() -> None:
    """Compressed, if it is."""
    disk = gzip.compress(DISK)
    text = manifest(d=hashlib.sha256(disk).hexdigest())
    for is_last in (False, True):
        packed, found = disk_in(described(text, disk, is_last=is_last))
        assert (packed.layers, packed.notes, found == DISK) == (["ova", "gzip"], [], True)
        with pytest.raises(DigestMismatch, match=r"of d\.img"):
            disk_in(described(manifest(), disk, is_last=is_last))


@pytest.mark.parametrize("is_last", [False, True])
@pytest.mark.parametrize(
    ("text", "notes"),
    [
        (b"", {"d.img": "does not name it", "vm.ovf": "does not name it"}),
        (manifest("MD5"), {"d.img": "has only its MD5", "vm.ovf": "has only its MD5"}),
        (manifest().splitlines()[0], {"d.img": "does not name it"}),
        (manifest().splitlines()[1], {"vm.ovf": "does not name it"}),
        (manifest("MD5") + manifest("SHA512") + manifest("SHA1") + manifest("SHA1"), {}),
        (b"\xef\xbb\xbf" + manifest() + b"SHA1(\xff\xfe)= 00\nSHA1(../../d.img)= 00\n", {}),
        (manifest() + b"SHA1(" + b")= f" * 99999 + b"\n" + b"\0" * 99, {}),
        (b"SHA1(../d.img)= 00\nSHA1(/vm.ovf)= 00\nd.img\n", dict.fromkeys(["d.img", "vm.ovf"], "")),
    ],
)
def test_what_a_manifest_leaves_out_is_told(
    text: bytes, notes: dict[str, str], is_last: bool
) -> None:
    """It is no failure, as with ovftool; whatever else is written there means nothing."""
    packed, found = disk_in(described(text, is_last=is_last))
    assert found == DISK
    assert len(packed.notes) == len(notes)
    for name, words in notes.items():
        assert any(f"{name} was not compared: vm.mf {words}" in note for note in packed.notes)


def test_manifests_that_cannot_be_right() -> None:
    """Two digests of one file, two manifests, one that is larger than any: refused in one line."""
    with pytest.raises(DigestMismatch, match=r"vm\.mf has two digests of d\.img"):
        disk_in(described(manifest() + manifest(d="00")))
    with pytest.raises(InvalidImage, match=r"two manifests \(a\.mf, vm\.MF\): take the disk out"):
        disk_in(ova({"a.mf": b"", "d.img": DISK, "vm.MF": manifest()}, DESCRIPTION))
    with pytest.raises(InvalidImage, match="too large for a manifest: take the disk out"):
        disk_in(described(manifest() + bytes(2 * MIB)))
    with pytest.raises(IncompleteUpload, match=r"within vm\.mf: it was cut off"):
        disk_in(described(manifest())[: 3 * 512 + 9])


@pytest.mark.parametrize("name", PACK)
def test_what_is_behind_the_disk_is_read(name: str) -> None:
    """A compressed appliance has its checksum at the end: damage and cuts are told all the same."""
    archive = ova({"d.img": DISK, "nvram": some_bytes(MIB, seed=2)})
    packed = PACK[name](archive)
    for end in (-1, -4, -len(packed) // 4):
        with pytest.raises((InvalidImage, IncompleteUpload), match=name):
            disk_in(packed[:end])
    with pytest.raises((InvalidImage, IncompleteUpload)):
        disk_in(packed[:-3] + bytes([packed[-3] ^ 1]) + packed[-2:])
    with pytest.raises(IncompleteUpload, match="cut off"):
        disk_in(archive[: -MIB // 2])


def test_damage_that_only_the_checksum_tells() -> None:
    """What is not compressed inside gzip comes out whatever it is."""
    packed = bytearray(gzip.compress(ova({"d.img": some_bytes(MIB)}), compresslevel=0))
    packed[MIB // 2] ^= 1
    with pytest.raises(InvalidImage, match="gzip data is damaged"):
        disk_in(bytes(packed))


def hostile(change: Callable[[tarfile.TarInfo], None], extra: bytes = b"") -> bytes:
    """An appliance whose disk's header was changed."""
    made, member = io.BytesIO(), tarfile.TarInfo("d.img")
    member.size = len(DISK)
    change(member)
    made.write(ova({}, OVF % (b'<File href="d.img"/>', b""))[: 2 * 512])
    made.write(member.tobuf(tarfile.GNU_FORMAT) + extra + DISK + bytes(-len(DISK) % 512 + 1024))
    return made.getvalue()


def _numbered(size: bytes) -> Callable[[bytes], bytes]:
    """Changes the size of the third header, and its checksum."""

    def change(archive: bytes) -> bytes:
        header = bytearray(archive[1024:1536])
        header[124:136], header[148:156] = size, b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        return archive[:1024] + bytes(header) + archive[1536:]

    return change


@pytest.mark.parametrize(
    "size",
    [
        b"-0000000010\0",
        b"0o000000010\0",
        b"0_000000010\0",
        b"\x80" + b"\xff" * 11,
        b"\xff" * 12,
        b"\xb9\xb2".ljust(12, b"\0"),
    ],
)
def test_a_size_that_is_none(size: bytes) -> None:
    """Negative, not octal, more than a file can have: refused at once."""
    archive = hostile(lambda _member: None)
    assert disk_in(_numbered(b"%011o\0" % len(DISK))(archive))[1] == DISK
    with pytest.raises(InvalidImage, match="a size is no number"):
        disk_in(_numbered(size)(archive))


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE])
@pytest.mark.parametrize("target", ["/etc/shadow", "vm.ovf"])
def test_a_disk_that_is_a_link(kind: bytes, target: str) -> None:
    """It is no file of the archive, and nothing of this host is read."""

    def change(member: tarfile.TarInfo) -> None:
        member.type, member.linkname, member.size = kind, target, 0

    with pytest.raises(InvalidImage):
        disk_in(hostile(change))


def test_sparse_members_are_refused() -> None:
    """Of the old kind and of that of pax: what is in the archive is not what the disk is."""

    def change(member: tarfile.TarInfo) -> None:
        member.type = tarfile.GNUTYPE_SPARSE

    with pytest.raises(InvalidImage, match="sparse files: take the disk out"):
        disk_in(hostile(change))
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("vm.ovf", "d.img"):
            member = tarfile.TarInfo(name)
            data = OVF % (b'<File href="d.img"/>', b"") if name == "vm.ovf" else DISK
            member.size = len(data)
            if data is DISK:
                member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.name": name}
            archive.addfile(member, io.BytesIO(data))
    with pytest.raises(InvalidImage, match="sparse files: take the disk out"):
        disk_in(made.getvalue())


def test_two_files_of_one_name() -> None:
    """tar would unpack the last one, others the first one: nobody knows which is meant."""
    one, end = ova({"d.img": DISK}), 2 * 512
    archive = one[: -len(one) % 10240 or None]
    disk = archive[end : end + 512 + len(DISK) + -len(DISK) % 512]
    with pytest.raises(InvalidImage, match=r"two files d\.img"):
        disk_in(archive[:end] + disk + disk + bytes(1024))


def test_a_size_beyond_ustar() -> None:
    """pax tells sizes of 8 GiB and more in a header of their own, in decimal digits."""
    made, member = io.BytesIO(), tarfile.TarInfo("d.img")
    made.write(ova({}, OVF % (b'<File href="d.img"/>', b""))[: 2 * 512])
    member.pax_headers = {"size": str(len(DISK))}
    made.write(member.tobuf(tarfile.PAX_FORMAT) + DISK + bytes(-len(DISK) % 512 + 1024))
    assert disk_in(made.getvalue())[1] == DISK


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/../../b.img"])
def test_a_name_leads_nowhere(name: str) -> None:
    """It is compared and never opened."""
    packed, found = disk_in(
        ova(
            {name: DISK},
            OVF
            % (b'<File href="%s"/><x/>' % name.encode(), b"<Disk fileRef='%s'/>" % name.encode()),
        )
    )
    assert found == DISK
    assert "/" not in packed.name("appliance.ova")


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
