"""Where an image lies in Ceph, in the syntax of glance_store's rbd driver.

    rbd://FSID/POOL/IMAGE/SNAPSHOT      each part percent-encoded
    rbd://IMAGE                         of the store's own pool, without a snapshot

Scope: reading and printing them; nothing here talks to a cluster.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, unquote

from catalog.errors import InvalidValue

_SCHEME = "rbd://"


@dataclass(frozen=True, slots=True)
class RbdLocation:
    """A location; the short form has only `image`."""

    image: str
    snapshot: str | None = None
    pool: str | None = None
    fsid: str | None = None
    """The cluster's id."""

    @classmethod
    def parse(cls, url: str) -> RbdLocation:
        """Read a url as glance_store does.  Raises InvalidValue."""
        parts = url.removeprefix(_SCHEME).split("/")
        if not url.startswith(_SCHEME) or len(parts) not in (1, 4) or not all(parts):
            raise InvalidValue(url, "should be rbd://FSID/POOL/IMAGE/SNAPSHOT or rbd://IMAGE")
        if len(parts) == 1:
            # Not percent-encoded: glance_store prints this form as it is.
            return cls(parts[0])
        fsid, pool, image, snapshot = map(unquote, parts)
        return cls(image, snapshot, pool, fsid)

    def __str__(self) -> str:
        """The url; the short one unless all parts are known."""
        if self.fsid and self.pool and self.snapshot:
            parts = (self.fsid, self.pool, self.image, self.snapshot)
            return _SCHEME + "/".join(quote(part, safe="") for part in parts)
        return _SCHEME + self.image
