"""Which of our stores reads a location that Glance has recorded, and under which key.

Scope: tables by the scheme of the URL; the URLs themselves are parsed by the drivers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from catalog.errors import InvalidValue
from catalog.stores.rbd.location import RbdLocation
from catalog.stores.s3.location import S3Location
from catalog.stores.swift.location import SwiftLocation
from catalog.stores.vmware.location import VmwareLocation

DROPPED: Mapping[str, str] = {
    "sheepdog": (
        "Sheepdog is developed no more, and Glance has dropped it: copy each image out while"
        " its cluster runs (dog vdi read NAME > FILE), then: imagefs add FILE"
    ),
    "gridfs": (
        "Glance has dropped MongoDB: copy each image out"
        " (mongofiles --db DATABASE --local FILE get_id '\"ID\"'), then: imagefs add FILE"
    ),
}
"""Store types and schemes that Glance once had -> what a user can do about them."""

RENAMED: Mapping[str, str] = {
    "file": "filesystem",
    "https": "http",
    "vmware_datastore": "vmware",
}
"""Glance's name of a store type -> its name here, where the two differ."""

STORE_TYPES: Mapping[str, str] = {
    "cinder": "cinder",
    "file": "filesystem",
    "filesystem": "filesystem",
    "http": "http",
    "https": "http",
    "rbd": "rbd",
    "s3": "s3",
    "s3+http": "s3",
    "s3+https": "s3",
    "swift": "swift",
    "swift+config": "swift",
    "swift+http": "swift",
    "swift+https": "swift",
    "vsphere": "vmware",
}
"""The scheme of a location -> the `type` of the store that reads it."""


def store_type_of(url: str) -> str:
    """The `type` of the store that reads a location.

    Raises InvalidValue for a type that Glance has dropped, with advice, and for anything that
    is no location.  The error shows only the scheme: the URL may contain a credential.
    """
    scheme, separator, _ = url.partition("://")
    scheme = scheme.lower()
    if separator and scheme in DROPPED:
        raise InvalidValue(f"{scheme}://…", DROPPED[scheme])
    if not separator or scheme not in STORE_TYPES:
        known = ", ".join(f"{scheme}://" for scheme in STORE_TYPES)
        raise InvalidValue("location", f"should begin with one of {known}")
    return STORE_TYPES[scheme]


_PATH_OF: Mapping[str, Callable[[str], str]] = {
    "filesystem": str,
    "rbd": lambda url: RbdLocation.parse(url).image,
    "s3": lambda url: S3Location.parse(url).key,
    "swift": lambda url: SwiftLocation.parse(url).name,
    "vmware": lambda url: VmwareLocation.parse(url).path,
}
"""The `type` of a store -> the part of a location that ends with the key."""


def key_of(url: str, kind: str) -> str:
    """The key in a location that a store of type `kind` reads: in Glance, the image's id.

    Raises InvalidValue for any other location, and for one that does not contain the id.  The
    error shows no credential.
    """
    found = store_type_of(url)
    shown = f"{url.partition('://')[0]}://…"
    if found != kind:
        raise InvalidValue(shown, f"is read by a store of type {found!r}, not {kind!r}")
    if kind not in _PATH_OF:
        raise InvalidValue(shown, "does not tell the image's id: give that")
    return _PATH_OF[kind](url).rpartition("/")[2]


def explain_type(kind: str) -> str | None:
    """What to use instead of a `type` that only Glance has or had; None for any other."""
    if kind in RENAMED:
        return f"Glance's {kind!r} is called {RENAMED[kind]!r} here"
    return DROPPED.get(kind)
