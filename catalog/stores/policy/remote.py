"""A remote store with all its policy: what `registry` makes of a remote driver.

    breaker > retry > limit > bandwidth > metrics > driver

So each attempt takes a slot and is counted, a wait between two takes none, and only what
failed through all its retries is held against the store.
"""

from __future__ import annotations

from collections.abc import Mapping

from catalog.stores.base import Store
from catalog.stores.policy.bandwidth import Bandwidth, BandwidthStore, Bucket
from catalog.stores.policy.breaker import Breaker, BreakerStore
from catalog.stores.policy.guard import GuardedStore, Operation
from catalog.stores.policy.limit import Limit
from catalog.stores.policy.metrics import Count, Metrics
from catalog.stores.policy.retry import Retry, RetryStore, Timing
from catalog.stores.policy.settings import PolicySettings


class RemoteStore(BreakerStore):
    """A driver with the policy of its settings around it."""

    def __init__(
        self, driver: Store, settings: PolicySettings, timing: Timing | None = None
    ) -> None:
        timing = timing or Timing()
        self.weight = settings.weight
        self._metrics = Metrics(timing.clock)
        store: Store = GuardedStore(driver, self._metrics)
        if settings.read_rate or settings.write_rate:
            rates = (settings.read_rate, settings.write_rate)
            store = BandwidthStore(store, Bandwidth(*(_bucket(rate, timing) for rate in rates)))
        store = GuardedStore(store, Limit(settings.requests))
        retried = RetryStore(store, Retry(settings.attempts, settings.deadline, timing))
        super().__init__(retried, Breaker(retried, settings.pause, timing.clock))

    def metrics(self) -> Mapping[Operation, Count]:
        """What the driver was asked so far, every attempt counted."""
        return self._metrics.counts()


def _bucket(rate: int | None, timing: Timing) -> Bucket | None:
    return Bucket(rate, clock=timing.clock, sleep=timing.sleep) if rate else None
