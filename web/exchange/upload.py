"""Moves a request's body to an upload, in blocks, and compares it with what was announced.

Threading: the request's thread.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from catalog.errors import DigestMismatch, IncompleteUpload
from catalog.uploads.upload import Upload
from web.exchange.announced import Digests
from web.exchange.body import Body

_BLOCK = 1024 * 1024


def blocks(
    body: Body, offset: int, size: int | None, digests: Digests
) -> Iterator[tuple[int, memoryview]]:
    """The body in blocks, each with its offset; at the end its size and digests are compared.

    Raises IncompleteUpload, DigestMismatch.
    """
    hashes = [(hashlib.new(name, usedforsecurity=False), value) for name, value in digests]
    block = memoryview(bytearray(_BLOCK))
    start = offset
    # The first bytes at once, without waiting for a whole block: they make the queued image a
    # `saving` one, which others can see.
    count = body.readinto(block)
    while count:
        yield offset, block[:count]
        for digest, _value in hashes:
            digest.update(block[:count])
        offset += count
        count = _fill(body, block[: _BLOCK - offset % _BLOCK])
    if size is not None and offset - start != size:
        raise IncompleteUpload("", f"{size} bytes were announced, {offset - start} came")
    for digest, value in hashes:
        if digest.hexdigest() != value:
            raise _mismatch(digest.name)


def _mismatch(algorithm: str) -> DigestMismatch:
    return DigestMismatch("", f"the {algorithm} is not what was announced")


def _fill(body: Body, block: memoryview) -> int:
    """Fill a block as far as the body goes: one large write is cheaper than many small ones."""
    done = 0
    while done < len(block):
        try:
            size = body.readinto(block[done:])
        except IncompleteUpload:
            # Keep the bytes that have come, so that the client can resume after them; the next
            # read raises again.  Not after an abort: then another request writes already.
            if not done or body.aborted:
                raise
            break
        if size == 0:
            break
        done += size
    return done


def verify(upload: Upload, digests: Digests) -> None:
    """Compare digests that the catalog does not compute, for data of several requests."""
    for algorithm, value in digests:
        digest = hashlib.new(algorithm, usedforsecurity=False)
        for offset in range(0, upload.size, _BLOCK):
            digest.update(upload.read_at(offset, _BLOCK))
        if digest.hexdigest() != value:
            raise _mismatch(algorithm)
