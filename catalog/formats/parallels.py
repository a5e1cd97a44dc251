"""Disks of Parallels and Virtuozzo (qemu's docs/interop/parallels.txt): little-endian."""

from __future__ import annotations

from catalog.errors import InvalidImage
from catalog.formats import tables
from catalog.formats.content import Content

_IN_USE = 0x746F6E59


def examine(content: Content) -> int:
    """The virtual size in bytes.  Raises InvalidImage if the image is not whole."""
    magic, version, _, _, tracks, count, sectors, in_use, _ = content.unpack(
        "<16sIIIIIQII", 0, "the header"
    )
    if version != 2 or not tracks or tracks > 2**31 // 513:
        raise InvalidImage("", "its header is damaged, or of a version that nobody knows")
    if in_use == _IN_USE:
        raise InvalidImage("", "it was not closed: repair it with qemu-img check -r all")
    unit = tracks
    if magic == b"WithoutFreeSpace":
        sectors &= 0xFFFFFFFF
        unit = 1
    if sectors > min(count * tracks, 2**63 // 512 - 1) or count > 2**29 - 1:
        raise InvalidImage("", f"a disk of {sectors} sectors is not possible")
    what = "the table of blocks"
    for _, numbers in tables.blocks(content, 64, count, 4, "little", what, tables.Budget()):
        if last := max(numbers):
            content.check_inside(last * unit * 512, tracks * 512, "its data")
    return int(sectors) * 512
