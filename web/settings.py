"""The `[dav]` section of the configuration.

Scope: where the server listens, and who may use it.  Unsafe combinations are refused here, before
anything is served.  Threading: immutable.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, IPvAnyNetwork, field_validator, model_validator

from catalog.settings import MonitoringAddress, host_and_port, is_loopback


class DavSettings(BaseModel):
    """How this host serves the catalog over WebDAV."""

    model_config = ConfigDict(frozen=True)

    listen: str = "127.0.0.1:8080"
    """HOST:PORT, with an IPv6 address in brackets; port 0 is any that is free."""

    anonymous: Literal["none", "read", "write"] = "none"
    """What clients may do that do not log in; `write` needs a loopback address."""

    tls_certificate: Path | None = None
    """PEM, with the chain; HTTPS when set."""

    tls_key: Path | None = None
    """PEM; the certificate's private key."""

    allow_plain_http: bool = False
    """Whether passwords may cross the network in the clear, as behind a TLS proxy."""

    trusted_proxies: tuple[IPvAnyNetwork, ...] = ()
    """Addresses or networks of proxies whose `X-Forwarded-` headers are believed."""

    metrics: MonitoringAddress | None = None
    """HOST:PORT on this host for `/metrics`, `/healthz` and `/readyz`; port 0 is any that is free.
    Unset: none."""

    @property
    def address(self) -> tuple[str, int]:
        """Host, without brackets, and port."""
        return host_and_port(self.listen)

    @property
    def is_loopback(self) -> bool:
        """Whether only this host can connect."""
        return is_loopback(self.address[0])

    @field_validator("listen")
    @classmethod
    def _is_host_and_port(cls, listen: str) -> str:
        host_and_port(listen)
        return listen

    @field_validator("tls_certificate", "tls_key")
    @classmethod
    def _is_absolute(cls, path: Path | None) -> Path | None:
        if path is not None and not path.is_absolute():
            raise ValueError("should be an absolute path")
        return path

    @model_validator(mode="after")
    def _is_safe(self) -> DavSettings:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key should be set together")
        if self.is_loopback:
            return self
        if self.anonymous == "write":
            raise ValueError(f'anonymous = "write" needs a loopback address, not {self.listen}')
        if self.tls_certificate is None and not self.allow_plain_http:
            raise ValueError(
                f"on {self.listen} passwords would cross the network in the clear:"
                " set tls_certificate and tls_key, or allow_plain_http"
            )
        return self
