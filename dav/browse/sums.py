"""`SHA256SUMS`: the digests of a folder's images, as sha256sum(1) writes and checks them."""

from __future__ import annotations

from collections.abc import Iterator

from catalog.model.access import Principal
from catalog.model.tree import Folder
from catalog.tree.listings import digests
from catalog.tree.vfs import Vfs


def line(os_hash_value: str, name: str) -> str:
    """One line without its end.

    If a name has a backslash, it is escaped, and the line begins with one (GNU coreutils,
    "md5sum invocation").  Names have no line ends (docs/semantics.md#the-tree).
    """
    escaped = name.replace("\\", "\\\\")
    mark = "\\" if escaped != name else ""
    return f"{mark}{os_hash_value}  {escaped}"


def sums(vfs: Vfs, folder: Folder, principal: Principal) -> Iterator[bytes]:
    """The lines of a folder's active images that have a sha256, in blocks."""
    for page in digests(vfs.catalog, folder, principal, "sha256"):
        yield "".join(f"{line(value, name)}\n" for value, name in page).encode()
