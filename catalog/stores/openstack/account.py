"""The part of a `[stores.NAME]` section that names the account and how to reach it.

Immutable.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, FilePath, PositiveFloat, model_validator

from catalog.stores.policy.settings import RemoteStoreSettings
from catalog.stores.secret import SecretReference


class AccountSettings(RemoteStoreSettings):
    """An account of Keystone: a user in a project, or an application credential."""

    auth_url: str = Field(pattern=r"^https?://[^@\s]+$")
    """`https://HOST:5000/v3` of Keystone."""
    user: str | None = None
    """By name."""
    key: SecretReference
    """The user's password or key, or the application credential's secret."""
    application_credential: str | None = None
    """Its id, instead of a user."""
    project: str | None = None
    """By name; an application credential has its own project."""
    user_domain: str = "Default"
    project_domain: str = "Default"
    region: str | None = None
    """The service's region in Keystone's catalog; None for the first one."""
    interface: Literal["public", "internal", "admin"] = "public"
    allow_http: bool = False
    """Plain http also to other hosts.  Anybody on the way can then read the key and the data."""
    ca_bundle: FilePath | None = None
    """PEM file of the authorities to trust instead of the system's."""
    connect_timeout: PositiveFloat = 10
    """Seconds."""
    timeout: PositiveFloat = 60
    """Seconds without an answer, or without further data, before a server is given up."""

    @property
    def endpoint(self) -> str | None:
        """The service's URL for the account; None for the one in Keystone's catalog."""
        return None

    @model_validator(mode="after")
    def _names_somebody(self) -> Self:
        if (self.application_credential is not None) == (self.user is not None):
            raise ValueError("needs either user or application_credential")
        return self

    @model_validator(mode="after")
    def _is_private(self) -> Self:
        for url in (self.auth_url, self.endpoint):
            if url is not None and not self.permits(url):
                raise ValueError(
                    f"{url} is not https: anybody on the way could read the key and the data;"
                    " allow_http = true permits it"
                )
        return self

    def permits(self, url: str) -> bool:
        """Whether a token may be sent to this URL."""
        parts = urlsplit(url)
        return parts.scheme == "https" or self.allow_http or _is_loopback(parts.hostname or "")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
