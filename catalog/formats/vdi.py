"""VDI of VirtualBox (source: qemu's block/vdi.c): numbers are little-endian."""

from __future__ import annotations

from catalog.errors import InvalidImage
from catalog.formats import tables
from catalog.formats.content import Content, cut_off

_BLOCK = 1 << 20
_VERSION = 0x00010001
_NORMAL, _FIXED = 1, 2
_SPECIAL = 0xFFFFFFFE
"""Entries from this number on mean that there is no block, or a block of zeros."""
_MAX_BLOCKS = 0x3FFFFFFF


def examine(content: Content) -> int:
    """The virtual size in bytes.

    Raises InvalidImage if the image is not whole, or needs another file.
    """
    header = content.exactly(0, 512, "the header")
    version, _, kind = content.unpack("<III", 68, "the header")
    table, data = content.unpack("<II", 340, "the header")
    (sector,) = content.unpack("<I", 360, "the header")
    told, block, _, count = content.unpack("<QIII", 368, "the header")
    if version != _VERSION:
        raise InvalidImage("", f"its version, {version:#x}, is not known")
    if kind not in (_NORMAL, _FIXED) or any(header[424:456]):
        raise InvalidImage(
            "", "it has a parent, which is another file: clone it first (VBoxManage clonemedium)"
        )
    if sector != 512 or block != _BLOCK or table % 512 or data % 512:
        raise InvalidImage("", "the size of its blocks or sectors is not known")
    size = -(-int(told) // 512) * 512
    if count > _MAX_BLOCKS or size > count * _BLOCK:
        raise InvalidImage("", f"a disk of {size} bytes in {count} blocks is not possible")
    # qemu reads the table in whole sectors.
    rounded = -(-count // 128) * 128
    budget = tables.Budget()
    content.check_inside(table, rounded * 4, "the table of blocks")
    what = "the table of blocks"
    for first, numbers in tables.blocks(content, table, count, 4, "little", what, budget):
        last = max((each for each in numbers if each < _SPECIAL), default=None)
        if last is not None:
            # Of the guest's last block the file needs only the part that the guest sees.
            guest = (first + numbers.index(last)) * _BLOCK
            end = data + last * _BLOCK + min(_BLOCK, max(size - guest, 1))
            if end > content.size:
                raise cut_off("its data", end, content.size)
    return size
