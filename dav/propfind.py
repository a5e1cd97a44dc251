"""PROPFIND, written while it is read from the catalog (RFC 4918 §9.1).

Users: `app`.  A folder of any size is answered in pages: memory holds one page, and the
first bytes go out at once.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from xml.etree.ElementTree import Element

from catalog import members
from catalog.access import Principal
from catalog.errors import CatalogError
from catalog.image import Entry, Folder
from catalog.vfs import Node, Vfs
from dav import properties, representation, xml
from dav.errors import HttpError
from dav.lockdiscovery import Locks
from dav.properties import Render, Subject
from dav.response import Response

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
_OK = "HTTP/1.1 200 OK"
_MISSING = "HTTP/1.1 404 Not Found"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a PROPFIND asks for."""

    names: tuple[str, ...] | None
    """Properties by name; None for all or for the names alone."""
    only_names: bool = False
    include: tuple[str, ...] = ()


def respond(vfs: Vfs, node: Node, principal: Principal, environ: dict[str, Any]) -> Response:
    """Answer a PROPFIND of depth 0 or 1.

    Raises HttpError 400 for a body that is no `propfind`.
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
    body: Iterable[bytes] = _Listing(vfs, principal, environ, wanted).write(node, depth == "1")
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

    def __init__(
        self, vfs: Vfs, principal: Principal, environ: dict[str, Any], wanted: Wanted
    ) -> None:
        self._vfs = vfs
        self._principal = principal
        self._wanted = wanted
        self._locks = Locks(vfs.catalog)
        asked = set(wanted.names or ()) | set(wanted.include)
        self._needs_room = any(name.startswith("{DAV:}quota") for name in asked)
        self._needs_custom = wanted.names is None or any(
            not name.startswith(("{DAV:}", f"{{{properties.OWNCLOUD}}}")) for name in asked
        )
        names = wanted.names
        if names is None:
            names = tuple(dict.fromkeys((*properties.ALLPROP, *wanted.include)))
        self._renders: list[tuple[str, Render]] = [
            (name, properties.renderer(name)) for name in names
        ]

    def write(self, node: Node, deep: bool) -> Iterator[bytes]:
        path = self._vfs.path(node).rstrip("/")
        yield _HEAD + self._responses([(path, node)])
        if deep and isinstance(node, Folder):
            after = 0
            while page := self._vfs.page(node.number, after=after):
                after = page[-1][0]
                shown = self._shown([child for _cookie, child in page])
                yield self._responses([(f"{path}/{child.name}", child) for child in shown])
        yield _TAIL

    def _shown(self, nodes: list[Node]) -> list[Node]:
        """What the principal may see; /.by-id would list each image a second time."""
        images = [node.image for node in nodes if isinstance(node, Entry)]
        visible = members.visible(self._vfs.catalog, images, self._principal)
        return [
            node
            for node in nodes
            if (
                node.image.number in visible if isinstance(node, Entry) else node != self._vfs.by_id
            )
        ]

    def _responses(self, members: list[tuple[str, Node]]) -> bytes:
        numbers = [node.image.number for _path, node in members if isinstance(node, Entry)]
        extra = self._vfs.catalog.extra(numbers) if self._needs_custom and numbers else {}
        return "".join(
            self._response(self._subject(path, node, extra)) for path, node in members
        ).encode()

    def _subject(self, path: str, node: Node, extra: dict[int, Any]) -> Subject:
        custom, tags, stores = {}, (), ()
        size = 0
        used = available = None
        if isinstance(node, Entry):
            number = node.image.number
            custom, tags, stores = extra.get(number, ({}, (), (node.store,)))
            size = representation.content_length(node.image, self._vfs.uploads.get(number))
        elif self._needs_room and isinstance(node, Folder):
            used, available = self._room(node)
        locks = self._locks.discovery(path or "/")
        return Subject(node, path, custom, tags, stores, size, locks, used, available)

    def _room(self, folder: Folder) -> tuple[int | None, int | None]:
        try:
            usage = self._vfs.usage(folder.store)
        except CatalogError:
            return None, None
        if usage.total is None or usage.free is None:
            return None, usage.free
        return usage.total - usage.free, usage.free

    def _response(self, subject: Subject) -> str:
        href = representation.href(subject.path or "/", subject.node)
        found, missing = self._propstats(subject)
        parts = [f"<D:response><D:href>{href}</D:href>"]
        if found or not missing:
            parts.append(_propstat(found, _OK))
        if missing:
            parts.append(_propstat(missing, _MISSING))
        parts.append("</D:response>\n")
        return "".join(parts)

    def _propstats(self, subject: Subject) -> tuple[list[str], list[str]]:
        if self._wanted.only_names:
            return [properties.element(name, "") for name in properties.names(subject)], []
        renders = self._renders
        if self._wanted.names is None and subject.custom:
            custom = properties.custom_names(subject)
            added = [name for name in custom if name not in self._wanted.include]
            renders = [*renders, *((name, properties.renderer(name)) for name in added)]
        found, missing = [], []
        for name, render in renders:
            content = render(subject)
            if content is not None:
                found.append(properties.element(name, content))
            elif self._wanted.names is not None:
                missing.append(properties.element(name, ""))
        return found, missing


def _propstat(elements: list[str], status: str) -> str:
    return (
        f"<D:propstat><D:prop>{''.join(elements)}</D:prop>"
        f"<D:status>{status}</D:status></D:propstat>"
    )


def _accepts_gzip(header: str) -> bool:
    """Whether `Accept-Encoding` names gzip, and not to forbid it (RFC 9110 §12.5.3)."""
    for coding in header.lower().split(","):
        name, _, weight = coding.replace(" ", "").partition(";")
        if name == "gzip":
            return _FORBIDDEN.fullmatch(weight) is None
    return False


def _gzip(blocks: Iterable[bytes]) -> Iterator[bytes]:
    # 16 + 15: a gzip header; level 1: a listing shrinks to a tenth at any level.
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    for block in blocks:
        if packed := packer.compress(block) + packer.flush(zlib.Z_SYNC_FLUSH):
            yield packed
    yield packer.flush()
