"""Catalog values as what stat(2) and getxattr(2) return (docs/semantics.md#statuses).

Threading: any thread; user names are looked up, which may wait.
"""

from __future__ import annotations

import stat

import pyfuse3

from catalog.model.fields import FIELDS, Details
from catalog.model.image import Image, Visibility
from catalog.model.status import IN_PROGRESS, Status
from catalog.model.tree import Folder, FolderKind, Listed
from catalog.tree.namespace import Link
from catalog.uploads.upload import Upload
from imagefs import inodes
from imagefs.processes.accounts import ACCOUNTS

STABLE = 300.0
"""Seconds for which the kernel may keep names and attributes that only the catalog changes.  When
they change, `feed` invalidates them earlier."""
BLOCK = 1024 * 1024
"""st_blksize: the size of the buffer of cp(1) and others.  It is that of one FUSE request."""

IMAGE_PREFIX = "user.image."
PROPERTY_PREFIX = "user.property."

_MODES = {
    Status.QUEUED: 0o644,
    Status.SAVING: 0o600,
    Status.UPLOADING: 0o600,
    Status.IMPORTING: 0o600,
    Status.ACTIVE: 0o444,
    Status.DEACTIVATED: 0o400,
    Status.KILLED: 0o000,
    Status.PENDING_DELETE: 0o400,
    Status.DELETED: 0o000,
}
_MODES_IN_TRASH = {
    Status.ACTIVE: 0o444,
    Status.DEACTIVATED: 0o400,
    Status.KILLED: 0o000,
}
"""By the status before the deletion: who could read the image can read it until it is purged."""
_NANOSECONDS = 10**9


def of_image(
    image: Image | Listed, upload: Upload | None, *, links: int = 1
) -> pyfuse3.EntryAttributes:
    """The attributes of an image, as one inode under all its names."""
    status = image.status
    attributes = _attributes(inodes.of_image(image.number), image.owner)
    size = upload.size if upload is not None else image.size
    mtime = image.mtime
    if upload is not None and upload.mtime is not None:
        mtime = upload.mtime
    mode = _MODES[status]
    if image.status_before_delete is not None:
        mode = _MODES_IN_TRASH.get(image.status_before_delete, mode)
    if image.visibility is Visibility.PRIVATE:
        mode &= 0o600
    attributes.st_mode = pyfuse3.ModeT(stat.S_IFREG | mode)
    attributes.st_nlink = links
    attributes.st_size = size
    attributes.st_blocks = -(-size // 512)
    attributes.st_mtime_ns = attributes.st_atime_ns = mtime
    attributes.st_ctime_ns = int(image.updated_at.timestamp() * _NANOSECONDS)
    attributes.attr_timeout = STABLE if status in _STABLE else 0
    if status is Status.PENDING_DELETE:
        # The next deleted image of this name takes over the name in the trash.
        attributes.entry_timeout = 0
    return attributes


_STABLE = frozenset(Status) - IN_PROGRESS - {Status.QUEUED}


_FOLDER_MODES = {
    FolderKind.STORE: 0o1777,
    FolderKind.PLAIN: 0o1777,
    FolderKind.TRASH: 0o711,
}


def of_folder(folder: Folder) -> pyfuse3.EntryAttributes:
    """The attributes of a folder.

    In the folders of a store anybody may add, and only owners may remove, as in /tmp; the
    catalog decides the rest.  Only the administrator changes the root and the trash, and lists
    the trash.  Others can open an image in the trash by its name.
    """
    attributes = _attributes(inodes.of_folder(folder.number), folder.owner)
    mode = _FOLDER_MODES.get(folder.kind, 0o755)
    attributes.st_mode = pyfuse3.ModeT(stat.S_IFDIR | mode)
    attributes.st_nlink = 2
    at = int(folder.updated_at.timestamp() * _NANOSECONDS)
    attributes.st_mtime_ns = attributes.st_atime_ns = attributes.st_ctime_ns = at
    attributes.attr_timeout = 1
    return attributes


def of_link(link: Link) -> pyfuse3.EntryAttributes:
    """The attributes of an entry in /.by-id."""
    attributes = _link(inodes.of_link(link.image.number), len(link.target.encode()))
    attributes.entry_timeout = attributes.attr_timeout = 1
    return attributes


def of_fresh(image: Image, target: bytes) -> pyfuse3.EntryAttributes:
    """The answer to symlink(2): the kernel demands a link.

    The time-outs of 0 make it look the name up again, and then it finds a file.
    """
    attributes = _link(inodes.of_fresh(image.number), len(target))
    attributes.entry_timeout = attributes.attr_timeout = 0
    return attributes


def _link(inode: pyfuse3.InodeT, size: int) -> pyfuse3.EntryAttributes:
    attributes = _attributes(inode, "root")
    attributes.st_mode = pyfuse3.ModeT(stat.S_IFLNK | 0o777)
    attributes.st_nlink = 1
    attributes.st_size = size
    return attributes


def limit_time(found: pyfuse3.EntryAttributes, name: str, asked: str) -> None:
    """Let the kernel not keep a name that is another form of the stored `name` (Unicode).

    `feed` invalidates only the stored form.
    """
    if name != asked:
        found.entry_timeout = 0


def _attributes(inode: pyfuse3.InodeT, owner: str) -> pyfuse3.EntryAttributes:
    attributes = pyfuse3.EntryAttributes()
    attributes.st_ino = inode
    attributes.st_uid, attributes.st_gid = ACCOUNTS.ids(owner)
    attributes.st_blksize = BLOCK
    attributes.generation = 0
    attributes.entry_timeout = STABLE
    return attributes


def extended(details: Details) -> dict[str, str]:
    """Every extended attribute of an image, by name."""
    found = {}
    for name, field in FIELDS.items():
        value = field.render(details)
        if value:
            found[IMAGE_PREFIX + name] = value
    for name, value in details.properties.items():
        found[PROPERTY_PREFIX + name] = value
    return found


def listed(details: Details) -> list[str]:
    """The names for listxattr(2): those that a copy of the image shall have, too.

    Every field can be read by its name, listed or not.  If all fields were listed, `rsync -X`
    would copy an image's id and dates to another image, which refuses them, and would remove
    the fields that its source does not have.  Ceph and CIFS hide theirs for the same reason.
    """
    return [
        name
        for name, value in extended(details).items()
        if name.startswith(PROPERTY_PREFIX)
        or FIELDS[name.removeprefix(IMAGE_PREFIX)].default not in (None, value)
    ]


def catalog_name(name: str) -> str | None:
    """The catalog's name of an extended attribute (`image.…`, `property.…`), or None."""
    for prefix in (IMAGE_PREFIX, PROPERTY_PREFIX):
        if name.startswith(prefix) and len(name) > len(prefix):
            return name.removeprefix("user.")
    return None
