"""Folders and images as wsgidav's resources, for DELETE, COPY, MOVE, MKCOL, LOCK and PROPPATCH.

GET, PUT and PROPFIND do not use them (see `app`).  Each operation is one operation of the virtual
tree.  wsgidav's own recursion is not used, as it would delete a target before its replacement
exists.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, NoReturn
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape

from wsgidav.dav_error import DAVError
from wsgidav.dav_provider import DAVCollection, DAVNonCollection
from wsgidav.util import is_equal_or_child_uri
from wsgidav.xml_tools import xml_to_bytes

from catalog.errors import AlreadyExists, CatalogError, Forbidden, NotSupported, Spared
from catalog.model.access import Principal, check_change, owns
from catalog.model.tree import Entry, Folder, Place
from catalog.rules import fields
from catalog.rules.locks import find
from catalog.rules.placement import check_own
from catalog.rules.sparing import Meant
from catalog.tree import subtrees
from catalog.tree.namespace import Node
from catalog.tree.vfs import Vfs
from dav.propfind import properties
from dav.provider import destination
from dav.provider.errors import to_dav_error
from dav.provider.view import view_of
from web.exchange import representation
from web.exchange.conditions import opaque
from web.exchange.environ import REASON, principal_of, request_id_of
from web.exchange.errors import told

CREATED = "imagefs.created"
"""Set in the environ when a COPY or MOVE made a new member; wsgidav always answers 204."""

_log = logging.getLogger(__name__)

MADE = "imagefs.made"
"""The entry of an image that a LOCK has made; it is removed if the lock is refused."""

IF_MATCH = "imagefs.if_match"
"""The request's header If-Match, after it was checked."""

# Windows Explorer sets these after each upload, and nobody reads them
# (docs/facts.md#webdav-clients).
_IGNORED = "{urn:schemas-microsoft-com:}"


@contextmanager
def _dav_errors(environ: dict[str, Any]) -> Iterator[None]:
    try:
        yield
    except CatalogError as error:
        # wsgidav keeps only the status of an error, so keep its text here.
        text = told(error, principal_of(environ))
        if isinstance(error, Spared):
            text += ", and so does DELETE with If-Match"
        environ[REASON] = text
        raise to_dav_error(error, text) from error
    except DAVError:
        raise
    except Exception as error:
        # wsgidav would send the error to the client and not log it.
        _log.exception("%s failed unexpectedly", request_id_of(environ))
        raise DAVError(HTTPStatus.INTERNAL_SERVER_ERROR) from error


class _Resource:
    """The common part of folders and images."""

    path: str
    environ: dict[str, Any]
    provider: Any
    node: Node

    @property
    def _vfs(self) -> Vfs:
        vfs: Vfs = self.provider.vfs
        return vfs

    @property
    def _principal(self) -> Principal:
        return principal_of(self.environ)

    @property
    def _place(self) -> Place:
        return view_of(self.environ).spot(self.path).place

    def support_ranges(self) -> bool:
        return True

    def prevent_locking(self) -> bool:
        # A lock keeps all others from writing, so a principal that may not write gets none.  A
        # token is no secret (RFC 4918 §6.5), so it does not suffice to refresh another's lock.
        node = self.node
        with _dav_errors(self.environ):
            if isinstance(node, Entry):
                check_change(self._principal, node.image)
            elif isinstance(node, Folder) and not owns(self._principal, node.owner):
                raise Forbidden(node.name, f"belongs to {node.owner}: who owns it may lock it")
            if self._shows_a_token_of_another():
                raise Forbidden(self.path, "only who holds a lock keeps it alive")
        return False

    def _shows_a_token_of_another(self) -> bool:
        tokens = self.environ["wsgidav.ifLockTokenList"]
        held = (find(self._vfs.catalog, token) for token in tokens)
        return any(lock and lock.principal != self._principal.name for lock in held)

    def get_etag(self) -> None:
        """None: `conditions` checks the tags, and wsgidav does not accept weak ones."""

    def support_etag(self) -> bool:
        return False

    def get_last_modified(self) -> float:
        node = self.node
        if isinstance(node, Folder):
            return node.updated_at.timestamp()
        return representation.modified_at(node.image).timestamp()

    def get_display_name(self) -> str:
        return self.path.rstrip("/").rpartition("/")[2]

    def handle_delete(self) -> bool:
        # wsgidav has checked only the locks of the parent before it calls this.
        try:
            self.provider.lock_manager.check_write_permission(
                url=self.provider.ref_url(self.path),
                depth="infinity",
                token_list=self.environ["wsgidav.ifLockTokenList"],
                principal=self.environ["wsgidav.user_name"],
            )
        except DAVError as error:
            self.provider.hide(error, self.environ)
            raise
        with _dav_errors(self.environ):
            subtrees.remove(self._vfs, self.node, self._place, self._principal, self._meant())
        self.provider.drop_locks(self.path)
        return True

    def _meant(self) -> Meant:
        """Whether a DELETE says which image it means, by a tag that was compared before."""
        if isinstance(self.node, Entry):
            tag = opaque(representation.etag(self.node.image))
            tags = (opaque(each.strip()) for each in self.environ.get(IF_MATCH, "").split(","))
            states = self.environ.get("HTTP_IF", "").replace("[W/", "[")
            if tag in tags or f"([{tag}])" in states:
                return Meant.SURELY
        return Meant.PERHAPS

    def handle_move(self, dest_path: str) -> bool:
        with _dav_errors(self.environ):
            target, present = self._target(dest_path)
            self._check_room(present, target)
            self._check_move(present, target)
            self._put(present, target, self._move_to(present), self._move_back)
        self.environ[CREATED] = present is None
        self.provider.drop_locks(self.path)
        return True

    def _target(self, dest_path: str) -> tuple[Place, Node | None]:
        """The place of the destination, and the node that is there, if any."""
        path = destination.plain(dest_path)
        # wsgidav has made this check with the shielded path of `destination`; repeat it with the
        # real one.
        if is_equal_or_child_uri(self.path, path):
            raise Forbidden(path, "is what is to be copied or moved, or is in it")
        spot = view_of(self.environ).spot(path)
        return spot.place, spot.present

    def _check_move(self, present: Node | None, target: Place) -> None:
        """Raise now what would otherwise refuse the move after its target was removed."""
        if isinstance(self.node, Entry):
            check_change(self._principal, self.node.image)
        elif isinstance(self.node, Folder):
            check_own(self.node, self._principal)
            if present is not None and self._vfs.store_for(target) != self.node.store:
                raise NotSupported(self.node.name, "a folder cannot move to another store")

    def _check_room(self, present: Node | None, target: Place) -> None:
        """Raise an error if a folder at the target cannot be replaced."""
        if isinstance(present, Folder):
            subtrees.check_removable(self._vfs, present, self._principal)
            above = self._vfs.path(present).rstrip("/")
            if self.path.startswith(f"{above}/"):
                raise Forbidden(target.name, "would be deleted with what is to take its place")

    def _put(
        self,
        present: Node | None,
        target: Place,
        put: Callable[[Place], None],
        take_back: Callable[[Place], None],
    ) -> None:
        """Put this node at the target; if a folder is involved, first at a name beside it."""
        if present and Folder in (type(present), type(self.node)):
            subtrees.replace(self._vfs, present, target, self._principal, put, take_back)
        else:
            put(target)

    def _may_replace(self, present: Node | None) -> bool:
        """Whether a node at the target may be replaced, even one that came there meanwhile."""
        return present is not None or self.environ.get("HTTP_OVERWRITE") != "F"

    def _move_to(self, present: Node | None) -> Callable[[Place], None]:
        may_replace = self._may_replace(present)

        def put(place: Place) -> None:
            self._vfs.rename(self._place, place, self._principal, replace=may_replace)

        return put

    def _move_back(self, place: Place) -> None:
        self._vfs.rename(place, self._place, self._principal, replace=False)

    def handle_copy(self, dest_path: str, *, depth_infinity: bool) -> bool:
        vfs, principal = self._vfs, self._principal

        def put(place: Place) -> None:
            if isinstance(self.node, Entry):
                vfs.copy(self.node, place, principal, replace=may_replace)
            else:
                subtrees.copy(vfs, self.node, place, principal, members=depth_infinity)

        def take_back(place: Place) -> None:
            subtrees.discard(vfs, place, principal)

        with _dav_errors(self.environ):
            target, present = self._target(dest_path)
            may_replace = self._may_replace(present)
            self._check_room(present, target)
            subtrees.check_copy(vfs, self.node, target, principal, members=depth_infinity)
            self._put(present, target, put, take_back)
        self.environ[CREATED] = present is None
        return True


class Collection(_Resource, DAVCollection):  # type: ignore[misc]
    """A folder."""

    def __init__(self, path: str, environ: dict[str, Any], folder: Folder) -> None:
        super().__init__(path, environ)
        self.node = self.folder = folder

    def get_creation_date(self) -> float:
        return self.folder.created_at.timestamp()

    def get_member_names(self) -> list[str]:
        return [member.name for member in self._vfs.members(self.folder.number)]

    def create_collection(self, name: str) -> None:
        with _dav_errors(self.environ):
            try:
                self._vfs.make_folder(Place(self.folder.number, name), self._principal)
            except AlreadyExists as error:
                # The name is hidden from the principal, or was made after wsgidav looked
                # (RFC 4918 §9.3.1).
                self.environ[REASON] = str(error)
                raise DAVError(HTTPStatus.METHOD_NOT_ALLOWED, str(error)) from error

    def create_empty_resource(self, name: str) -> Member:
        """Make a queued image for a LOCK on a free name (RFC 4918 §7.3)."""
        with _dav_errors(self.environ):
            entry = self._vfs.create(Place(self.folder.number, name), self._principal)
        self.environ[MADE] = entry
        view_of(self.environ).forget()
        return Member(f"{self.path.rstrip('/')}/{name}", self.environ, entry)

    def set_property_value(self, name: str, value: Element | None, *, dry_run: bool) -> None:
        if not name.startswith(_IGNORED):
            raise DAVError(HTTPStatus.FORBIDDEN, "a folder keeps no properties")


class Member(_Resource, DAVNonCollection):  # type: ignore[misc]
    """An image."""

    def __init__(self, path: str, environ: dict[str, Any], entry: Entry) -> None:
        super().__init__(path, environ)
        self.node = entry
        self.image = entry.image
        self._changes: dict[str, str | None] = {}

    def get_content(self) -> NoReturn:
        raise NotImplementedError("`get` serves the data")

    def get_content_length(self) -> int:
        return self.image.size

    def get_content_type(self) -> str:
        return representation.content_type(self.image)

    def get_creation_date(self) -> float:
        return self.image.created_at.timestamp()

    def set_property_value(self, name: str, value: Element | None, *, dry_run: bool) -> None:
        """Set or remove (None) one property.

        wsgidav first makes a dry run for all properties of a request, and sets them if none was
        refused.  The first call that sets one sets all of them in one transaction.
        """
        if name.startswith(_IGNORED):
            return
        with _dav_errors(self.environ):
            if dry_run:
                self._changes = self._checked(name, value)
            elif self._changes:
                changes, self._changes = self._changes, {}
                fields.set_attributes(
                    self._vfs.catalog, self.image.number, changes, self._principal
                )

    def _checked(self, name: str, value: Element | None) -> dict[str, str | None]:
        """The changes of the request so far and this one, checked together."""
        namespace, local = properties.split(name)
        if namespace == "DAV:" or name in properties.LIVE:
            raise DAVError(HTTPStatus.FORBIDDEN, f"{name} is the server's own")
        check_change(self._principal, self.image)
        number, key = self.image.number, _catalog_name(name, namespace, local)
        changes = {**self._changes, key: _text(namespace, value)}
        if value is None and not _has(self._vfs, number, key):
            del changes[key]  # removing what is not there is no error (RFC 4918 §14.23)
        fields.check_attributes(self._vfs.catalog, number, changes, self._principal)
        return changes


def _catalog_name(name: str, namespace: str, local: str) -> str:
    if namespace == properties.IMAGE:
        return f"image.{local}"
    return f"property.{local if namespace == properties.PROPERTY else name}"


def _text(namespace: str, value: Element | None) -> str | None:
    if value is None:
        return None
    if namespace in (properties.IMAGE, properties.PROPERTY):
        return value.text or ""
    # A client's own property: keep its content with all markup.  Each child is written by
    # itself, as it then declares the namespaces that it needs.
    children = (xml_to_bytes(child, pretty=False).decode() for child in value)
    return escape(value.text or "") + "".join(child.partition("?>\n")[2] for child in children)


def _has(vfs: Vfs, number: int, name: str) -> bool:
    key = name.removeprefix("property.")
    return name.startswith("image.") or key in vfs.catalog.details(number).properties
