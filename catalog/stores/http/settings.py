"""The `[stores.NAME]` section of an http store, and its settings for single servers.

Immutable; a secret is read anew for each request.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FilePath,
    PositiveFloat,
    field_validator,
    model_validator,
)

from catalog.errors import StoreRefused
from catalog.stores.http.address_filter import AllowedHost
from catalog.stores.policy.settings import RemoteStoreSettings
from catalog.stores.secret import SecretReference

_PORTS = {"http": 80, "https": 443}


class ServerSettings(BaseModel):
    """`[stores.NAME.servers."https://HOST[:PORT]"]`: our credentials for one server.

    Whoever may register URLs in the store can read everything that these credentials open.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    user: str | None = None
    """With `password`: Basic authentication (RFC 7617)."""
    password: SecretReference | None = None
    token: SecretReference | None = None
    """Sent as `Authorization: Bearer` (RFC 6750)."""
    client_certificate: FilePath | None = None
    """PEM file of our certificate and of its intermediate certificates."""
    client_key: FilePath | None = None
    """PEM file of its key, not encrypted; may be the same file."""

    @model_validator(mode="after")
    def _is_complete(self) -> ServerSettings:
        if (self.user is None) != (self.password is None):
            raise ValueError("should have both user and password, or neither")
        if self.password is not None and self.token is not None:
            raise ValueError("should have either a password or a token")
        if (self.client_certificate is None) != (self.client_key is None):
            raise ValueError("should have both client_certificate and client_key, or neither")
        if self.user is not None and ":" in self.user:
            raise ValueError("user should hold no ':'")
        return self

    def authorization(self) -> dict[str, str]:
        """The header to send, if any.  Raises StoreUnavailable if the secret cannot be read."""
        if self.password is not None:
            both = f"{self.user}:{self.password.read()}".encode()
            return {"Authorization": f"Basic {b64encode(both).decode()}"}
        if self.token is not None:
            token = self.token.read()
            if not token.isascii() or " " in token:
                raise StoreRefused(str(self.token), "should hold a token")
            return {"Authorization": f"Bearer {token}"}
        return {}

    def certificate(self) -> tuple[str, str] | None:
        """The files of our certificate and its key."""
        if self.client_certificate is None:
            return None
        return str(self.client_certificate), str(self.client_key)


class HttpStoreSettings(RemoteStoreSettings):
    """`[stores.NAME]` with `type = "http"`."""

    type: Literal["http"] = "http"
    allow_hosts: tuple[str, ...] = ()
    """Servers permitted though they have no public address: host, host:port, network/bits."""
    timeout: PositiveFloat = 30
    """Seconds without an answer, or without further data, before a server is given up."""
    ca_bundle: FilePath | None = None
    """PEM file of the authorities to trust instead of the public ones."""
    servers: dict[str, ServerSettings] = Field(default_factory=dict)
    """By `http://HOST[:PORT]` or `https://HOST[:PORT]`; another port is another server."""

    @field_validator("allow_hosts")
    @classmethod
    def _readable(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            AllowedHost.parse(host)
        return hosts

    @field_validator("servers")
    @classmethod
    def _are_origins(cls, servers: dict[str, ServerSettings]) -> dict[str, ServerSettings]:
        for server, settings in servers.items():
            parts = urlsplit(server)
            extra = parts.path.strip("/") or parts.query or parts.fragment or "@" in server
            if parts.scheme not in _PORTS or not parts.hostname or extra:
                raise ValueError("should be named by https://HOST or https://HOST:PORT")
            if parts.scheme == "http" and settings.client_certificate is not None:
                raise ValueError("a client certificate is for an https:// server")
        return {origin(server): settings for server, settings in servers.items()}

    def server(self, url: str) -> ServerSettings:
        """The settings for the server of `url`.  Raises ValueError if that is no URL."""
        return self.servers.get(origin(url)) or ServerSettings()


def origin(url: str) -> str:
    """`SCHEME://HOST:PORT` of a URL, in one spelling (RFC 6454 §4).  Raises ValueError."""
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    port = parts.port if parts.port is not None else _PORTS.get(parts.scheme)
    return f"{parts.scheme}://{host}:{port}"
