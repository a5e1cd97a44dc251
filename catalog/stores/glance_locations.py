"""Which of our stores reads a location of a Glance, by the scheme of its URL.

Users: `settings`, and who adopts a Glance's images.  Scope: a table; the URLs themselves
are parsed by the drivers.
"""

from __future__ import annotations

from collections.abc import Mapping

from catalog.errors import InvalidValue

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
"""Store types, and schemes of locations, that Glance once had: what to do about them."""

RENAMED: Mapping[str, str] = {
    "file": "filesystem",
    "https": "http",
    "vmware_datastore": "vmware",
}
"""Glance's names of store types that have another one here."""

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

    Raises InvalidValue for what Glance has dropped, with what to do, and for no location
    at all; its text shows nothing of the URL but its scheme, as it may hold a credential.
    """
    scheme, separator, _ = url.partition("://")
    scheme = scheme.lower()
    if separator and scheme in DROPPED:
        raise InvalidValue(f"{scheme}://…", DROPPED[scheme])
    if not separator or scheme not in STORE_TYPES:
        known = ", ".join(f"{scheme}://" for scheme in STORE_TYPES)
        raise InvalidValue("location", f"should begin with one of {known}")
    return STORE_TYPES[scheme]


def explain_type(kind: str) -> str | None:
    """What to write instead of a `type` that only Glance has or had; None for any other."""
    if kind in RENAMED:
        return f"Glance's {kind!r} is called {RENAMED[kind]!r} here"
    return DROPPED.get(kind)
