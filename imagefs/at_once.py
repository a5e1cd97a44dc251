"""What the mount's loop answers from memory, without waiting (`catalog.tree.known`).

Scope: the same answers as `tree`, or None where something has to be asked: the database, the
host's user database, the staging file of an upload.  Threading: the trio loop only.
"""

from __future__ import annotations

from collections.abc import Collection

import pyfuse3

from catalog import cause
from catalog.model.access import ADMIN, Principal
from catalog.model.tree import Entry, Folder
from catalog.service.host_users import principal_of_uid
from catalog.tree.namespace import Node
from catalog.tree.vfs import Vfs
from imagefs import attributes, inodes
from imagefs.inodes import InodeKind
from imagefs.processes.accounts import ACCOUNTS


class AtOnce:
    """Answers about names and inodes that were looked up lately."""

    def __init__(self, vfs: Vfs, admins: Collection[int]) -> None:
        """`admins` are the uids of administrators."""
        self._vfs = vfs
        self._admins = frozenset(admins)

    def lookup(self, parent: int, name: bytes) -> pyfuse3.EntryAttributes | None:
        """The attributes of a name; None if it has to be looked up."""
        kind, number = inodes.kind_of(parent)
        try:
            text = name.decode()
        except UnicodeDecodeError:
            return None
        node = self._vfs.known.name(number, text) if kind is InodeKind.FOLDER else None
        found = self._attributes(node)
        if found is not None and node is not None:
            limit_time(found, node, text)
        return found

    def getattr(self, inode: int) -> pyfuse3.EntryAttributes | None:
        """The attributes of an inode; None if they have to be looked up."""
        kind, number = inodes.kind_of(inode)
        match kind:
            case InodeKind.FOLDER:
                return self._attributes(self._vfs.known.folder(number))
            case InodeKind.IMAGE:
                return self._attributes(self._vfs.known.image(number))
        return None

    def who_and_where(self, uid: int, number: int) -> tuple[Principal, str] | None:
        """The principal that opens an image, and the only store that the image has a name in.

        None if one of them has to be looked up.
        """
        entry = self._vfs.known.image(number)
        name = ACCOUNTS.known_name(uid)
        if entry is None or (name is None and uid != 0):
            return None
        principal = ADMIN if name is None else principal_of_uid(uid, self._admins, lambda _: name)
        cause.note(principal.name)
        return principal, entry.store

    def _attributes(self, node: Entry | Folder | None) -> pyfuse3.EntryAttributes | None:
        match node:
            case Folder() if ACCOUNTS.knows(node.owner):
                return attributes.of_folder(node)
            case Entry() if ACCOUNTS.knows(node.image.owner) and not self._is_uploaded(node):
                return attributes.of_image(node.image, None, links=node.links or 1)
        return None

    def _is_uploaded(self, entry: Entry) -> bool:
        """Whether this mount uploads it: its size is that of a file, which may be on a server."""
        return self._vfs.uploads.get(entry.image.number) is not None


def limit_time(found: pyfuse3.EntryAttributes, node: Node, asked: str) -> None:
    """Let the kernel not cache another form of the stored name (Unicode).

    `feed` invalidates only the stored form.
    """
    if node.name != asked:
        found.entry_timeout = 0
