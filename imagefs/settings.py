"""The `[mount]` section of the configuration.

Scope: what differs from one host's mount to another's.  Threading: immutable.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class MountSettings(BaseModel):
    """How this host mounts the catalog."""

    model_config = ConfigDict(frozen=True)

    allow_other: bool | None = None
    """Whether users other than the one who mounts may enter, as qemu and libvirt must.

    Unset: whenever the system allows it (root, or `user_allow_other` in /etc/fuse.conf).
    """

    drain_timeout: int = Field(default=60, ge=0)
    """Seconds to wait at stop for uploads to finish before they are given up."""
