"""What may be set of the policy around a store: `[stores.NAME.policy]`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

LOCAL_WEIGHT = 100
"""Of a folder of this host, which has no policy: read before any remote store."""


class PolicySettings(BaseModel):
    """`[stores.NAME.policy]`; the defaults are right for a server in the same site."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weight: int = 0
    """Of an image's copies, the one in the store of the greatest weight is read first."""
    attempts: PositiveInt = 6
    """How often a request is made before it has failed; 1 for no retries."""
    deadline: PositiveFloat = 60
    """Seconds after which a failed request is not made again; it is made twice in any case,
    as one connection that stalls says nothing of the server."""
    requests: PositiveInt = 32
    """Requests in flight at once."""
    pause: PositiveFloat = 5
    """Seconds a store is left alone that is down; twice as long each time, up to 16 times."""
    read_rate: PositiveInt | None = Field(default=None, ge=1 << 16)
    """Bytes a second that are read from the store, at most."""
    write_rate: PositiveInt | None = Field(default=None, ge=1 << 16)
    """Bytes a second that are written to it, at most."""


class RemoteStoreSettings(BaseModel):
    """What every remote driver's section has besides its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    policy: PolicySettings = PolicySettings()
