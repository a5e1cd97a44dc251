"""A remote driver with its whole policy around it, as `registry` makes it.

    breaker > retry > limit > bandwidth > metrics > driver

The order matters.  Each attempt takes a slot of the limit and is counted.  The wait between two
attempts takes no slot.  The breaker sees a failure only after all attempts have failed.
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
        self._metrics = Metrics(timing.clock)
        store: Store = GuardedStore(driver, self._metrics)
        if settings.read_rate or settings.write_rate:
            rates = (settings.read_rate, settings.write_rate)
            store = BandwidthStore(store, Bandwidth(*(_bucket(rate, timing) for rate in rates)))
        store = GuardedStore(store, Limit(settings.requests))
        retried = RetryStore(store, Retry(settings.attempts, settings.deadline, timing))
        super().__init__(retried, Breaker(retried, settings.pause, timing.clock))
        self.weight = settings.weight

    def metrics(self) -> Mapping[Operation, Count]:
        """The requests that the driver got so far; every attempt counts."""
        return self._metrics.counts()


def _bucket(rate: int | None, timing: Timing) -> Bucket | None:
    return Bucket(rate, clock=timing.clock, sleep=timing.sleep) if rate else None
