"""Inode numbers, and which of them the kernel knows.

An inode number is computed from the catalog's own number, so that an image is the same inode on
every host, after every restart and under every name.  Threading: the trio loop only.

    1                   the root
    2                   /.by-id
    BASE + 2n           image n
    BASE + 2n + 1       folder n
    LINK + n            the symbolic link to image n in /.by-id
    FRESH + n           image n as the answer to symlink(2), for which the kernel demands a link
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import Enum, auto

import pyfuse3

from catalog.tree.namespace import BY_ID, ROOT

# Far above the numbers of other file systems: `writers` recognises our files by their numbers.
BASE = 1 << 40
LINK = 1 << 50
FRESH = 1 << 51


class InodeKind(Enum):
    """The kinds of inodes."""

    FOLDER = auto()
    IMAGE = auto()
    LINK = auto()
    FRESH = auto()


def of_folder(number: int) -> pyfuse3.InodeT:
    """The inode of a folder."""
    match number:
        case _ if number == ROOT:
            return pyfuse3.ROOT_INODE
        case _ if number == BY_ID:
            return pyfuse3.InodeT(2)
    return pyfuse3.InodeT(BASE + 2 * number + 1)


def of_image(number: int) -> pyfuse3.InodeT:
    """The inode of an image, under all its names."""
    return pyfuse3.InodeT(BASE + 2 * number)


def of_link(number: int) -> pyfuse3.InodeT:
    """The inode of the link to an image in /.by-id."""
    return pyfuse3.InodeT(LINK + number)


def of_fresh(number: int) -> pyfuse3.InodeT:
    """The inode in the answer to symlink(2)."""
    return pyfuse3.InodeT(FRESH + number)


def kind_of(inode: int) -> tuple[InodeKind, int]:
    """The kind of an inode, and the catalog's number of its folder or image."""
    if inode == pyfuse3.ROOT_INODE:
        return InodeKind.FOLDER, ROOT
    if inode == 2:
        return InodeKind.FOLDER, BY_ID
    if inode >= FRESH:
        return InodeKind.FRESH, inode - FRESH
    if inode >= LINK:
        return InodeKind.LINK, inode - LINK
    number, odd = divmod(inode - BASE, 2)
    return (InodeKind.FOLDER if odd else InodeKind.IMAGE), number


class Inodes:
    """How often the kernel holds each inode (its lookup count, FUSE protocol)."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def remember(self, inode: int) -> None:
        """Count one answer that gave the inode to the kernel."""
        self._counts[inode] += 1

    def forget(self, inodes: Iterable[tuple[int, int]]) -> None:
        """Subtract the lookups that the kernel has dropped (FORGET)."""
        for inode, count in inodes:
            left = self._counts[inode] - count
            if left > 0:
                self._counts[inode] = left
            else:
                del self._counts[inode]

    def __contains__(self, inode: int) -> bool:
        """Whether the kernel may have cached anything of this inode."""
        return inode == pyfuse3.ROOT_INODE or inode in self._counts

    def __len__(self) -> int:
        return len(self._counts)
