"""WebDAV properties of folders and images (RFC 4918 §15; docs/webdav.md#properties).

Names are in Clark notation, `{namespace}name`.

    DAV:                         what RFC 4918 and RFC 4331 define
    urn:imagefs:image            the fields of an image, as in extended attributes
    urn:imagefs:property         its custom properties
    http://owncloud.org/ns       checksums and id, as ownCloud clients and rclone read them
    any other                    kept with the image, as a client has set it
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple
from xml.sax.saxutils import escape, quoteattr

from catalog.model.fields import FIELDS, Details
from catalog.model.image import Image
from catalog.model.tree import Folder, Listed
from web.exchange import representation

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


class Subject(NamedTuple):
    """A member of the tree, with the values that its properties are made from."""

    name: str
    """Empty for the root."""
    folder: Folder | None
    image: Image | Listed | None
    """It is either a folder or an image."""
    size: int
    """Bytes; during an upload, those that have arrived."""
    locks: str
    """The content of `lockdiscovery`."""
    custom: Mapping[str, str]
    """The image's custom properties, if the request asks for any."""
    details: Details | None
    """The image's details, if the request asks for a property that needs them."""
    used: int | None = None
    available: int | None = None
    """For a folder, the used and the free bytes of its store; None if they are not known."""


Render = Callable[[Subject], str | None]
"""Returns the content of a property's element as XML; None if the subject has no such property."""


def split(name: str) -> tuple[str, str]:
    """Namespace and local name of a name in Clark notation."""
    namespace, _, local = name.removeprefix("{").rpartition("}")
    return namespace, local


class Column(NamedTuple):
    """One property for all members of an answer: its content, and the tags around it."""

    render: Render
    opening: str
    closing: str
    alone: str
    """The element without content."""


# Bounded: clients and images can bring any number of names.
@lru_cache(maxsize=1024)
def column(name: str) -> Column:
    """The property with that name, of any kind."""
    namespace, local = split(name)
    prefix = PREFIXES.get(namespace)
    if prefix is not None:
        tag, declaration = f"{prefix}:{local}", ""
    elif namespace:
        tag, declaration = f"x:{local}", f" xmlns:x={quoteattr(namespace)}"
    else:
        tag, declaration = local, ' xmlns=""'
    return Column(_renderer(name), f"<{tag}{declaration}>", f"</{tag}>", f"<{tag}{declaration}/>")


def _renderer(name: str) -> Render:
    namespace, local = split(name)
    if name in LIVE:
        return LIVE[name]
    if namespace == IMAGE:
        return lambda subject: _field(subject, local)
    if namespace == PROPERTY:
        return lambda subject: _escaped(subject.custom.get(local))
    # A client's own property is stored as XML already: see `resources`.
    return lambda subject: subject.custom.get(name)


def names(subject: Subject) -> list[str]:
    """The names of all properties that the subject has."""
    found = [name for name, render in LIVE.items() if render(subject) is not None]
    if subject.image is not None:
        found += [f"{{{IMAGE}}}{field}" for field in FIELDS if _field(subject, field) is not None]
    return found + custom_names(subject)


def custom_names(subject: Subject) -> list[str]:
    """The names of the subject's dead properties that are valid in XML."""
    return [
        key if key.startswith("{") else f"{{{PROPERTY}}}{key}"
        for key in subject.custom
        if key.startswith("{") or _NAME.fullmatch(key)
    ]


def _escaped(text: str | None) -> str | None:
    return None if text is None else escape(text)


def _field(subject: Subject, name: str) -> str | None:
    if subject.details is None or name not in FIELDS:
        return None
    return _escaped(FIELDS[name].render(subject.details))


def needs_custom(name: str) -> bool:
    """Whether a property needs `Subject.custom`."""
    return name not in LIVE and not needs_details(name)


def needs_details(name: str) -> bool:
    """Whether a property needs `Subject.details`."""
    return split(name)[0] == IMAGE


def _of_image(render: Callable[[Image | Listed, Subject], str | None]) -> Render:
    def rendered(subject: Subject) -> str | None:
        return None if subject.image is None else render(subject.image, subject)

    return rendered


def _resource_type(subject: Subject) -> str:
    return "" if subject.folder is None else "<D:collection/>"


def _created(subject: Subject) -> str | None:
    made = subject.folder or subject.image
    assert made is not None
    # isoformat is five times as fast as strftime; the fraction of a second is cut off.
    return made.created_at.isoformat()[:19] + "Z"


def _modified(subject: Subject) -> str | None:
    if subject.image is not None:
        return representation.http_date_at(representation.mtime_seconds(subject.image))
    assert subject.folder is not None
    return representation.http_date(subject.folder.updated_at)


def _number(value: int | None) -> str | None:
    return None if value is None else str(value)


def _checksums(image: Image | Listed, _subject: Subject) -> str | None:
    sums = representation.checksums(image)
    return f"<oc:checksum>{sums}</oc:checksum>" if sums else None


LIVE: Mapping[str, Render] = {
    "{DAV:}resourcetype": _resource_type,
    "{DAV:}displayname": lambda subject: escape(subject.name),
    "{DAV:}creationdate": _created,
    "{DAV:}getlastmodified": _modified,
    "{DAV:}getcontentlength": _of_image(lambda image, subject: str(subject.size)),
    "{DAV:}getcontenttype": _of_image(lambda image, subject: representation.content_type(image)),
    "{DAV:}getetag": _of_image(lambda image, subject: representation.etag(image)),
    "{DAV:}supportedlock": lambda subject: SUPPORTED_LOCK,
    "{DAV:}lockdiscovery": lambda subject: subject.locks,
    "{DAV:}quota-used-bytes": lambda subject: _number(subject.used),
    "{DAV:}quota-available-bytes": lambda subject: _number(subject.available),
    f"{{{OWNCLOUD}}}checksums": _of_image(_checksums),
    f"{{{OWNCLOUD}}}id": _of_image(lambda image, subject: image.id),
}
"""The properties that the server itself computes, by name."""

ALLPROP = tuple(name for name in LIVE if not name.startswith(("{DAV:}quota", f"{{{OWNCLOUD}}}")))
"""The properties that `allprop` returns besides dead ones (RFC 4918 §9.1.5, RFC 4331 §3)."""
