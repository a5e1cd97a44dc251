"""Whether a disk was made, as by `qemu-img create`, and not filled yet."""

from __future__ import annotations

import errno
import os

from catalog.errors import InvalidImage
from catalog.formats import qcow2
from catalog.formats.content import Content, LocalFile

_MOST = 1024 * 1024
"""Bytes of a raw disk that may be written zeros; the rest has to be a hole."""


def is_blank(fd: int, disk_format: str) -> bool:
    """Whether a disk in a local file has no data of a guest; False if that is not known."""
    match disk_format:
        case "raw":
            return _is_hole(fd)
        case "qcow2":
            try:
                return qcow2.is_blank(Content(LocalFile(fd)))
            except InvalidImage:
                return False
        case _:
            return False


def _is_hole(fd: int) -> bool:
    at, seen = 0, 0
    while True:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            # ENXIO: there is no data behind this offset.
            return error.errno == errno.ENXIO
        data = os.pread(fd, _MOST, at)
        seen += len(data)
        if seen > _MOST or data.strip(b"\0"):
            return False
        at += len(data)
