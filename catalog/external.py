"""What lies at a URL, before it becomes an image (`ln -s URL`, `imagefs adopt`)."""

from __future__ import annotations

import tempfile
from pathlib import Path

from catalog import formats
from catalog.attributes import hash_algorithm
from catalog.errors import InvalidImage, InvalidValue
from catalog.image import External
from catalog.stores.base import Store

_HEAD = 4 * 1024 * 1024
"""Bytes that are enough to tell any format that can be told without the end."""


def examine(store: Store, target: str) -> External:
    """Size and format of the data at a URL; the format gate holds for it as well.

    A fragment `#sha256=HEX` announces the digest.  Raises NotFound, StoreUnavailable,
    Forbidden (address filter), InvalidImage, InvalidValue.
    """
    url, _, fragment = target.partition("#")
    return inspect(store, url, _announced(url, fragment))


def inspect(store: Store, url: str, expected_hash: str | None = None) -> External:
    """As `examine`, of a URL that has no fragment: a `#` is its own."""
    reader = store.open(url)
    try:
        head = reader.read_at(0, _HEAD)
        size = reader.size
    finally:
        reader.close()
    with tempfile.NamedTemporaryFile(prefix="imagefs-") as file:
        file.write(head)
        # The same length as the original: a format that keeps its header at the end
        # is then not taken for another one.
        file.truncate(size)
        try:
            detected = formats.inspect(Path(file.name), None)
        except InvalidImage as error:
            raise InvalidImage(url, error.reason) from error
    virtual_size = size if detected.disk_format in ("raw", "iso") else detected.virtual_size
    return External(url, size, detected.disk_format, virtual_size, expected_hash)


def _announced(url: str, fragment: str) -> str | None:
    if not fragment:
        return None
    algo, _, value = fragment.partition("=")
    if hash_algorithm(value) != algo:
        raise InvalidValue(url, "behind '#' stands the digest: sha256=HEX, sha384=, sha512=")
    return value.lower()
