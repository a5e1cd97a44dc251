"""VHDX (MS-VHDX): numbers are little-endian, identifiers are GUIDs in Microsoft's order."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from uuid import UUID

from catalog.errors import InvalidImage
from catalog.formats import tables
from catalog.formats.content import Content

_MIB = 1 << 20
_HEADERS = (64 * 1024, 128 * 1024)
_REGIONS = 192 * 1024
_REQUIRED_REGION, _REQUIRED_ITEM = 1, 4
_BAT = UUID("2dc27766-f623-4200-9d64-115e9bfd4a08").bytes_le
_METADATA = UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e").bytes_le
_PARAMETERS = UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b").bytes_le
_SIZE = UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8").bytes_le
_PAGE83 = UUID("beca12ab-b2e6-4523-93ef-c309e000c746").bytes_le
_LOGICAL = UUID("8141bf1d-a96f-4709-ba47-f233a8faab5f").bytes_le
_PHYSICAL = UUID("cda348c7-445d-4471-9cc9-e9885251c556").bytes_le
_PARENT = UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c").bytes_le
_NEEDED = (_PARAMETERS, _SIZE, _PAGE83, _LOGICAL, _PHYSICAL)
_HAS_PARENT = 2
_CHUNK = 1 << 23
"""Sectors under one bitmap block."""
_FULLY, _PARTIALLY = 6, 7
_MAX_SIZE = 64 << 40


@dataclass(frozen=True, slots=True)
class _Region:
    start: int
    length: int

    def overlaps(self, start: int, length: int) -> bool:
        """Whether both have a byte in common."""
        return start < self.start + self.length and self.start < start + length


def examine(content: Content) -> int:
    """The virtual size in bytes.

    Raises InvalidImage if the image is not whole, or needs another file.
    """
    log = _read_headers(content)
    bat, metadata = _read_regions(content, log)
    items = _read_metadata(content, metadata)
    block, flags = struct.unpack("<II", _item(content, metadata, items[_PARAMETERS], 8))
    if flags & _HAS_PARENT or _PARENT in items:
        raise InvalidImage(
            "", "it has a parent, which is another file: merge it with its parent first"
        )
    (size,) = struct.unpack("<Q", _item(content, metadata, items[_SIZE], 8))
    (sector,) = struct.unpack("<I", _item(content, metadata, items[_LOGICAL], 4))
    if sector not in (512, 4096) or size % sector or size > _MAX_SIZE:
        raise InvalidImage("", f"a disk of {size} bytes in sectors of {sector} is not possible")
    if not _MIB <= block <= 256 * _MIB or block & (block - 1):
        raise InvalidImage("", f"blocks of {block} bytes are not possible")
    _check_blocks(content, bat, size, block, sector, (log, bat, metadata))
    return int(size)


def _read_headers(content: Content) -> _Region:
    """The place of the log, by the current header."""
    headers = []
    for offset in _HEADERS:
        data = content.exactly(offset, 4096, "the header")
        version = int.from_bytes(data[66:68], "little")
        if data[:4] == b"head" and version == 1 and _is_sound(data):
            headers.append(data)
    if not headers:
        raise InvalidImage("", "both of its headers are damaged")
    newest = max(headers, key=_sequence)
    if len({data[:4096] for data in headers if _sequence(data) == _sequence(newest)}) > 1:
        raise InvalidImage("", "its headers contradict each other")
    if any(newest[48:64]):
        raise InvalidImage(
            "",
            "it was not closed: its log has changes that are not in the disk yet;"
            " write them with qemu-img check -r all",
        )
    length, start = struct.unpack_from("<IQ", newest, 68)
    return _Region(start, length)


def _sequence(header: bytes) -> int:
    return int.from_bytes(header[8:16], "little")


def _read_regions(content: Content, log: _Region) -> tuple[_Region, _Region]:
    """The table of blocks and the metadata."""
    data = content.exactly(_REGIONS, 64 * 1024, "the table of regions")
    count = int.from_bytes(data[8:12], "little")
    if data[:4] != b"regi" or count > 2047 or not _is_sound(data):
        raise InvalidImage("", "its table of regions is damaged")
    taken, found = [log], {}
    for number in range(count):
        name, start, length, flags = struct.unpack_from("<16sQII", data, 16 + 32 * number)
        if name in found or any(each.overlaps(start, length) for each in taken):
            raise InvalidImage("", "its regions contradict each other")
        region = _Region(start, length)
        taken.append(region)
        if name in (_BAT, _METADATA):
            found[name] = region
            content.check_inside(start, length, "a region")
        elif flags & _REQUIRED_REGION:
            raise InvalidImage("", "it needs a region that nobody knows")
    if len(found) != 2:
        raise InvalidImage("", "its table of blocks or its metadata is missing")
    return found[_BAT], found[_METADATA]


def _read_metadata(content: Content, region: _Region) -> dict[bytes, int]:
    """The offset of each item from the region's start."""
    what = "the metadata"
    signature, _, count = content.unpack("<8sHH", region.start, what)
    if signature != b"metadata" or count > 2047:
        raise InvalidImage("", "its metadata is damaged")
    items: dict[bytes, int] = {}
    for number in range(count):
        name, offset, _, flags = content.unpack("<16sIII", region.start + 32 * (number + 1), what)
        if name in items:
            raise InvalidImage("", "its metadata contradicts itself")
        if flags & _REQUIRED_ITEM and name not in (*_NEEDED, _PARENT):
            raise InvalidImage("", "it needs metadata that nobody knows")
        items[name] = offset
    if any(name not in items for name in _NEEDED):
        raise InvalidImage("", "some of its metadata is missing")
    return items


def _item(content: Content, region: _Region, offset: int, length: int) -> bytes:
    return content.exactly(region.start + offset, length, "the metadata")


def _check_blocks(
    content: Content,
    bat: _Region,
    size: int,
    block: int,
    sector: int,
    regions: tuple[_Region, ...],
) -> None:
    ratio = _CHUNK * sector // block
    blocks = -(-size // block)
    # Behind every `ratio` entries is one for their bitmap, which only disks with a parent use.
    count = blocks + max(blocks - 1, 0) // ratio
    if count * 8 > bat.length:
        raise InvalidImage("", "its table of blocks is too small for the disk")
    what = "the table of blocks"
    for first, numbers in tables.blocks(
        content, bat.start, count, 8, "little", what, tables.Budget()
    ):
        for index, entry in enumerate(numbers, first):
            if index % (ratio + 1) == ratio or entry & 7 not in (_FULLY, _PARTIALLY):
                continue
            if entry & 7 == _PARTIALLY:
                raise InvalidImage("", "some of its data is in another file")
            start = entry & ~(_MIB - 1)
            content.check_inside(start, block, "its data")
            if any(each.overlaps(start, block) for each in regions):
                raise InvalidImage("", "its data lies over its tables: it is damaged")


_POLYNOMIAL = 0x82F63B78


def _row(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
    return value


_ROWS = [_row(value) for value in range(256)]


def _is_sound(data: bytes) -> bool:
    """Whether the CRC-32C of a structure is the one in its bytes 4 to 8 (RFC 3720 B.4)."""
    value = 0xFFFFFFFF
    for byte in data[:4] + bytes(4) + data[8:]:
        value = value >> 8 ^ _ROWS[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF == int.from_bytes(data[4:8], "little")
