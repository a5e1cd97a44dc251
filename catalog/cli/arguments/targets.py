"""Finds the image that an argument means: a path, an id, or the beginning of an id."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from catalog.errors import InvalidName, InvalidValue, IsAFolder, NotFound
from catalog.model.image import Image
from catalog.model.status import Status
from catalog.model.tree import Entry, Folder

if TYPE_CHECKING:
    from catalog.tree.vfs import Vfs

_CANDIDATES = 100
"""Ids that are looked up for one prefix at most; far more than anybody reads."""


@dataclass(frozen=True, slots=True)
class Target:
    """The image that an argument means."""

    image: Image
    entry: Entry | None
    """The entry at the path that was given; None if an id was given."""


def find(vfs: Vfs, argument: str, *, is_gone: bool = False) -> Target:
    """The image that an argument means; with `is_gone`, also in a store no longer configured.

    An argument with a '/' is a path, whose first '/' may be missing; any other is an id.  Raises
    NotFound, IsAFolder, InvalidName, and InvalidValue if several ids have this beginning.
    """
    from catalog.tree import namespace

    if "/" not in argument:
        return Target(_by_id(vfs, argument), None)
    path = absolute(argument)
    node = namespace.resolve_anywhere(vfs, path) if is_gone else vfs.resolve(path)
    match node:
        case Folder():
            raise IsAFolder(argument)
        case Entry():
            return Target(node.image, node)
        case _:
            return Target(node.image, None)


def absolute(path: str) -> str:
    """A path in the tree with its first '/'.  Raises InvalidName if it is not UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        raise InvalidName(ascii(path), "a path is UTF-8") from None
    return "/" + path.strip("/")


def paths_of(vfs: Vfs, image: Image) -> list[str]:
    """Every path of an image, oldest first."""
    return [vfs.path(entry) for entry in vfs.entries_of(image.number)]


def _by_id(vfs: Vfs, prefix: str) -> Image:
    if not prefix:
        # An unset variable in a script gives an empty argument.  As a prefix it would match the
        # only image of a catalog with one.
        raise InvalidValue("IMAGE", "is empty")
    if not prefix.isascii():
        raise NotFound(ascii(prefix), _HINT)
    with vfs.catalog.read() as repository:
        found = repository.images_by_prefix(prefix.lower(), _CANDIDATES)
    present = [image for image in found if image.status is not Status.DELETED]
    if not present:
        raise NotFound(prefix, _HINT)
    if len(present) > 1:
        candidates = ", ".join(f"{image.id} ({image.name})" for image in present[:5])
        more = f" and {len(present) - 5} more" if len(present) > 5 else ""
        raise InvalidValue(prefix, f"is ambiguous: {candidates}{more}")
    return present[0]


_HINT = "no image has this id; a path begins with '/', such as /file/NAME"
