"""The pieces of an upload to Swift; each becomes one object, which is sent or copied.

Immutable: a piece may be sent again from its beginning.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from catalog.errors import IncompleteUpload
from catalog.stores.http_client.errors import http_errors
from catalog.stores.swift.client import Blocks, ObjectInfo

_BLOCK = 1 << 20
"""Bytes that are given to a socket at once."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of one object: this host sends them, or the server copies them."""

    size: int
    blocks: Blocks = lambda: ()
    copied: Mapping[str, str] = field(default_factory=dict)
    """Headers that make the server copy; empty if `blocks` are sent."""

    def etag(self, subject: str) -> str:
        """The MD5 with which the server compares what it receives.  Reads the whole piece."""
        digest = hashlib.md5(usedforsecurity=False)
        with http_errors(subject):
            for block in self.blocks():
                digest.update(block)
        return digest.hexdigest()


def piece_of_memory(data: bytes | bytearray) -> Piece:
    """The whole of `data`, which must not change any more."""

    def blocks() -> Iterator[memoryview]:
        view = memoryview(data)
        return (view[at : at + _BLOCK] for at in range(0, len(view), _BLOCK))

    return Piece(len(data), blocks)


def piece_of_file(path: Path, part: range) -> Piece:
    """The bytes `part` of a file.  Its blocks raise IncompleteUpload if the file is shorter."""

    def blocks() -> Iterator[bytes]:
        with path.open("rb", buffering=0) as file:
            for at in range(part.start, part.stop, _BLOCK):
                wanted = min(_BLOCK, part.stop - at)
                block = os.pread(file.fileno(), wanted, at)
                if len(block) != wanted:
                    raise IncompleteUpload(str(path), "was cut off while it was being read")
                yield block

    return Piece(len(part), blocks)


def piece_of_object(path: str, source: ObjectInfo, part: range) -> Piece:
    """The bytes `part` of another object, `container/name`, if that is still `source`."""
    headers = {"X-Copy-From": quote(path), "X-Fresh-Metadata": "true"}
    if part:
        headers["Range"] = f"bytes={part.start}-{part.stop - 1}"
    if source.dynamic is None:
        headers["If-Match"] = source.etag
    return Piece(len(part), copied=headers)
