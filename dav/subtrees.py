"""Folders with all that is in them: copied and deleted as one.

Users: `resources`.  Whatever would stop half-way is looked for first: all of it is done or
nothing, unless a store fails meanwhile.
"""

from __future__ import annotations

from catalog import duplicate
from catalog.access import Principal, check_change
from catalog.errors import Forbidden, InvalidName, NotFound, Protected
from catalog.image import Entry, Folder, Place
from catalog.members import visible
from catalog.names import is_temporary
from catalog.namespace import Node
from catalog.rules import check_own
from catalog.sparing import Meant
from catalog.vfs import Vfs


def find(vfs: Vfs, place: Place) -> Node | None:
    """What stands at `place`; None for nothing."""
    try:
        return vfs.lookup(place.folder, place.name)
    except NotFound:
        return None


def remove(
    vfs: Vfs, node: Node, place: Place, principal: Principal, meant: Meant = Meant.PERHAPS
) -> None:
    """Delete an image, or a folder with all that is in it: all of it or nothing."""
    if not isinstance(node, Folder):
        vfs.remove(place, principal, meant)
        return
    check_removable(vfs, node, principal)
    for member in list(vfs.members(node.number)):
        remove(vfs, member, Place(node.number, member.name), principal)
    vfs.remove_folder(place, principal)


def check_removable(vfs: Vfs, folder: Folder, principal: Principal) -> None:
    """Raise Forbidden, Protected or Spared for what would stop a deletion in the middle.

    A store and its trash are not deleted, so neither is what they hold.
    """
    check_own(folder, principal)
    for member in vfs.members(folder.number):
        if isinstance(member, Folder):
            check_removable(vfs, member, principal)
        elif isinstance(member, Entry):
            _check_change(vfs, folder, member, principal)
            if member.image.protected:
                raise Protected(member.name)
            vfs.check_meant(member, Meant.PERHAPS)


def _check_change(vfs: Vfs, folder: Folder, member: Entry, principal: Principal) -> None:
    """As `check_change`; what the principal may not see is not named."""
    try:
        check_change(principal, member.image)
    except Forbidden:
        if member.image.number in visible(vfs.catalog, [member.image], principal):
            raise
        raise Forbidden(folder.name, "holds what belongs to somebody else") from None


def _visible(vfs: Vfs, folder: Folder, principal: Principal) -> list[Node]:
    members = list(vfs.members(folder.number))
    images = [member.image for member in members if isinstance(member, Entry)]
    seen = visible(vfs.catalog, images, principal)
    return [node for node in members if isinstance(node, Folder) or node.image.number in seen]


def check_copy(vfs: Vfs, node: Node, target: Place, principal: Principal, *, members: bool) -> None:
    """Raise what would stop a copy in the middle."""
    store = vfs.store_for(target)
    temporary = vfs.folder(target.folder).temporary or is_temporary(target.name)

    def check(node: Node) -> None:
        if isinstance(node, Folder):
            for member in _visible(vfs, node, principal) if members else ():
                check(member)
        elif isinstance(node, Entry):
            duplicate.check_copy(vfs.catalog, node, store, principal)
            if temporary:
                raise InvalidName(target.name, "a temporary name cannot hold an image")

    check(node)


def copy(vfs: Vfs, node: Node, target: Place, principal: Principal, *, members: bool) -> None:
    """Copy an image, or a folder and, if wanted, its members (RFC 4918 §9.8.3)."""
    if isinstance(node, Entry):
        vfs.copy(node, target, principal, replace=True)
    elif isinstance(node, Folder):
        made = vfs.make_folder(target, principal)
        for member in _visible(vfs, node, principal) if members else ():
            copy(vfs, member, Place(made.number, member.name), principal, members=True)
