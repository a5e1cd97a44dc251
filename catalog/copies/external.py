"""Looks at the data at a URL before it becomes an image (`ln -s URL`, `imagefs adopt`)."""

from __future__ import annotations

from catalog.errors import DataDamaged, InvalidImage, InvalidValue
from catalog.formats import gate
from catalog.formats.content import HEAD
from catalog.formats.gate import Declared
from catalog.model.digests import hash_algorithm
from catalog.model.image import External, Image
from catalog.stores.base import Data, DataReader, Store

TABLES = 64
"""Tables of a disk that are read at most: each is a request, and a user waits for it."""


def examine(store: Store, target: str) -> External:
    """Size and format of the data at a URL; the format gate judges it, too.

    A fragment `#sha256=HEX` announces the digest.  Raises NotFound, StoreUnavailable,
    Forbidden (address filter), InvalidImage, InvalidValue.
    """
    url, _, fragment = target.partition("#")
    return inspect(store, url, _announced(url, fragment))


def inspect(store: Store, url: str, expected_hash: str | None = None) -> External:
    """As `examine`, for a URL without a fragment: a `#` is part of the URL."""
    reader = store.open(url)
    try:
        detected = gate.inspect(reader, table_reads=TABLES)
    except InvalidImage as error:
        raise InvalidImage(url, error.reason) from error
    finally:
        reader.close()
    return External(url, reader.size, detected.disk_format, detected.virtual_size, expected_hash)


def unchanged(reader: DataReader, image: Image, table_reads: int | None = 0) -> DataReader:
    """Judge the data of an image without digests again, as it may have changed.

    The verdict is about the bytes of the returned reader.  Raises DataDamaged if the data is not
    the same as when the image was added, and what the reader raises.
    """
    if reader.fileno() is None:
        reader = _AsJudged(reader)
    declared = Declared(image.disk_format, image.container_format)
    try:
        found = gate.inspect(reader, declared, table_reads)
    except InvalidImage as error:
        raise DataDamaged(image.name, 0, f"the data is another now: {error.reason}") from error
    # An earlier version recorded another size for VHDs, so a difference there is no change.
    if found.virtual_size != image.virtual_size and image.disk_format != "vhd":
        told = f"a disk of {found.virtual_size} bytes, not of {image.virtual_size} any more"
        raise DataDamaged(image.name, 0, f"the data is another now: {told}")
    return reader


class _AsJudged:
    """A reader that keeps the beginning that was judged, even if the server changes it later.

    Everything that makes qemu open another file is in the beginning.
    """

    def __init__(self, reader: DataReader) -> None:
        self.size = reader.size
        self._reader = reader
        self._head = bytes(reader.read_at(0, HEAD))

    def read_at(self, offset: int, size: int) -> Data:
        known = self._head[offset : offset + size]
        offset, size = offset + len(known), size - len(known)
        if not known:
            return self._reader.read_at(offset, size)
        if not size or offset == self.size:
            return known
        return known + bytes(self._reader.read_at(offset, size))

    def fileno(self) -> int | None:
        return self._reader.fileno()

    def close(self) -> None:
        self._reader.close()


def _announced(url: str, fragment: str) -> str | None:
    if not fragment:
        return None
    algo, _, value = fragment.partition("=")
    if hash_algorithm(value) != algo:
        raise InvalidValue(url, "behind '#' stands the digest: sha256=HEX, sha384=, sha512=")
    return value.lower()
