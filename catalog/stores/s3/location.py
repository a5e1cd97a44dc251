"""Where an image lies in S3, in the syntax of glance_store.

    s3://[ACCESS:SECRET@]HOST[:PORT]/BUCKET/KEY
    s3+https://…    the same over TLS
    s3+http://…     the same as s3://

Immutable values.
"""

from __future__ import annotations

from dataclasses import dataclass

from catalog.errors import InvalidValue

SCHEMES = ("s3", "s3+https", "s3+http")


@dataclass(frozen=True, slots=True)
class S3Location:
    """A location without credentials: those in the settings are used."""

    scheme: str
    """One of SCHEMES."""
    host: str
    """The service: `HOST[:PORT]`, followed by a path if it is not at the root of its server."""
    bucket: str
    key: str

    @classmethod
    def parse(cls, url: str) -> S3Location:
        """Read a url as glance_store does; credentials in it are dropped.

        A secret is not quoted and may contain `/`.  Raises InvalidValue, whose text shows
        nothing that may be a secret.
        """
        scheme, separator, rest = url.partition("://")
        if scheme not in SCHEMES or not separator or "://" in rest:
            raise InvalidValue(f"a location that begins with {scheme[:8]!r}", "is no s3:// url")
        credentials, at, path = rest.strip("/").rpartition("@")
        *host, bucket, key = ["", "", *path.split("/")]
        location = cls(scheme, "/".join(host).strip("/"), bucket, key)
        if (at and ":" not in credentials) or not (location.host and bucket and key):
            reason = "should be s3://[ACCESS:SECRET@]HOST/BUCKET/KEY"
            raise InvalidValue(f"a location of scheme {scheme}", reason)
        return location

    @property
    def path(self) -> str:
        """`HOST/BUCKET/KEY`: the same object has the same path with every scheme."""
        return f"{self.host}/{self.bucket}/{self.key}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.path}"
