"""The `[stores.NAME]` section of a store in vSphere.

Immutable.
"""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, FilePath, PositiveFloat, field_validator

from catalog.stores.policy.settings import RemoteStoreSettings
from catalog.stores.secret import SecretReference


class VmwareStoreSettings(RemoteStoreSettings):
    """`[stores.NAME]` with `type = "vmware"`."""

    type: Literal["vmware"] = "vmware"
    server: str
    """`https://HOST[:PORT]` of the vCenter Server or the ESXi host."""
    user: str
    password: SecretReference
    datastore: str = Field(min_length=1)
    datacenter: str = "ha-datacenter"
    """Its path in the inventory; an ESXi host by itself has the default."""
    folder: str = Field(default="openstack_glance", pattern=r"^[^/\[\]]+(/[^/\[\]]+)*$")
    """The folder in the datastore; `imagefs init` makes it."""
    ca_bundle: FilePath | None = None
    """PEM file of the authorities to trust instead of the public ones."""
    timeout: PositiveFloat = 30
    """Seconds without an answer, or without further data, before the server is given up."""

    @field_validator("server")
    @classmethod
    def _is_server(cls, server: str) -> str:
        parts = urlsplit(server)
        extra = parts.username or parts.password or parts.path.strip("/") or parts.query
        if parts.scheme != "https" or not parts.hostname or extra:
            raise ValueError("should be https://HOST or https://HOST:PORT, without a credential")
        return server.rstrip("/")
