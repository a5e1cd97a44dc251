"""Unpacks a disk from compression, from an OVA, or both, while the bytes stream by.

The layers are found by content, never by name.  Memory is bounded, whatever the data says about
itself.  The size of the output is not: the caller has to limit it.
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
from catalog.uploads.packed import appliance
from catalog.uploads.packed.stream import Stream

_STEP = 256 * 1024
"""Bytes that are unpacked in one step."""

_LAYERS = 3
"""At most: a compressed OVA with a compressed disk in it."""

_XZ_MEMORY = 256 << 20
_ZSTD_WINDOW = 27
"""Limits of the memory for unpacking.  For xz in bytes, more than `xz -9` needs; for zstd 2^27
bytes, the limit that the command `zstd` has by default."""

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
    """zlib's decompressor with the interface of the others."""

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
        """Reads the beginning.  Raises InvalidImage, and what reading the data raises."""
        self.layers: list[str] = []
        """The names of the layers, the outermost first; empty if the data is not packed."""
        self.disk_name: str | None = None
        """The disk's name in an OVA."""
        self.notes: list[str] = []
        """Remarks for the user that are no failures; complete after `blocks`."""
        self._digest = hashlib.sha256()
        self._subject = subject
        self.taken = 0
        """Bytes of the packed data that were read so far."""
        self._disk = Stream(data, self._take)
        self._streams = [self._disk]
        """The stream that each layer is read from, the outermost first; the disk is the last."""
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
        """A name for the disk, made from the name of the packed file."""
        stem = packed
        for suffix in _SUFFIXES if self.layers else ():
            if stem.lower().endswith(suffix) and len(stem) > len(suffix):
                stem = stem[: -len(suffix)]
        if self.disk_name is not None:
            inner = self.disk_name.rpartition("/")[2].removesuffix(".gz")
            stem += "." + inner.rpartition(".")[2] if "." in inner else ""
        return stem

    def blocks(self) -> Iterator[tuple[int, bytes]]:
        """The disk as (offset, bytes); afterwards all of the data has been read.

        A block of zeros is given as no bytes, except at the end, as the last block shows the
        size.  Raises IncompleteUpload for data that ends too soon, InvalidImage for damaged
        data, DigestMismatch for data that differs from an OVA's manifest.
        """
        offset, kept = 0, b""
        for data in chain(iter(lambda: self._disk.read(_STEP), b""), [b""]):
            if kept:
                is_hole = data and kept.count(0) == len(kept)
                yield offset - len(kept), b"" if is_hole else kept
            kept, offset = data, offset + len(data)
        # Read on to the end of each layer: checksums of compressed data are at its end, and
        # `source_sha256` is the digest of all of the packed data.
        for stream in reversed(self._streams):
            while stream.read(_STEP):
                pass

    def source_sha256(self) -> str:
        """The digest of the packed data; known after `blocks`."""
        return self._digest.hexdigest()


def is_packed(head: bytes) -> bool:
    """Whether data that begins with these 512 bytes is packed."""
    return any(head.startswith(magic) for magic, _, _ in _KINDS) or appliance.is_ova(head)


def _decompressed(
    subject: str, source: Stream, magic: bytes, name: str, make: Callable[[], Any]
) -> Iterator[bytes]:
    """The output of one or more compressed streams that follow each other."""
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
    # Zeros may follow: tar and tapes pad with them.
    while rest := source.read(_STEP):
        if any(rest):
            raise InvalidImage(subject, f"something else follows the {name} data")
