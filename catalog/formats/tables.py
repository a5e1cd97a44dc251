"""Going through the tables of a container in blocks, within a stated limit.

A table is never loaded whole, and zeros in it cost next to nothing.
"""

from __future__ import annotations

import heapq
import sys
from array import array
from collections.abc import Iterable, Iterator

from catalog.errors import InvalidImage
from catalog.formats.content import Content

BLOCK = 1 << 18
"""Bytes of a table that are in memory at once; more would hold other threads up for long."""

MAX_ENTRIES = 1 << 28
"""Entries of an image's tables that are looked at: 16 TiB in clusters of 64 KiB."""

_CODES = {4: "I", 8: "Q"}
_ZEROS = bytes(BLOCK)


MAX_TABLES = 1 << 19
"""Tables that an image's first table names: each of them is remembered."""


class Budget:
    """What may still be looked at, and which tables have been."""

    def __init__(self) -> None:
        self._left = MAX_ENTRIES
        self._seen: set[int] = set()

    def spend(self, entries: int) -> None:
        """Raises InvalidImage when it comes to more than an image of any use has."""
        self._left -= entries
        if self._left < 0:
            raise _too_many(f"more than {MAX_ENTRIES} entries")

    def is_new(self, offset: int) -> bool:
        """Whether the table at an offset has not been seen yet; remembers it.

        Without it a small file whose tables name one table often would take hours.
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
    """The `count` numbers of `width` bytes at `offset`, as (index of the first, numbers).

    `order` is "big" or "little".  Blocks of nothing but zeros are left out.  Raises
    InvalidImage where the table does not lie in the file.
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
    """Tables as (offset, place) to look into.

    If only some may be read, those are the last of the file: they tell best whether it was
    cut.  All of `found` is gone through in any case.
    """
    if content.table_reads is None:
        yield from found
    else:
        yield from heapq.nlargest(content.table_reads, found)
