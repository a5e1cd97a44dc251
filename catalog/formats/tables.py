"""Reads the tables of a container in blocks, within fixed limits.

A table is never loaded as a whole, and zeros in it cost next to nothing.
"""

from __future__ import annotations

import heapq
import sys
from array import array
from collections.abc import Iterable, Iterator

from catalog.errors import InvalidImage
from catalog.formats.content import Content

BLOCK = 1 << 18
"""Bytes of a table that are in memory at once.  With larger blocks other threads would wait long
for the interpreter."""

MAX_ENTRIES = 1 << 28
"""Entries of an image's tables that may be read: enough for 16 TiB in clusters of 64 KiB."""

_CODES = {4: "I", 8: "Q"}
_ZEROS = bytes(BLOCK)


MAX_TABLES = 1 << 19
"""Tables that an image's first table may name; each of them is remembered."""


class Budget:
    """How many entries may still be read, and which tables were read."""

    def __init__(self) -> None:
        self._left = MAX_ENTRIES
        self._seen: set[int] = set()

    def spend(self, entries: int) -> None:
        """Count entries.  Raises InvalidImage if there are more than a useful image has."""
        self._left -= entries
        if self._left < 0:
            raise _too_many(f"more than {MAX_ENTRIES} entries")

    def is_new(self, offset: int) -> bool:
        """Whether the table at an offset was not seen before; remembers it.

        Without this check a small file that names the same table many times would take hours.
        """
        before = len(self._seen)
        self._seen.add(offset)
        if len(self._seen) > MAX_TABLES:
            raise _too_many(f"more than {MAX_TABLES} parts")
        return len(self._seen) > before


def _too_many(what: str) -> InvalidImage:
    return InvalidImage(
        "", f"its tables have {what}, too many to be checked: convert it with larger clusters"
    )


def blocks(
    content: Content,
    offset: int,
    count: int,
    width: int,
    order: str,
    what: str,
    budget: Budget,
) -> Iterator[tuple[int, array[int]]]:
    """The `count` numbers of `width` bytes at `offset`, in blocks (index of the first, numbers).

    `order` is "big" or "little".  Blocks that are all zeros are left out.  Raises InvalidImage
    if the table does not lie in the file.
    """
    content.check_inside(offset, count * width, what)
    budget.spend(count)
    step = BLOCK // width
    for index in range(0, count, step):
        length = min(step, count - index) * width
        data = content.exactly(offset + index * width, length, what)
        if data == _ZEROS[:length]:
            continue
        numbers = array(_CODES[width], data)
        if order != sys.byteorder:
            numbers.byteswap()
        yield index, numbers


def last_first(found: Iterable[tuple[int, int]], content: Content) -> Iterator[tuple[int, int]]:
    """The tables (offset, place) that are to be read.

    If only some may be read, these are the last ones of the file, which show best whether it was
    cut off.  `found` is consumed in any case.
    """
    if content.table_reads is None:
        yield from found
    else:
        yield from heapq.nlargest(content.table_reads, found)
