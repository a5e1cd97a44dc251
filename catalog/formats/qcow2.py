"""qcow2 (qemu's docs/interop/qcow2.txt): numbers are big-endian."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from catalog.errors import InvalidImage
from catalog.formats import tables
from catalog.formats.content import Content, cut_off

_CORRUPT, _DATA_FILE, _COMPRESSION, _EXTENDED_L2 = 1 << 1, 1 << 2, 1 << 3, 1 << 4
_KNOWN = 0b11111
"""Incompatible features up to extended_l2.  Bit 0 (dirty) only means that refcounts are stale."""
_OFFSET = 0x00FF_FFFF_FFFF_FE00
_COMPRESSED = 1 << 62
_PLACE = _OFFSET | _COMPRESSED
_NAMES_DATA_FILE = 0x44415441
_MAX_L1 = 32 * 1024 * 1024 // 8
_MAX_REFCOUNT_TABLE = 8 * 1024 * 1024
_MAX_SNAPSHOTS = 65536
_MAX_BITMAPS = 65535


@dataclass(frozen=True, slots=True)
class _Header:
    version: int
    backing_offset: int
    cluster_bits: int
    size: int
    crypt_method: int
    l1_size: int
    l1_offset: int
    refcount_offset: int
    refcount_clusters: int
    snapshots: int
    snapshots_offset: int
    incompatible: int
    autoclear: int
    refcount_order: int
    length: int
    compression: int

    @property
    def cluster(self) -> int:
        """Bytes of a cluster."""
        return 1 << self.cluster_bits

    @property
    def entry_size(self) -> int:
        """Bytes of an entry of an L2 table."""
        return 16 if self.incompatible & _EXTENDED_L2 else 8

    @property
    def entries(self) -> int:
        """Entries of one L2 table."""
        return self.cluster // self.entry_size


def examine(content: Content) -> int:
    """The virtual size in bytes.

    Raises InvalidImage if the image is not whole, or needs another file.
    """
    content.stands_alone = _stands_alone(content)
    header = _read_header(content)
    _check_features(header)
    _check_layout(header)
    _check_extensions(content, header)
    _check_refcounts(content, header)
    budget = tables.Budget()
    _check_map(content, header, header.l1_offset, header.l1_size, budget)
    _check_snapshots(content, header, budget)
    return header.size // 512 * 512  # as qemu shows it


def _stands_alone(content: Content) -> bool:
    """Whether its header names no other file.

    If the file ends inside the header, qemu reads zeros behind the end, and so does this.
    """
    head = content.at(0, 96).ljust(96, b"\0")
    version, backing = struct.unpack_from(">IQ", head, 4)
    incompatible, _, autoclear = struct.unpack_from(">QQQ", head, 72)
    if version != 3:
        return version in (1, 2) and not backing
    return not (backing or incompatible & (_DATA_FILE | ~_KNOWN) or autoclear & 2)


def is_blank(content: Content) -> bool:
    """Whether no cluster has data of a guest.  Raises InvalidImage."""
    header = _read_header(content)
    if header.snapshots or header.l1_size > _MAX_L1:
        return False
    return not content.exactly(header.l1_offset, header.l1_size * 8, "the L1 table").strip(b"\0")


def _read_header(content: Content) -> _Header:
    (_, version, backing, _backing_size, bits, size, crypt, l1_size, l1, refcounts, clusters) = (
        content.unpack(">4sIQIIQIIQQI", 0, "the header")
    )
    snapshots, snapshots_offset = content.unpack(">IQ", 60, "the header")
    if version == 1:
        raise InvalidImage(
            "", "it is of version 1, qcow: convert it with qemu-img convert -O qcow2"
        )
    if version not in (2, 3):
        raise InvalidImage("", f"it is of version {version}, and only 2 and 3 are known")
    incompatible, autoclear, order, length, compression = 0, 0, 4, 72, 0
    if version == 3:
        incompatible, _, autoclear, order, length = content.unpack(">QQQII", 72, "the header")
        if length > 104:
            (compression,) = content.unpack(">B", 104, "the header")
    return _Header(
        version, backing, bits, size, crypt, l1_size, l1, refcounts, clusters,
        snapshots, snapshots_offset, incompatible, autoclear, order, length, compression,
    )  # fmt: skip


def _check_features(header: _Header) -> None:
    if header.backing_offset:
        raise InvalidImage(
            "",
            "it has a backing file: make one that stands alone with"
            " qemu-img convert -O qcow2 (or qemu-img rebase -b '')",
        )
    features = header.incompatible
    if features & _DATA_FILE or (header.version == 3 and header.autoclear & 2):
        raise InvalidImage(
            "", "its data lies in another file (data_file): qemu-img convert -O qcow2 joins them"
        )
    if unknown := features & ~_KNOWN:
        raise InvalidImage("", f"it needs features that nobody knows (bits {unknown:#x})")
    if features & _CORRUPT:
        raise InvalidImage("", "it says that it is damaged: repair it with qemu-img check -r all")
    if bool(features & _COMPRESSION) != bool(header.compression) or header.compression > 1:
        raise InvalidImage("", "its kind of compression is not known")
    if header.crypt_method > 2:
        raise InvalidImage("", f"its kind of encryption, {header.crypt_method}, is not known")


def _check_layout(header: _Header) -> None:
    if not 9 <= header.cluster_bits <= 21 or (header.entry_size == 16 and header.cluster_bits < 14):
        raise InvalidImage("", f"clusters of 2^{header.cluster_bits} bytes are not possible")
    if header.refcount_order > 6:
        raise InvalidImage("", f"refcounts of 2^{header.refcount_order} bits are not possible")
    least = 72 if header.version == 2 else 104
    if not least <= header.length <= header.cluster or header.length % 8:
        raise InvalidImage("", f"a header of {header.length} bytes is not possible")
    reach = header.entries * header.cluster
    if header.size > min(_MAX_L1 * reach, 2**63 - 1) or header.l1_size > _MAX_L1:
        raise InvalidImage("", f"a disk of {header.size} bytes is not possible")
    if header.l1_size * reach < header.size:
        raise InvalidImage("", "its tables are too small for the disk: it is damaged")
    for offset in (header.l1_offset, header.refcount_offset, header.snapshots_offset):
        if offset % header.cluster or offset >= 2**62:
            raise InvalidImage("", "its tables do not lie at clusters: it is damaged")
    if not header.refcount_clusters:
        raise InvalidImage("", "it has no table of refcounts: it is damaged")


def _check_extensions(content: Content, header: _Header) -> None:
    """Check that no header extension names a file, and that all they point at is in this file."""
    offset = header.length
    is_missing = header.crypt_method == 2
    while offset + 8 <= header.cluster:
        kind, length = content.unpack(">II", offset, "the header")
        offset += 8
        if length > header.cluster - offset:
            raise InvalidImage("", "its header is damaged: an extension ends behind it")
        if kind == 0:
            break
        if kind == _NAMES_DATA_FILE:
            content.stands_alone = False
            raise InvalidImage("", "its header names a data file")
        if kind == 0x23852875:
            _check_bitmaps(content, header, offset, length)
        if kind == 0x0537BE77:
            _check_encryption(content, header, offset, length)
            is_missing = False
        offset += (length + 7) // 8 * 8
    if is_missing:
        raise InvalidImage("", "its encryption header is missing")


def _check_bitmaps(content: Content, header: _Header, offset: int, length: int) -> None:
    if not header.autoclear & 1:
        return  # the last program that wrote did not know bitmaps, so that nobody reads them
    if length != 24:
        raise InvalidImage("", "its list of bitmaps is damaged")
    count, _, size, at = content.unpack(">IIQQ", offset, "the header")
    if not 0 < count <= _MAX_BITMAPS or at % header.cluster or size > 1024 * _MAX_BITMAPS:
        raise InvalidImage("", "its list of bitmaps is damaged")
    end = at + size
    content.check_inside(at, size, "the list of bitmaps")
    for _ in range(count):
        table, clusters, _flags, kind, bits, name, extra = content.unpack(
            ">QIIBBHI", at, "the list of bitmaps"
        )
        at += (24 + extra + name + 7) // 8 * 8
        if at > end or kind != 1 or bits > 63 or table % header.cluster or name > 1023:
            raise InvalidImage("", "its list of bitmaps is damaged")
        # A cluster of the bitmap has a bit for every `1 << bits` bytes of the disk.
        marked = header.cluster * 8 << bits
        if clusters != -(-(header.size // 512 * 512) // marked):
            raise InvalidImage("", "a bitmap is not of the disk's size")
        content.check_inside(table, clusters * 8, "the table of a bitmap")
    if at != end:
        raise InvalidImage("", "its list of bitmaps is damaged")


def _check_encryption(content: Content, header: _Header, offset: int, length: int) -> None:
    if header.crypt_method != 2 or length != 16:
        raise InvalidImage("", "its encryption header is damaged")
    at, size = content.unpack(">QQ", offset, "the header")
    content.check_inside(at, size, "the encryption header")


def _check_refcounts(content: Content, header: _Header) -> None:
    count = header.refcount_clusters * header.cluster // 8
    if count * 8 > _MAX_REFCOUNT_TABLE:
        raise InvalidImage("", "its table of refcounts is larger than possible")
    what = "the table of refcounts"
    budget = tables.Budget()
    for _, numbers in tables.blocks(content, header.refcount_offset, count, 8, "big", what, budget):
        if last := max(number & ~0x1FF for number in numbers):
            content.check_inside(last, header.cluster, "a block of refcounts")


def _check_snapshots(content: Content, header: _Header, budget: tables.Budget) -> None:
    if header.snapshots > _MAX_SNAPSHOTS:
        raise InvalidImage("", f"{header.snapshots} snapshots are not possible")
    at = header.snapshots_offset
    for _ in range(header.snapshots):
        l1, size, id_length, name_length = content.unpack(">QIHH", at, "the table of snapshots")
        (extra,) = content.unpack(">I", at + 36, "the table of snapshots")
        if size > _MAX_L1 or l1 % header.cluster or extra > 1024:
            raise InvalidImage("", "its table of snapshots is damaged")
        length = 40 + extra + id_length + name_length
        content.check_inside(at, length, "the table of snapshots")
        _check_map(content, header, l1, size, budget)
        at += (length + 7) // 8 * 8


def _check_map(
    content: Content, header: _Header, offset: int, count: int, budget: tables.Budget
) -> None:
    """Check that the file has all L2 tables of an L1 table, and all clusters of these."""
    for at, index in tables.last_first(_tables(content, header, offset, count, budget), content):
        _check_table(content, header, at, index, budget)


def _tables(
    content: Content, header: _Header, offset: int, count: int, budget: tables.Budget
) -> Iterator[tuple[int, int]]:
    """The offset of each L2 table that was not seen before, and its place in the L1 table."""
    for first, numbers in tables.blocks(content, offset, count, 8, "big", "the L1 table", budget):
        for index, number in enumerate(numbers, first):
            at = number & _OFFSET
            if not at:
                continue
            if at % header.cluster:
                raise InvalidImage("", "a table does not lie at a cluster: it is damaged")
            content.check_inside(at, header.cluster, "an L2 table")
            if budget.is_new(at):
                yield at, index


def _check_table(
    content: Content, header: _Header, at: int, index: int, budget: tables.Budget
) -> None:
    count = header.cluster // 8
    step = header.entry_size // 8
    for first, numbers in tables.blocks(content, at, count, 8, "big", "an L2 table", budget):
        entries = numbers[::step] if step > 1 else numbers
        if max(map(_PLACE.__and__, entries)) + header.cluster <= content.size:
            continue  # no cluster is compressed, and none lies behind the end
        guest = (index * header.entries + first // step) * header.cluster
        for number, entry in enumerate(entries):
            _check_entry(content, header, entry, guest + number * header.cluster)


def _check_entry(content: Content, header: _Header, entry: int, guest: int) -> None:
    if entry & _COMPRESSED:
        shift = 62 - (header.cluster_bits - 8)
        offset = entry & ((1 << shift) - 1)
        sectors = (entry & (_COMPRESSED - 1)) >> shift
        # The file may end with the compressed data: up to 511 bytes of its last sector are missing
        # then.
        end = (offset & ~511) + sectors * 512 + 1
    elif offset := entry & _OFFSET:
        # Of the guest's last cluster the file needs only the part that the guest sees.
        end = offset + min(header.cluster, max(header.size - guest, 1))
    else:
        return
    if end > content.size:
        raise cut_off("its data", end, content.size)
