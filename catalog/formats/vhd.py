"""VHD, which qemu calls vpc (Microsoft's "Virtual Hard Disk Image Format Specification").

Numbers are big-endian.  A dynamic disk has a copy of its footer at its beginning.  A fixed disk has
the guest's bytes first, and its footer behind them.
"""

from __future__ import annotations

from dataclasses import dataclass

from catalog.errors import InvalidImage
from catalog.formats import tables
from catalog.formats.content import Content, cut_off

FOOTER = 512
_COOKIE = b"conectix"
_FIXED, _DYNAMIC, _DIFFERENCING = 2, 3, 4
_UNUSED = 0xFFFFFFFF
_MAX_SIZE = 0xFF000000 * 512
_LARGEST_GEOMETRY = 65535 * 16 * 255
_SIZE_IS_TOLD = (b"win ", b"qem2", b"d2v ", b"tap\0", b"CXS\0")
"""Programs whose disks have the size in the footer; for others the geometry counts (as in qemu)."""


@dataclass(frozen=True, slots=True)
class _Footer:
    kind: int
    header: int
    """Where the dynamic disk's header is."""
    size: int
    """Bytes the guest sees."""


def examine(content: Content) -> int:
    """The virtual size in bytes of a dynamic disk.  Raises InvalidImage if it is not whole."""
    footer = _read_footer(content, 0, "the copy of its footer")
    if footer.kind == _DIFFERENCING:
        raise InvalidImage(
            "", "it has a parent, which is another file: merge it with its parent first"
        )
    if footer.kind != _DYNAMIC:
        raise InvalidImage("", f"it is of kind {footer.kind}, which is not known")
    if content.at(content.size - FOOTER, 8) != _COOKIE:
        raise InvalidImage(
            "",
            "it was cut off: a VHD ends with a footer, and this has none; copy it again",
        )
    if _read_footer(content, content.size - FOOTER, "its footer") != footer:
        raise InvalidImage("", "its footer and the copy of it contradict each other")
    _check_blocks(content, footer)
    return footer.size


def has_footer(content: Content) -> bool:
    """Whether a VHD's footer is at the end, whole or damaged."""
    at_sector = content.size % FOOTER == 0  # qemu looks for it nowhere else
    return at_sector and content.size > FOOTER and content.at(content.size - FOOTER, 8) == _COOKIE


def examine_fixed(content: Content) -> int:
    """The virtual size in bytes of a fixed disk, for which `has_footer` is True.

    Raises InvalidImage.
    """
    footer = _read_footer(content, content.size - FOOTER, "its footer")
    if footer.kind != _FIXED:
        raise InvalidImage("", "its beginning is missing: only a fixed VHD has none")
    if footer.size > content.size - FOOTER:
        raise cut_off("the disk", footer.size + FOOTER, content.size)
    return footer.size


def _read_footer(content: Content, offset: int, what: str) -> _Footer:
    data = content.exactly(offset, FOOTER, what)
    if data[:8] != _COOKIE or _sum(data, 64) != int.from_bytes(data[64:68], "big"):
        raise InvalidImage("", f"{what} is damaged: its checksum is wrong")
    header = int.from_bytes(data[16:24], "big")
    size = int.from_bytes(data[48:56], "big")
    geometry = int.from_bytes(data[56:58], "big") * data[58] * data[59]
    if data[28:32] not in _SIZE_IS_TOLD and geometry != _LARGEST_GEOMETRY:
        size = geometry * 512
    size -= size % 512
    if size > _MAX_SIZE:
        raise InvalidImage("", f"a disk of {size} bytes is not possible")
    return _Footer(int.from_bytes(data[60:64], "big"), header, size)


def _check_blocks(content: Content, footer: _Footer) -> None:
    header = content.exactly(footer.header, 1024, "the header of the dynamic disk")
    if header[:8] != b"cxsparse" or _sum(header, 36) != int.from_bytes(header[36:40], "big"):
        raise InvalidImage("", "the header of the dynamic disk is damaged")
    if any(header[40:56]) or any(header[576:768]):
        raise InvalidImage("", "its header names a parent, which is another file")
    table = int.from_bytes(header[16:24], "big")
    count = int.from_bytes(header[28:32], "big")
    size = int.from_bytes(header[32:36], "big")
    if size < 512 or size & (size - 1) or count * size < footer.size or count > 2**29 - 1:
        raise InvalidImage("", "the size of its blocks or of their table is not possible")
    # In front of each block is a bitmap with one bit for each of its sectors, in whole sectors.
    whole = -(-size // 4096 // 512) * 512 + size
    budget = tables.Budget()
    for _, numbers in tables.blocks(content, table, count, 4, "big", "its table", budget):
        last = max((each for each in numbers if each != _UNUSED), default=None)
        if last is not None:
            # The footer is behind all blocks.
            content.check_inside(last * 512, whole + FOOTER, "its data")


def _sum(data: bytes, at: int) -> int:
    """The checksum of a footer or header whose own four bytes are at `at`."""
    return ~(sum(data) - sum(data[at : at + 4])) & 0xFFFFFFFF
