"""The sources of `imagefs add`: a file, a device, a pipe, a web server."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from io import RawIOBase
from itertools import chain
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from catalog.errors import IncompleteUpload, StoreRefused
from catalog.stores.base import Capability, DataReader, Store, Streaming

if TYPE_CHECKING:
    from catalog.catalog import Catalog
    from catalog.uploads.packed.unpacking import Unpacked

_BLOCK = 1 << 20
"""Bytes that are read in one step."""

_HEAD = 512
"""Bytes by which packed data is recognised."""

_REQUEST = 16 << 20
"""Bytes that one request asks of a web server, as each request costs a round trip."""


@dataclass(frozen=True, slots=True)
class Source:
    """Data that can be read once."""

    size: int | None
    """Bytes; None if they are not known before the end."""
    blocks: Iterator[tuple[int, bytes]]
    """Offsets and bytes, in order; a gap between two blocks is zeros."""
    packed: Unpacked | None = None
    """The packed data of the image, if it is packed: `size` is the size of the packed data, and
    `blocks` are the unpacked ones."""


def is_url(source: str) -> bool:
    """Whether the argument of `add` is a URL rather than a file."""
    return source.lower().startswith(("http://", "https://"))


def name_of(source: str) -> str | None:
    """The name of an image that was added without one; None if the source has no name."""
    if source == "-":
        return None
    path = unquote(urlsplit(source).path) if is_url(source) else source
    return PurePosixPath(path).name or None


@contextmanager
def opened(catalog: Catalog, source: str) -> Iterator[Source]:
    """Open the source of an `add`.  Raises OSError, and the errors of `Store.open`."""
    if source == "-":
        yield Source(None, _of_stream(sys.stdin.buffer))
    elif is_url(source):
        with _web_store(catalog) as store:
            yield from _of_web(store, source)
    else:
        with open(source, "rb", buffering=0) as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_ISREG(mode) or stat.S_ISBLK(mode):
                # By seeking, as the st_size of a block device is 0.
                size = os.lseek(file.fileno(), 0, os.SEEK_END)
                yield Source(size, _of_file(file.fileno(), size, source))
            else:
                yield Source(None, _of_stream(file))


def _of_web(store: Store, url: str) -> Iterator[Source]:
    """The object, in parts that can be requested again; if the server has no ranges, in one."""
    try:
        reader = store.open(url)
    except StoreRefused:
        if not isinstance(store, Streaming):
            raise
        # The server may only lack ranges.  If it refused for any other reason, this request is
        # refused as well, and raises.
        size, blocks = store.stream(url)
        yield Source(size, _in_order(blocks))
        return
    with closing(reader):
        yield Source(reader.size, _of_reader(reader))


def unpacked(source: Source, subject: str) -> Source:
    """The disk in the data, if it is packed; else the data.  Raises as `Unpacked`."""
    from catalog.uploads.packed.unpacking import Unpacked, is_packed

    first, head = [], b""
    for offset, data in source.blocks:
        first.append((offset, data))
        if offset != len(head):
            break  # it begins with zeros
        head += data
        if len(head) >= _HEAD:
            break
    blocks = chain(first, source.blocks)
    if not is_packed(head[:_HEAD]):
        return Source(source.size, blocks)
    packed = Unpacked(subject, _without_holes(blocks))
    return Source(source.size, packed.blocks(), packed)


def _without_holes(blocks: Iterator[tuple[int, bytes]]) -> Iterator[bytes]:
    end = 0
    for offset, data in blocks:
        while end < offset:
            zeros = bytes(min(_BLOCK, offset - end))
            end += len(zeros)
            yield zeros
        yield data
        end = offset + len(data)


@contextmanager
def _web_store(catalog: Catalog) -> Iterator[Store]:
    """The configured web store, so that its address filter counts here, too; or a default one."""
    from catalog.stores.http.settings import HttpStoreSettings
    from catalog.stores.http.store import HttpStore

    for store in catalog.stores.values():
        if Capability.EXTERNAL in store.capabilities:
            yield store
            return
    with closing(HttpStore("http", HttpStoreSettings())) as default:
        yield default


def _in_order(blocks: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    offset = 0
    for block in blocks:
        yield offset, block
        offset += len(block)


def _of_stream(stream: IO[bytes] | RawIOBase) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while data := stream.read(_BLOCK):
        yield offset, data
        offset += len(data)


def _of_reader(reader: DataReader) -> Iterator[tuple[int, bytes]]:
    for offset in range(0, reader.size, _REQUEST):
        yield offset, bytes(reader.read_at(offset, _REQUEST))


def _of_file(fd: int, size: int, name: str) -> Iterator[tuple[int, bytes]]:
    from catalog.stores.sparse import data_ranges

    for start, end in data_ranges(fd, size):
        offset = start
        while offset < end:
            data = os.pread(fd, min(_BLOCK, end - offset), offset)
            if not data:
                raise IncompleteUpload(name, "the file was cut off while it was read")
            yield offset, data
            offset += len(data)
