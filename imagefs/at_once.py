"""What the mount's loop answers from memory, without waiting (`catalog.tree.known`).

Scope: the same answers as `tree`, or None where something has to be asked: the database, the
host's user database, the staging file of an upload.  Threading: the trio loop only.
"""

from __future__ import annotations

import pyfuse3

from catalog import cause
from catalog.model.access import ADMIN, Principal
from catalog.model.tree import Entry, Folder
from catalog.service.host_users import principal_of_uid
from imagefs import attributes, inodes
from imagefs.inodes import InodeKind
from imagefs.processes.accounts import ACCOUNTS
from imagefs.shown import Shown
from imagefs.tree import PAGE, Tree


class AtOnce:
    """Answers about names and inodes that were looked up lately."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._vfs = tree.vfs

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
            attributes.limit_time(found, node.name, text)
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

    def page(self, inode: int, after: int) -> list[Shown] | None:
        """The members of a folder behind a cookie; None if they have to be read."""
        source = self._vfs.known.page(inodes.kind_of(inode)[1], after, PAGE)
        return self._tree.shown.get((inode, after), source)

    def who_and_where(self, uid: int, number: int) -> tuple[Principal, str] | None:
        """The principal that opens an image, and the only store that the image has a name in.

        None if one of them has to be looked up.
        """
        entry = self._vfs.known.image(number)
        name = ACCOUNTS.known_name(uid)
        if entry is None or (name is None and uid != 0):
            return None
        principal = (
            ADMIN if name is None else principal_of_uid(uid, self._tree.admins, lambda _: name)
        )
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
