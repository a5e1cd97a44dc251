"""Taking a disk out of what it is packed in, as it streams by: compression, an OVA, both.

What it is packed in is told by its content, never by its name.  Memory is bounded whatever
the data says of itself; how much comes out is for whoever reads it to limit.
"""

from __future__ import annotations

import bz2
import hashlib
import lzma
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any, Protocol

from catalog.errors import IncompleteUpload, InvalidImage
from catalog.formats.packed import appliance
from catalog.formats.packed.stream import Stream

_STEP = 256 * 1024
"""Bytes that are unpacked at once."""

_LAYERS = 3
"""An OVA may be compressed, and so may the disk in it."""

_XZ_MEMORY = 256 << 20
_ZSTD_WINDOW = 27
"""Bytes that unpacking may take: what `xz -9` needs and more; 2^27, what `zstd` takes by itself."""

_ERRORS = (OSError, EOFError, ValueError, MemoryError, lzma.LZMAError, zlib.error)


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    @property
    def needs_input(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Gzip:
    """zlib's decompressor with the manners of the others."""

    def __init__(self) -> None:
        self._inner: Any = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return bool(self._inner.eof)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._inner.unused_data)

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return bytes(self._inner.decompress(self._inner.unconsumed_tail + data, max_length))


class _Zstd:
    """zstd's decompressor; its errors are ValueErrors."""

    def __init__(self) -> None:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd

        limit: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW}
        self._inner: Any = zstd.ZstdDecompressor(options=limit)
        self._error = zstd.ZstdError

    @property
    def eof(self) -> bool:
        return bool(self._inner.eof)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._inner.unused_data)

    @property
    def needs_input(self) -> bool:
        return bool(self._inner.needs_input)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        try:
            return bytes(self._inner.decompress(data, max_length))
        except self._error as error:
            raise ValueError(str(error)) from error


_KINDS: tuple[tuple[bytes, str, Callable[[], Any]], ...] = (
    (b"\x1f\x8b\x08", "gzip", _Gzip),
    (b"\xfd7zXZ\0", "xz", lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)),
    (b"\x28\xb5\x2f\xfd", "zstd", _Zstd),
    (b"BZh", "bzip2", bz2.BZ2Decompressor),
)
_SUFFIXES = (".gz", ".xz", ".zst", ".bz2", ".ova")


class Unpacked:
    """The disk inside some data."""

    def __init__(self, subject: str, data: Iterable[bytes]) -> None:
        """Looks at the beginning.  Raises InvalidImage, and what reading the data raises."""
        self.layers: list[str] = []
        """What it is packed in, from the outside; empty if it is as it came."""
        self.disk_name: str | None = None
        """What an OVA calls its disk."""
        self.notes: list[str] = []
        """What is to be told of it although it is no failure, after `blocks`."""
        self._digest = hashlib.sha256()
        self._subject = subject
        self.taken = 0
        """Bytes read so far of the data as it came."""
        self._disk = Stream(data, self._take)
        self._streams = [self._disk]
        """What each layer is read from, from the outside."""
        while len(self.layers) < _LAYERS and self._unwrap():
            pass

    def _take(self, piece: bytes) -> None:
        self._digest.update(piece)
        self.taken += len(piece)

    def _unwrap(self) -> bool:
        head = self._disk.peek(512)
        for magic, name, kind in _KINDS:
            if head.startswith(magic):
                self.layers.append(name)
                self._push(_decompressed(self._subject, self._disk, magic, name, kind))
                return True
        if appliance.is_ova(head):
            self.layers.append("ova")
            self.disk_name, disk = appliance.disk_of(self._subject, self._disk, self.notes.append)
            self._push(disk)
            return True
        return False

    def _push(self, data: Iterator[bytes]) -> None:
        self._disk = Stream(data)
        self._streams.append(self._disk)

    def name(self, packed: str) -> str:
        """What to call the disk of a file of that name."""
        stem = packed
        for suffix in _SUFFIXES if self.layers else ():
            if stem.lower().endswith(suffix) and len(stem) > len(suffix):
                stem = stem[: -len(suffix)]
        if self.disk_name is not None:
            inner = self.disk_name.rpartition("/")[2].removesuffix(".gz")
            stem += "." + inner.rpartition(".")[2] if "." in inner else ""
        return stem

    def blocks(self) -> Iterator[tuple[int, bytes]]:
        """The disk as (offset, bytes), no bytes for zeros but at the end; then all is read.

        Raises IncompleteUpload for data that ends too soon, InvalidImage for what is damaged,
        DigestMismatch for what is not as an OVA's manifest says.
        """
        offset, kept = 0, b""
        for data in chain(iter(lambda: self._disk.read(_STEP), b""), [b""]):
            if kept:
                is_hole = data and kept.count(0) == len(kept)
                yield offset - len(kept), b"" if is_hole else kept
            kept, offset = data, offset + len(data)
        # Checksums are at the end of what is compressed, and the digest is of all of it.
        for stream in reversed(self._streams):
            while stream.read(_STEP):
                pass

    def source_sha256(self) -> str:
        """The digest of the data as it came, after `blocks`."""
        return self._digest.hexdigest()


def is_packed(head: bytes) -> bool:
    """Whether data that begins with these 512 bytes is packed in something."""
    return any(head.startswith(magic) for magic, _, _ in _KINDS) or appliance.is_ova(head)


def _decompressed(
    subject: str, source: Stream, magic: bytes, name: str, make: Callable[[], Any]
) -> Iterator[bytes]:
    """What comes out of one or more compressed streams, one behind the other."""
    while source.peek(len(magic)) == magic:
        decompressor: _Decompressor = make()
        while not decompressor.eof:
            given = b""
            if decompressor.needs_input and not (given := source.read(_STEP)):
                raise IncompleteUpload(subject, f"the {name} data ends too soon: it was cut off")
            try:
                data = decompressor.decompress(given, _STEP)
            except _ERRORS as error:
                raise InvalidImage(subject, f"the {name} data is damaged: {error}") from error
            if data:
                yield data
        source.put_back(decompressor.unused_data)
    # tar and tapes pad with zeros.
    while rest := source.read(_STEP):
        if any(rest):
            raise InvalidImage(subject, f"something else follows the {name} data")
