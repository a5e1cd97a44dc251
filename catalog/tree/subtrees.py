"""Copies and deletes folders with all that is in them.

Errors that would stop an operation half-way are looked for first.  If one fails half-way anyway, a
copy is removed again, and the node that it should replace is at its place.  After a failed
deletion, the images that were deleted already are in the trash.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from catalog.copies import duplicate
from catalog.errors import CatalogError, Forbidden, InvalidName, NotFound
from catalog.model.access import Principal, check_change
from catalog.model.names import beside, is_temporary
from catalog.model.tree import Entry, Folder, Place
from catalog.rules.members import visible
from catalog.rules.placement import check_own
from catalog.rules.sparing import Meant
from catalog.tree.namespace import Node
from catalog.tree.vfs import Vfs


def find(vfs: Vfs, place: Place) -> Node | None:
    """The node at `place`; None if there is none."""
    try:
        return vfs.lookup(place.folder, place.name)
    except NotFound:
        return None


def remove(
    vfs: Vfs, node: Node, place: Place, principal: Principal, meant: Meant = Meant.PERHAPS
) -> None:
    """Delete an image, or a folder with all that is in it, after checking that all may go."""
    if isinstance(node, Folder):
        check_removable(vfs, node, principal)
    _remove(vfs, node, place, principal, meant)


def _remove(vfs: Vfs, node: Node, place: Place, principal: Principal, meant: Meant) -> None:
    if not isinstance(node, Folder):
        vfs.remove(place, principal, meant)
        return
    for member in list(vfs.members(node.number)):
        _remove(vfs, member, Place(node.number, member.name), principal, Meant.PERHAPS)
    vfs.remove_folder(place, principal)


def check_removable(vfs: Vfs, folder: Folder, principal: Principal) -> None:
    """Raise what would stop a deletion half-way: Forbidden, and as `Vfs.check_remove`.

    A store and its trash cannot be deleted; for them this is raised before any of their members
    is touched.
    """
    check_own(folder, principal)
    for member in vfs.members(folder.number):
        if isinstance(member, Folder):
            check_removable(vfs, member, principal)
        elif isinstance(member, Entry):
            _check_change(vfs, folder, member, principal)
            vfs.check_remove(member, Meant.PERHAPS)


def _check_change(vfs: Vfs, folder: Folder, member: Entry, principal: Principal) -> None:
    """As `check_change`, but the error does not name an image that the principal may not see."""
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
    """Raise what would stop a copy half-way."""
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
    """Copy an image, or a folder, to a free name; with `members`, also the folder's members.

    Without them is `Depth: 0` (RFC 4918 §9.8.3).  A copy that fails is removed again.
    """
    made: list[tuple[Place, Node]] = []
    try:
        _copy(vfs, node, target, principal, members, made)
    except BaseException:
        for place, copied in reversed(made):
            with suppress(CatalogError):
                _discard(vfs, place, copied, principal)
        raise


def _copy(
    vfs: Vfs,
    node: Node,
    target: Place,
    principal: Principal,
    members: bool,
    made: list[tuple[Place, Node]],
) -> None:
    if isinstance(node, Entry):
        vfs.copy(node, target, principal, replace=False)
        made.append((target, vfs.lookup(target.folder, target.name)))
    elif isinstance(node, Folder):
        folder = vfs.make_folder(target, principal)
        made.append((target, folder))
        for member in _visible(vfs, node, principal) if members else ():
            _copy(vfs, member, Place(folder.number, member.name), principal, True, made)


def discard(vfs: Vfs, place: Place, principal: Principal) -> None:
    """Remove what `copy` has made at `place`."""
    node = vfs.lookup(place.folder, place.name)
    if isinstance(node, Folder):
        for member in list(vfs.members(node.number)):
            discard(vfs, Place(node.number, member.name), principal)
    _discard(vfs, place, node, principal)


def _discard(vfs: Vfs, place: Place, node: Node, principal: Principal) -> None:
    """Remove one node, unless another one has taken its place meanwhile."""
    present = find(vfs, place)
    if isinstance(node, Folder):
        vfs.remove_folder(place, principal)
    elif isinstance(node, Entry) and isinstance(present, Entry) and present.cookie == node.cookie:
        vfs.discard(place, principal)


def replace(
    vfs: Vfs,
    present: Node,
    target: Place,
    principal: Principal,
    put: Callable[[Place], None],
    take_back: Callable[[Place], None],
) -> None:
    """Replace `present` by a node that `put` first puts at a name beside it.

    If `present` cannot be deleted, it stays at its place, and `take_back` undoes `put`.
    """
    made = Place(target.folder, beside(target.name))
    put(made)
    try:
        if isinstance(present, Folder):
            _exchange(vfs, present, made, target, principal)
        else:
            remove(vfs, present, target, principal)
            vfs.rename(made, target, principal, replace=False)
    except BaseException:
        take_back(made)
        raise


def _exchange(vfs: Vfs, present: Folder, made: Place, target: Place, principal: Principal) -> None:
    """Exchange two names, then delete the old node; if that fails, exchange them back."""
    vfs.exchange(made, target, principal)
    try:
        remove(vfs, present, made, principal)
    except BaseException:
        vfs.exchange(made, target, principal)
        raise
