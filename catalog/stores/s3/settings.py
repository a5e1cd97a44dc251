"""The `[stores.NAME]` section of an S3 store, and values derived from it.

Immutable.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, FilePath, PositiveFloat, field_validator, model_validator

from catalog.stores.policy.settings import RemoteStoreSettings
from catalog.stores.secret import SecretReference

_PREFIX = re.compile(r"([A-Za-z0-9_-][A-Za-z0-9._-]*/)*")


@dataclass(frozen=True, slots=True)
class Credentials:
    """An S3 account.  Its representation shows no secret."""

    access_key: str
    secret_key: str
    session_token: str | None = None
    """Only for temporary credentials (AWS STS)."""

    def __repr__(self) -> str:
        return "Credentials(…)"


class S3StoreSettings(RemoteStoreSettings):
    """`[stores.NAME]` with `type = "s3"`."""

    type: Literal["s3"] = "s3"
    endpoint: str
    """`https://HOST[:PORT]`, without the bucket."""
    bucket: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]$")
    """The bucket must exist; it is never made here."""
    prefix: str = ""
    """The keys of our objects begin with these folders, such as `images/` or `a/b/`."""
    region: str = Field(default="us-east-1", pattern=r"^[A-Za-z0-9_-]+$")
    access_key: SecretReference
    secret_key: SecretReference
    session_token: SecretReference | None = None
    """For temporary keys, which an agent on the host renews (AWS STS, instance roles).  All three
    are read again when the server refuses them."""
    addressing: Literal["path", "virtual"] = "path"
    """Whether the bucket is in the path of a URL, or in front of the host name."""
    allow_http: bool = False
    """Plain http also to other hosts.  Anybody on the way can then read and change the data."""
    ca_bundle: FilePath | None = None
    """PEM file of authorities to trust besides the public ones."""
    timeout: PositiveFloat = 30
    """Seconds without an answer, or without further data, before the server is given up."""

    @field_validator("endpoint")
    @classmethod
    def _is_endpoint(cls, endpoint: str) -> str:
        parts = urlsplit(endpoint)
        extra = parts.username or parts.password or parts.query or parts.fragment
        if parts.scheme not in ("http", "https") or not parts.hostname or extra:
            raise ValueError("should be https://HOST or https://HOST:PORT, without a credential")
        return endpoint.rstrip("/")

    @field_validator("prefix")
    @classmethod
    def _is_folder(cls, prefix: str) -> str:
        folder = f"{prefix.rstrip('/')}/" if prefix else ""
        if not _PREFIX.fullmatch(folder):
            raise ValueError("should be folders such as images/: letters, digits, . _ - and /")
        return folder

    @field_validator("ca_bundle")
    @classmethod
    def _holds_certificates(cls, path: Path | None) -> Path | None:
        if path is not None:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
            except OSError as error:
                raise ValueError(f"holds no certificate that can be read: {error}") from error
        return path

    @model_validator(mode="after")
    def _is_private(self) -> S3StoreSettings:
        if not (self.is_tls or self.allow_http or _is_loopback(self.parts.hostname or "")):
            raise ValueError(
                "endpoint is not https: anybody on the way could read and change the data;"
                " allow_http = true permits it"
            )
        return self

    @property
    def parts(self) -> SplitResult:
        """The endpoint, split."""
        return urlsplit(self.endpoint)

    @property
    def is_tls(self) -> bool:
        """Whether requests go over TLS."""
        return self.parts.scheme == "https"

    @property
    def host(self) -> str:
        """The endpoint as it is written in a location's url."""
        return f"{self.parts.netloc}{self.parts.path}"

    @property
    def bucket_url(self) -> str:
        """The URL to which requests of the bucket go."""
        if self.addressing == "path":
            return f"{self.endpoint}/{self.bucket}"
        return f"{self.parts.scheme}://{self.bucket}.{self.host}"

    def credentials(self) -> Credentials:
        """Read them anew.  Raises StoreUnavailable."""
        token = self.session_token.read() if self.session_token is not None else None
        return Credentials(self.access_key.read(), self.secret_key.read(), token)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
