"""Where an image lies in a datastore of VMware vSphere, in the syntax of glance_store.

    vsphere://HOST[:PORT]/folder/FOLDER/FILE?dsName=DATASTORE[&dcPath=DATACENTER]

Immutable values.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

from catalog.errors import InvalidValue

_SCHEME = "vsphere"
_ROOT = "/folder/"
"""The path under which a server has the files of its datastores."""


@dataclass(frozen=True, slots=True)
class VmwareLocation:
    """A location; its parts are not percent-encoded."""

    server: str
    """`HOST` or `HOST:PORT`, an IPv6 address in brackets."""
    path: str
    """The file's path below the datastore's root: `FOLDER/FILE`."""
    datastore: str
    datacenter: str | None = None
    """Its path in the inventory; an ESXi host by itself has none."""

    @classmethod
    def parse(cls, url: str) -> VmwareLocation:
        """Read a url as glance_store does.  Raises InvalidValue, whose text shows no credential."""
        try:
            parts = urlsplit(url)
            query = parse_qs(parts.query)
        except ValueError as error:
            raise _invalid() from error
        path = unquote(parts.path.removeprefix(_ROOT))
        stores, centers = query.get("dsName", []), query.get("dcPath", [None])
        is_file = parts.path.startswith(_ROOT) and path and not path.endswith("/")
        if parts.scheme != _SCHEME or not parts.netloc or "@" in parts.netloc:
            raise _invalid()
        if not is_file or ".." in path.split("/") or len(stores) != 1 or len(centers) != 1:
            raise _invalid()
        return cls(parts.netloc, path, stores[0], centers[0])

    @property
    def request(self) -> str:
        """Path and query of the file's URL on the server itself."""
        query = {"dsName": self.datastore}
        if self.datacenter:
            query["dcPath"] = self.datacenter
        return f"{_ROOT}{quote(self.path)}?{urlencode(query)}"

    @property
    def file(self) -> str:
        """The file's name in the API: `[DATASTORE] FOLDER/FILE`."""
        return f"[{self.datastore}] {self.path}"

    def __str__(self) -> str:
        return f"{_SCHEME}://{self.server}{self.request}"


def _invalid() -> InvalidValue:
    form = f"{_SCHEME}://HOST{_ROOT}FOLDER/FILE?dsName=DATASTORE&dcPath=DATACENTER"
    return InvalidValue("a location of vSphere", f"should be {form}")
