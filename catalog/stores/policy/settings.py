"""The settings of the policy around a store: `[stores.NAME.policy]`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

LOCAL_WEIGHT = 100
"""The weight of a folder of this host, which has no policy: it is read before remote stores."""


class PolicySettings(BaseModel):
    """`[stores.NAME.policy]`; the defaults are right for a server in the same site."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weight: int = 0
    """Among the copies of an image, the one in the store with the greatest weight is read first."""
    attempts: PositiveInt = 6
    """How often a request is made before it counts as failed; 1 for no retries."""
    deadline: PositiveFloat = 60
    """Seconds after which a failed request is not made again.  It is made twice in any case: a
    single connection that stalls does not mean that the server is down."""
    requests: PositiveInt = 32
    """Requests in flight at the same time."""
    pause: PositiveFloat = 5
    """Seconds for which a store that is down is left alone.  Each further pause is twice as long,
    up to 16 times the first."""
    read_rate: PositiveInt | None = Field(default=None, ge=1 << 16)
    """Bytes a second that are read from the store, at most."""
    write_rate: PositiveInt | None = Field(default=None, ge=1 << 16)
    """Bytes a second that are written to it, at most."""


class RemoteStoreSettings(BaseModel):
    """The part that the sections of all remote drivers share."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    policy: PolicySettings = PolicySettings()
