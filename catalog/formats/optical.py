"""CD and DVD images: ISO 9660 (ECMA-119) and UDF (ECMA-167)."""

from __future__ import annotations

from catalog.formats.content import Content, cut_off

_SECTOR = 2048
_PADDING = 150 * _SECTOR
"""Bytes of padding that mastering programs add at the end; they contain no data."""


def examine(content: Content) -> int:
    """The virtual size: the file's.  Raises InvalidImage if the volume is longer than the file."""
    volume = content.at(16 * _SECTOR, _SECTOR)
    if volume[:6] == b"\1CD001":
        blocks = int.from_bytes(volume[80:84], "little")
        end = blocks * int.from_bytes(volume[128:130], "little")
        if end - _PADDING > content.size:
            raise cut_off("the volume", end, content.size)
    return content.size
