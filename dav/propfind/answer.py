"""PROPFIND, answered while the catalog is being read (RFC 4918 §9.1).

A folder of any size is answered in pages: memory holds one page, and the first bytes are sent at
once.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import MappingProxyType
from typing import Any
from urllib.parse import quote
from xml.etree.ElementTree import Element

from catalog.errors import CatalogError
from catalog.model.access import Principal
from catalog.model.activity import Version
from catalog.model.fields import Details
from catalog.model.image import Image
from catalog.model.status import Status
from catalog.model.tree import Folder, Listed
from catalog.rules import members
from catalog.tree.namespace import BY_ID, Member, Node
from catalog.tree.vfs import Vfs
from dav import xml
from dav.propfind import properties
from dav.propfind.kept_pages import Page, Pages
from dav.propfind.lockdiscovery import Locks
from dav.propfind.properties import Subject
from web.exchange import representation
from web.exchange.errors import HttpError
from web.exchange.response import Response

_HEAD = (
    '<?xml version="1.0" encoding="utf-8"?>\n<D:multistatus '
    + " ".join(f'xmlns:{prefix}="{name}"' for name, prefix in properties.PREFIXES.items())
    + ">\n"
).encode()
_TAIL = b"</D:multistatus>\n"
_FINITE_DEPTH = (
    b'<?xml version="1.0" encoding="utf-8"?>\n'
    b'<D:error xmlns:D="DAV:"><D:propfind-finite-depth/></D:error>\n'
)
_FORBIDDEN = re.compile(r"q=0(\.0{0,3})?")
_LOCKS = "{DAV:}lockdiscovery"
_OK = "<D:status>HTTP/1.1 200 OK</D:status>"
_MISSING = "<D:status>HTTP/1.1 404 Not Found</D:status>"
_NOTHING: Mapping[str, str] = MappingProxyType({})
_PAGE = 1000
"""Members that are read in one step."""
_PLAIN = re.compile(r"[\w.~-]+", re.ASCII)


_Named = tuple[str, Folder | None, Image | Listed | None]
"""A member's name, and either its folder or its image."""


def _parts(node: Node | Member) -> tuple[Folder | None, Image | Listed | None]:
    match node:
        case Folder():
            return node, None
        case Listed():
            return None, node
        case _:
            return None, node.image


def _is_growing(member: _Named) -> bool:
    image = member[2]
    return image is not None and image.status is Status.SAVING


def _quoted(name: str) -> str:
    """As `quote`, but faster for names that need no quoting."""
    return name if _PLAIN.fullmatch(name) else quote(name)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a PROPFIND asks for."""

    names: tuple[str, ...] | None
    """The properties by name; None for all of them, or for their names only."""
    only_names: bool = False
    include: tuple[str, ...] = ()


def respond(
    vfs: Vfs, node: Node, principal: Principal, environ: dict[str, Any], pages: Pages
) -> Response:
    """Answer a PROPFIND of depth 0 or 1.

    Raises HttpError 400 for a body that is not a `propfind`.
    """
    depth = environ.get("HTTP_DEPTH", "infinity").lower()
    if depth not in ("0", "1"):
        headers = [
            ("Content-Type", "application/xml; charset=utf-8"),
            ("Content-Length", str(len(_FINITE_DEPTH))),
        ]
        return Response(HTTPStatus.FORBIDDEN, headers, [_FINITE_DEPTH])
    wanted = parse(environ["wsgi.input"].read())
    headers = [("Content-Type", "application/xml; charset=utf-8"), ("Vary", "Accept-Encoding")]
    body: Iterable[bytes] = _Listing(vfs, principal, wanted, pages).write(node, depth == "1")
    if _accepts_gzip(environ.get("HTTP_ACCEPT_ENCODING", "")):
        headers.append(("Content-Encoding", "gzip"))
        body = _gzip(body)
    return Response(HTTPStatus.MULTI_STATUS, headers, body)


def parse(body: bytes) -> Wanted:
    """Read a `propfind` element; an empty body asks for all (RFC 4918 §9.1)."""
    if not body.strip():
        return Wanted(None)
    root = xml.parse(body)
    if root.tag != "{DAV:}propfind":
        raise HttpError(HTTPStatus.BAD_REQUEST, "the body is no propfind")
    children = {child.tag: child for child in root}
    if "{DAV:}propname" in children:
        return Wanted(None, only_names=True)
    if "{DAV:}allprop" in children:
        return Wanted(None, include=_names(children.get("{DAV:}include")))
    if "{DAV:}prop" in children:
        return Wanted(_names(children["{DAV:}prop"]))
    raise HttpError(HTTPStatus.BAD_REQUEST, "propfind asks for prop, allprop or propname")


def _names(parent: Element | None) -> tuple[str, ...]:
    if parent is None:
        return ()
    found = tuple(dict.fromkeys(child.tag for child in parent))
    for name in found:
        namespace, _local = properties.split(name)
        if not name.startswith("{") and namespace:
            raise HttpError(HTTPStatus.BAD_REQUEST, f"{name} is no property's name")
    return found


class _Listing:
    """One PROPFIND being answered."""

    def __init__(self, vfs: Vfs, principal: Principal, wanted: Wanted, pages: Pages) -> None:
        self._vfs = vfs
        self._principal = principal
        self._wanted = wanted
        self._pages = pages
        self._locks = Locks(vfs.catalog)
        names = wanted.names
        if names is None:
            names = tuple(dict.fromkeys((*properties.ALLPROP, *wanted.include)))
        self._columns = [properties.column(name) for name in names]
        self._needs_locks = wanted.only_names or _LOCKS in names
        self._needs_room = any(name.startswith("{DAV:}quota") for name in names)
        self._needs_custom = wanted.names is None or any(map(properties.needs_custom, names))
        self._needs_details = wanted.only_names or any(map(properties.needs_details, names))

    def write(self, node: Node, deep: bool) -> Iterator[bytes]:
        path = self._vfs.path(node).rstrip("/")
        above, _, name = path.rpartition("/")
        yield _HEAD + self._responses(above, [(name, *_parts(node))])
        if deep and isinstance(node, Folder):
            version = self._pages.refresh()
            after = 0
            while page := self._page(version, node.number, path, after):
                after = page.last
                yield page.body
        yield _TAIL

    def _page(self, version: Version, folder: int, path: str, after: int) -> Page | None:
        """The members after the cookie `after`; None if there are no more."""
        # Not kept: these parts of an answer change without a row in the change feed.
        may_keep = (
            folder != BY_ID and not self._needs_room and not (self._needs_locks and self._locks.any)
        )
        key = (path, after, self._wanted, self._principal)
        if may_keep and (kept := self._pages.get(key)):
            return kept
        members = self._vfs.page(folder, after=after, limit=_PAGE)
        if not members:
            return None
        found = [(member.name, *_parts(member)) for _cookie, member in members]
        page = Page(
            body=self._responses(path, self._shown(found)),
            folder=folder,
            first=after,
            last=members[-1][0],
            is_end=len(members) < _PAGE,
            names=frozenset(name for name, _folder, _image in found),
            images=frozenset(image.number for _name, _folder, image in found if image),
            folders=frozenset(folder.number for _name, folder, _image in found if folder),
        )
        if may_keep and not any(map(_is_growing, found)):
            self._pages.put(key, page, version)
        return page

    def _shown(self, found: list[_Named]) -> list[_Named]:
        """The members the principal may see, without /.by-id, which has each image once more."""
        images = [image for _name, _folder, image in found if image is not None]
        visible = members.visible(self._vfs.catalog, images, self._principal)
        return [
            each
            for each in found
            if (each[1] != self._vfs.by_id if each[2] is None else each[2].number in visible)
        ]

    def _responses(self, above: str, found: list[_Named]) -> bytes:
        """The responses for members of the folder with the path `above`."""
        numbers = [image.number for _name, _folder, image in found if image is not None]
        custom: Mapping[int, Mapping[str, str]] = {}
        details: Mapping[int, Details] = {}
        if self._needs_details and numbers:
            details = self._vfs.catalog.details_of(numbers)
            custom = {number: each.properties for number, each in details.items()}
        elif self._needs_custom and numbers:
            custom = self._vfs.catalog.properties_of(numbers)
        quoted = quote(above)
        parts = []
        for name, folder, image in found:
            locks = self._locks.discovery(f"{above}/{name}") if self._needs_locks else ""
            href = f"{quoted}/{_quoted(name)}"
            if folder is not None:
                room = self._room(folder) if self._needs_room else (None, None)
                subject = Subject(name, folder, None, 0, locks, {}, None, *room)
                href += "/" if name else ""
            elif image is not None:
                number = image.number
                size = representation.content_length(image, self._vfs.uploads)
                extra = custom.get(number, _NOTHING), details.get(number)
                subject = Subject(name, None, image, size, locks, *extra)
            parts.append(self._response(href, subject))
        return "".join(parts).encode()

    def _room(self, folder: Folder) -> tuple[int | None, int | None]:
        """The store's bytes used and available."""
        try:
            usage = self._vfs.usage(folder.store)
        except CatalogError:
            return None, None
        if usage.total is None or usage.free is None:
            return None, usage.free
        return usage.total - usage.free, usage.free

    def _response(self, href: str, subject: Subject) -> str:
        found, missing = self._propstats(subject)
        parts = f"<D:response><D:href>{href}</D:href>"
        if found or not missing:
            parts += f"<D:propstat><D:prop>{found}</D:prop>{_OK}</D:propstat>"
        if missing:
            parts += f"<D:propstat><D:prop>{missing}</D:prop>{_MISSING}</D:propstat>"
        return parts + "</D:response>\n"

    def _propstats(self, subject: Subject) -> tuple[str, str]:
        """The elements of the properties that it has, and of those that it does not have."""
        if self._wanted.only_names:
            return "".join(properties.column(name).alone for name in properties.names(subject)), ""
        columns = self._columns
        if self._wanted.names is None and subject.custom:
            custom = properties.custom_names(subject)
            columns = columns + [
                properties.column(name) for name in custom if name not in self._wanted.include
            ]
        found = missing = ""
        for render, opening, closing, alone in columns:
            content = render(subject)
            if content:
                found += opening + content + closing
            elif content is not None:
                found += alone
            else:
                missing += alone
        return found, missing if self._wanted.names is not None else ""


def _accepts_gzip(header: str) -> bool:
    """Whether `Accept-Encoding` allows gzip by name (RFC 9110 §12.5.3)."""
    for coding in header.lower().split(","):
        name, _, weight = coding.replace(" ", "").partition(";")
        if name == "gzip":
            return _FORBIDDEN.fullmatch(weight) is None
    return False


def _gzip(blocks: Iterable[bytes]) -> Iterator[bytes]:
    # Window bits 16 + 15 make a gzip header.  Level 1, as a listing shrinks to a tenth at any
    # level.
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    for block in blocks:
        if packed := packer.compress(block) + packer.flush(zlib.Z_SYNC_FLUSH):
            yield packed
    yield packer.flush()
