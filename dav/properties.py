"""WebDAV properties of folders and images (RFC 4918 §15; DESIGN §8).

Users: `propfind` (reads), `resources` (PROPPATCH).  Names are in Clark notation,
`{namespace}name`.

    DAV:                         what RFC 4918 and RFC 4331 define
    urn:imagefs:image            the fields of an image, as in extended attributes
    urn:imagefs:property         its custom properties
    http://owncloud.org/ns       checksums and id, as ownCloud clients and rclone read them
    any other                    kept with the image as a client set it
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from xml.sax.saxutils import escape, quoteattr

from catalog.fields import FIELDS, Details
from catalog.image import Entry, Folder, Image
from catalog.vfs import Node
from dav import representation

IMAGE = "urn:imagefs:image"
PROPERTY = "urn:imagefs:property"
OWNCLOUD = "http://owncloud.org/ns"

PREFIXES = {"DAV:": "D", IMAGE: "I", PROPERTY: "P", OWNCLOUD: "oc"}
"""Namespaces that a multi-status declares once."""

_NAME = re.compile(r"[A-Za-z_][\w.-]*", re.ASCII)

SUPPORTED_LOCK = "".join(
    f"<D:lockentry><D:lockscope><D:{scope}/></D:lockscope>"
    "<D:locktype><D:write/></D:locktype></D:lockentry>"
    for scope in ("exclusive", "shared")
)


@dataclass(frozen=True, slots=True)
class Subject:
    """A member of the tree, with what its properties are made of."""

    node: Node
    path: str
    custom: Mapping[str, str]
    """The image's custom properties."""
    tags: tuple[str, ...]
    stores: tuple[str, ...]
    size: int
    """Bytes; of an upload in progress what has arrived."""
    locks: str
    """The content of `lockdiscovery`."""
    used: int | None
    available: int | None
    """The store's room, of folders; None where the store cannot tell."""

    @property
    def image(self) -> Image | None:
        return self.node.image if isinstance(self.node, Entry) else None


Render = Callable[[Subject], str | None]
"""The content of a property's element as XML; None where the subject has no such property."""


def split(name: str) -> tuple[str, str]:
    """Namespace and local name of a name in Clark notation."""
    namespace, _, local = name.removeprefix("{").rpartition("}")
    return namespace, local


def element(name: str, content: str) -> str:
    """An element of that name; empty content makes an empty element."""
    opening, closing, alone = _tags(name)
    return f"{opening}{content}{closing}" if content else alone


# Names are clients' and images': remembered, but not all of them for ever.
@lru_cache(maxsize=1024)
def _tags(name: str) -> tuple[str, str, str]:
    """The tags around an element's content, and the element without any."""
    namespace, local = split(name)
    prefix = PREFIXES.get(namespace)
    if prefix is not None:
        tag, declaration = f"{prefix}:{local}", ""
    elif namespace:
        tag, declaration = f"x:{local}", f" xmlns:x={quoteattr(namespace)}"
    else:
        tag, declaration = local, ' xmlns=""'
    return f"<{tag}{declaration}>", f"</{tag}>", f"<{tag}{declaration}/>"


@lru_cache(maxsize=1024)
def renderer(name: str) -> Render:
    """What renders a property, whichever it is."""
    namespace, local = split(name)
    if name in LIVE:
        return LIVE[name]
    if namespace == IMAGE:
        return lambda subject: _field(subject, local)
    key = local if namespace == PROPERTY else name
    if namespace == PROPERTY:
        return lambda subject: _escaped(subject.custom.get(key))
    # Any client's own is kept as XML already: see `resources`.
    return lambda subject: subject.custom.get(key)


def names(subject: Subject) -> list[str]:
    """Every property the subject has, without what only some clients ask for by name."""
    found = [name for name, render in LIVE.items() if render(subject) is not None]
    if subject.image is not None:
        found += [f"{{{IMAGE}}}{field}" for field in FIELDS if _field(subject, field) is not None]
    return found + custom_names(subject)


def custom_names(subject: Subject) -> list[str]:
    """The subject's dead properties; a name that XML cannot write is left out."""
    return [
        key if key.startswith("{") else f"{{{PROPERTY}}}{key}"
        for key in subject.custom
        if key.startswith("{") or _NAME.fullmatch(key)
    ]


def is_valid_name(local: str) -> bool:
    """Whether XML can write the name of a custom property."""
    return _NAME.fullmatch(local) is not None


def _escaped(text: str | None) -> str | None:
    return None if text is None else escape(text)


def _field(subject: Subject, name: str) -> str | None:
    if subject.image is None or name not in FIELDS:
        return None
    details = Details(subject.image, subject.custom, subject.tags, subject.stores)
    return _escaped(FIELDS[name].render(details))


def _of_image(render: Callable[[Image, Subject], str | None]) -> Render:
    def rendered(subject: Subject) -> str | None:
        return None if subject.image is None else render(subject.image, subject)

    return rendered


def _resource_type(subject: Subject) -> str:
    return "<D:collection/>" if isinstance(subject.node, Folder) else ""


def _created(subject: Subject) -> str | None:
    node = subject.node
    made = node.created_at if isinstance(node, Folder) else node.image.created_at
    return made.strftime("%Y-%m-%dT%H:%M:%SZ")


def _modified(subject: Subject) -> str | None:
    node = subject.node
    if isinstance(node, Folder):
        return representation.http_date(node.updated_at)
    return representation.http_date(representation.modified_at(node.image))


def _number(value: int | None) -> str | None:
    return None if value is None else str(value)


LIVE: Mapping[str, Render] = {
    "{DAV:}resourcetype": _resource_type,
    "{DAV:}displayname": lambda subject: escape(subject.path.rpartition("/")[2]),
    "{DAV:}creationdate": _created,
    "{DAV:}getlastmodified": _modified,
    "{DAV:}getcontentlength": _of_image(lambda image, subject: str(subject.size)),
    "{DAV:}getcontenttype": _of_image(
        lambda image, subject: escape(representation.content_type(image))
    ),
    "{DAV:}getetag": _of_image(lambda image, subject: escape(representation.etag(image))),
    "{DAV:}supportedlock": lambda subject: SUPPORTED_LOCK,
    "{DAV:}lockdiscovery": lambda subject: subject.locks,
    "{DAV:}quota-used-bytes": lambda subject: _number(subject.used),
    "{DAV:}quota-available-bytes": lambda subject: _number(subject.available),
    f"{{{OWNCLOUD}}}checksums": _of_image(
        lambda image, subject: (
            f"<oc:checksum>{escape(sums)}</oc:checksum>"
            if (sums := representation.checksums(image))
            else None
        )
    ),
    f"{{{OWNCLOUD}}}id": _of_image(lambda image, subject: escape(image.id)),
}
"""What the server itself knows, by name."""

ALLPROP = tuple(name for name in LIVE if not name.startswith(("{DAV:}quota", f"{{{OWNCLOUD}}}")))
"""What `allprop` returns besides dead properties (RFC 4918 §9.1.5, RFC 4331 §3)."""
