"""The `[mount]` section of the configuration.

Scope: settings that differ from host to host.  Threading: immutable.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from catalog.settings import MonitoringAddress


class MountSettings(BaseModel):
    """How this host mounts the catalog."""

    model_config = ConfigDict(frozen=True)

    allow_other: bool | None = None
    """Whether users other than the one who mounts may enter; qemu and libvirt need that.

    Unset: whenever the system allows it (root, or `user_allow_other` in /etc/fuse.conf).
    """

    drain_timeout: int = Field(default=60, ge=0)
    """Seconds to wait at stop for uploads to finish before they are given up."""

    metrics: MonitoringAddress | None = None
    """HOST:PORT on this host for `/metrics`, `/healthz` and `/readyz`; port 0 is any that is free,
    for hosts with several mounts.  Unset: none."""
