"""The `[stores.NAME]` section of a store in Cinder.

Immutable.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, PositiveFloat, field_validator, model_validator

from catalog.stores.openstack.account import AccountSettings
from catalog.stores.rbd.connection import RbdStoreSettings
from catalog.stores.secret import SecretReference


class CinderStoreSettings(AccountSettings):
    """`[stores.NAME]` with `type = "cinder"`."""

    type: Literal["cinder"] = "cinder"
    volume_type: str | None = Field(default=None, min_length=1)
    """The type of new volumes; None for the project's default.  Its backend must be RBD."""
    reference: str | None = Field(default=None, pattern=r"^[^/@:\s]+$")
    """The store's name in locations, `cinder://REFERENCE/…`, as in Glance's
    `enabled_backends`, and in the metadata of volumes; None for this store's name."""
    api_url: str | None = Field(default=None, pattern=r"^https?://[^@\s]+$")
    """`https://HOST:8776/v3/PROJECT`; None for the URL in Keystone's catalog."""
    state_timeout: PositiveFloat = 300
    """Seconds that Cinder may take to make, to clone or to remove a volume."""
    ceph_user: str | None = Field(default=None, min_length=1)
    """Our user in Ceph, without `client.`; None for the user that Cinder names."""
    ceph_conf: Path = Path("/etc/ceph/ceph.conf")
    """Names the monitors, and the keyring unless it is set here."""
    ceph_keyring: Path | None = None
    """The file with the user's key.  If unset, it is the one of `ceph_conf`, or Ceph's default."""
    ceph_key: SecretReference | None = None
    """The key itself, instead of a keyring."""

    @property
    def endpoint(self) -> str | None:
        """The URL of the API for the project, if it is set."""
        return self.api_url

    @field_validator("ceph_conf", "ceph_keyring")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        if path is not None and not path.is_absolute():
            raise ValueError("should be an absolute path")
        return path

    @model_validator(mode="after")
    def _has_project(self) -> Self:
        if self.user is not None and self.project is None:
            raise ValueError("user needs project")
        return self

    def of_pool(self, pool: str, user: str) -> RbdStoreSettings:
        """The settings to reach the pool that Cinder names for a volume, as the user it names."""
        return RbdStoreSettings(
            pool=pool,
            user=self.ceph_user or user,
            conf=self.ceph_conf,
            keyring=self.ceph_keyring,
            key=self.ceph_key,
            timeout=max(1, round(self.timeout)),
        )
