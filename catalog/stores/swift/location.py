"""The URLs of Swift objects, in the syntax of glance_store's swift driver.

Scope: reading and printing them; nothing here talks to a server.

    swift://USER:KEY@AUTH/CONTAINER/OBJECT          an account by its authentication (https)
    swift+https://…, swift+http://…                 the same, with the protocol
    swift+config://REFERENCE/CONTAINER/OBJECT       … by a name in a configuration
    swift+https://HOST/v1/ACCOUNT/CONTAINER/OBJECT  the account's storage URL (multi-tenant)

USER may be `project:user`; USER and KEY are percent-encoded, but for `/`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from catalog.errors import InvalidValue

CONFIG = "swift+config"
_SCHEMES = ("swift", "swift+http", "swift+https", CONFIG)

_CREDENTIALS = re.compile(r"(?P<user>[^/@]*):(?P<key>(?!\d+/)[^@]*)@")
"""A key may contain `/`.  But `HOST:PORT/…` is never taken for a credential."""


@dataclass(frozen=True, slots=True)
class SwiftLocation:
    """A location.  A key in the URL is dropped: the one of the settings is used."""

    scheme: str
    address: str
    """The address of the authentication or of the account, without protocol; or the reference."""
    container: str
    name: str
    """The object's name."""
    user: str | None = None
    """From the URL; not percent-encoded.  None if the URL contains no credential."""

    @classmethod
    def parse(cls, url: str) -> SwiftLocation:
        """Read a URL.  Raises InvalidValue, whose text shows no credential."""
        scheme, separator, rest = url.partition("://")
        if scheme not in _SCHEMES or not separator:
            raise InvalidValue(scheme or "location", "is not a URL of an object in Swift")
        user = None
        if scheme != CONFIG and (found := _CREDENTIALS.match(rest)):
            user, rest = unquote(found["user"]), rest[found.end() :]
        try:
            address, container, name = rest.rsplit("/", 2)
        except ValueError:
            address = container = name = ""
        if not (address.strip("/") and container and name) or "://" in rest:
            raise InvalidValue(f"{scheme}://…", "should end in HOST/CONTAINER/OBJECT")
        return cls(scheme, address.strip("/"), container, name, user)

    def __str__(self) -> str:
        """The URL, without credentials."""
        return f"{self.scheme}://{self.address}/{self.container}/{self.name}"
