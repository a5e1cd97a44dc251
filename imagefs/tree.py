"""Names, attributes and extended attributes: inodes in, `catalog.tree.vfs` underneath.

Threading: any thread but trio's, as everything here may wait for the database.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pyfuse3

from catalog import cause
from catalog.errors import Forbidden, InvalidName, InvalidValue, NotFound, NotSupported
from catalog.model.access import Principal
from catalog.model.fields import Details
from catalog.model.image import Image
from catalog.model.tree import Entry, Folder, Listed, Place
from catalog.rules import fields
from catalog.rules.members import check_see
from catalog.rules.sparing import Meant
from catalog.service.host_users import admin_uids, principal_of_uid
from catalog.tree.namespace import Link, Member, Node
from catalog.tree.vfs import Vfs
from imagefs import attributes, inodes
from imagefs.inodes import InodeKind
from imagefs.processes.accounts import ACCOUNTS
from imagefs.shown import Shown, ShownPages

PAGE = 512
"""Members that are fetched at once for a listing."""


class Tree:
    """The virtual tree by inode numbers."""

    def __init__(self, vfs: Vfs) -> None:
        self.vfs = vfs
        self.shown = ShownPages()
        self.admins = admin_uids(vfs.catalog.settings.url) | {os.geteuid()}

    def principal(self, uid: int) -> Principal:
        """The principal of a request; the user who runs the mount is its administrator.

        Raises CatalogUnavailable.
        """
        principal = principal_of_uid(uid, self.admins, ACCOUNTS.name)
        cause.note(principal.name)
        return principal

    # -- looking -----------------------------------------------------------------------

    def lookup(self, parent: int, name: bytes) -> pyfuse3.EntryAttributes:
        """The attributes of a name.  Raises NotFound."""
        try:
            text = name.decode()
        except UnicodeDecodeError:
            raise NotFound(ascii(name)) from None
        node = self.vfs.lookup(_folder(parent), text)
        found = self._attributes(node)
        attributes.limit_time(found, node.name, text)
        return found

    def dot(self, inode: int, name: bytes) -> pyfuse3.EntryAttributes:
        """The attributes of `.` or `..`, which an export over NFS asks for."""
        if name == b".":
            return self.getattr(inode)
        return attributes.of_folder(self.vfs.folder(self.vfs.folder(_folder(inode)).parent))

    def getattr(self, inode: int) -> pyfuse3.EntryAttributes:
        """The attributes of an inode.  Raises NotFound."""
        kind, number = inodes.kind_of(inode)
        match kind:
            case InodeKind.FOLDER:
                return attributes.of_folder(self.vfs.folder(number))
            case InodeKind.IMAGE:
                node = self.vfs.image(number)
                return (
                    self._image_attributes(node)
                    if isinstance(node, Image)
                    else self._attributes(node)
                )
            case InodeKind.LINK:
                return attributes.of_link(self._link(number))
            case InodeKind.FRESH:
                return attributes.of_fresh(self.vfs.catalog.image(number), b"")

    def readlink(self, inode: int) -> bytes:
        """The target of a link in /.by-id."""
        return self._link(inodes.kind_of(inode)[1]).target.encode()

    def _link(self, number: int) -> Link:
        node = self.vfs.lookup(self.vfs.by_id.number, self.vfs.catalog.image(number).id)
        assert isinstance(node, Link)
        return node

    def page(self, inode: int, after: int) -> list[Shown]:
        """Members of a folder behind a cookie: cookie, name, attributes."""
        folder = _folder(inode)
        members: Sequence[tuple[int, Member]] | None = self.vfs.known.page(folder, after, PAGE)
        if members is None:
            members = self.vfs.page(folder, after=after, limit=PAGE)
        links = self.vfs.link_counts([it.number for _, it in members if isinstance(it, Listed)])
        shown = [
            (cookie, member.name.encode(), self._attributes(member, links))
            for cookie, member in members
        ]
        self.shown.put((inode, after), members, shown)
        return shown

    def statfs(self) -> pyfuse3.StatvfsData:
        """The room of the default store."""
        usage = self.vfs.usage("")
        size = attributes.BLOCK
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = size
        # For a store without a limit, more than anybody has.
        data.f_blocks = (usage.total if usage.total is not None else 1 << 60) // size
        free = (usage.free if usage.free is not None else 1 << 60) // size
        data.f_bfree = data.f_bavail = free
        data.f_files = data.f_ffree = data.f_favail = 1 << 40
        data.f_namemax = 255
        return data

    def _attributes(
        self, node: Node | Member, links: Mapping[int, int] | None = None
    ) -> pyfuse3.EntryAttributes:
        match node:
            case Folder():
                return attributes.of_folder(node)
            case Link():
                return attributes.of_link(node)
            case Entry():
                if node.links is not None:
                    links = {node.image.number: node.links}
                return self._image_attributes(node.image, links)
            case Listed():
                return self._image_attributes(node, links)

    def _image_attributes(
        self, image: Image | Listed, links: Mapping[int, int] | None = None
    ) -> pyfuse3.EntryAttributes:
        if links is None:
            links = self.vfs.link_counts([image.number])
        upload = self.vfs.uploads.get(image.number)
        return attributes.of_image(image, upload, links=links.get(image.number, 1))

    # -- changing names ----------------------------------------------------------------

    def create(
        self, parent: int, name: bytes, principal: Principal
    ) -> tuple[Entry, pyfuse3.EntryAttributes]:
        """Make a queued image."""
        entry = self.vfs.create(_place(parent, name), principal)
        return entry, self._attributes(entry)

    def make_node(self, parent: int, name: bytes, mode: int, uid: int) -> pyfuse3.EntryAttributes:
        """mknod(2), only for regular files."""
        if not stat.S_ISREG(mode):
            raise NotSupported(ascii(name), "only images and folders are here")
        _entry, found = self.create(parent, name, self.principal(uid))
        return found

    def make_folder(self, parent: int, name: bytes, uid: int) -> pyfuse3.EntryAttributes:
        """mkdir(2)."""
        return attributes.of_folder(self.vfs.make_folder(_place(parent, name), self.principal(uid)))

    def remove_folder(self, parent: int, name: bytes, uid: int) -> None:
        """rmdir(2)."""
        self.vfs.remove_folder(_place(parent, name), self.principal(uid))

    def remove(self, parent: int, name: bytes, uid: int) -> None:
        """unlink(2)."""
        self.vfs.remove(_place(parent, name), self.principal(uid), Meant.LIKELY)

    def rename(
        self, source: tuple[int, bytes], target: tuple[int, bytes], uid: int, replaces: bool
    ) -> None:
        """renameat2(2), without RENAME_EXCHANGE."""
        self.vfs.rename(_place(*source), _place(*target), self.principal(uid), replace=replaces)

    def link(self, inode: int, parent: int, name: bytes, uid: int) -> pyfuse3.EntryAttributes:
        """Replicate an image to another store, as ln does."""
        kind, number = inodes.kind_of(inode)
        if kind is not InodeKind.IMAGE:
            raise Forbidden(ascii(name), "only images can be linked")
        return self._attributes(self.vfs.link(number, _place(parent, name), self.principal(uid)))

    def symlink(self, parent: int, name: bytes, target: bytes, uid: int) -> pyfuse3.EntryAttributes:
        """Register the image at a URL, as ln -s does."""
        try:
            url = target.decode()
        except UnicodeDecodeError:
            raise InvalidName(ascii(target), "is not a URL") from None
        entry = self.vfs.register(_place(parent, name), url, self.principal(uid))
        return attributes.of_fresh(entry.image, target)

    def set_mtime(self, number: int, mtime: int, uid: int) -> None:
        """Keep a modification time that a tool sets, in nanoseconds.

        Times before 1677 and after 2262 become the nearest one that fits, as on other file
        systems.
        """
        mtime = max(-(2**63), min(mtime, 2**63 - 1))
        upload = self.vfs.uploads.get(number)
        if upload is not None:
            upload.mtime = mtime
        else:
            fields.set_mtime(self.vfs.catalog, number, mtime, self.principal(uid))

    # -- extended attributes -----------------------------------------------------------

    def xattrs(self, inode: int, uid: int) -> dict[str, str]:
        """All extended attributes of an image; other inodes have none."""
        details = self._details(inode, uid)
        return {} if details is None else attributes.extended(details)

    def listed_xattrs(self, inode: int, uid: int) -> list[str]:
        """The names of the extended attributes for listxattr(2)."""
        details = self._details(inode, uid)
        return [] if details is None else attributes.listed(details)

    def _details(self, inode: int, uid: int) -> Details | None:
        kind, number = inodes.kind_of(inode)
        if kind is not InodeKind.IMAGE:
            return None
        details = self.vfs.catalog.details(number)
        check_see(self.vfs.catalog, details.image, self.principal(uid))
        upload = self.vfs.uploads.get(number)
        if upload is not None:
            details = replace(details, image=replace(details.image, size=upload.size))
        return details

    def set_xattr(self, inode: int, name: str, value: bytes | None, uid: int) -> None:
        """setxattr(2); None is removexattr(2)."""
        kind, number = inodes.kind_of(inode)
        if kind is not InodeKind.IMAGE:
            raise Forbidden(name, "only images have attributes")
        try:
            text = None if value is None else value.decode()
        except UnicodeDecodeError:
            raise InvalidValue(name, "is not UTF-8") from None
        fields.set_attributes(self.vfs.catalog, number, {name: text}, self.principal(uid))


def _folder(inode: int) -> int:
    return inodes.kind_of(inode)[1]


def _place(parent: int, name: bytes) -> Place:
    try:
        return Place(_folder(parent), name.decode())
    except UnicodeDecodeError:
        raise InvalidName(ascii(name), "a name is UTF-8") from None
