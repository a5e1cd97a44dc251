"""What a serving process counts, as Prometheus metrics.

Scope: the registry, to which each frontend adds its own metrics, and the metrics of the catalog.
To collect them never waits: what only a database or a store can tell is noted by `health` in the
background.  Threading: any.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version

from prometheus_client import (
    CollectorRegistry,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from catalog.model.status import Status
from catalog.service.health import Health
from catalog.stores.policy.remote import RemoteStore

REGISTRY = CollectorRegistry()
"""The metrics of this process."""

LATENCIES = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
"""The limits of the buckets of requests, in seconds."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Each counter would have a second value, the time when it was made: the process' start tells that.
disable_created_metrics()  # type: ignore[no-untyped-call]
ProcessCollector(registry=REGISTRY)


class Exposition:
    """All metrics of one process as text."""

    def __init__(self, health: Health, process: Mapping[str, str]) -> None:
        """`process` are the labels of `imagefs_info`."""
        self._own = CollectorRegistry()
        self._own.register(_CatalogMetrics(health, process))

    def text(self) -> bytes:
        """The metrics now, in Prometheus' text format."""
        return generate_latest(REGISTRY) + generate_latest(self._own)


class _CatalogMetrics(Collector):
    """What is counted below the frontends."""

    def __init__(self, health: Health, process: Mapping[str, str]) -> None:
        self._health = health
        self._process = {"version": version("imagefs"), **process}

    def collect(self) -> Iterable[Metric]:
        """Every metric, with the values noted last."""
        yield _gauge("info", "Always 1; its labels tell the process.", {(): 1.0}, self._process)
        yield from self._of_database()
        yield from self._of_uploads()
        yield from self._of_cache()
        yield from self._of_stores()
        yield from self._of_requests()

    def _of_database(self) -> Iterator[Metric]:
        database = self._health.database.noted()
        yield _gauge("database_up", "Whether the database answers.", {(): database.is_well})
        yield _gauge(
            "database_answer_seconds",
            "The time of the database's last answer, or since when it has not answered.",
            {(): database.seconds},
        )
        counts = self._health.images.noted().value
        if counts is not None:
            yield _gauge(
                "images",
                "The images of the catalog by their status.",
                {(status,): counts.get(status, 0) for status in Status},
                ("status",),
            )

    def _of_uploads(self) -> Iterator[Metric]:
        working = self._health.uploads.noted().value
        if working is not None:
            help_ = "The uploads in progress in this process."
            yield _gauge("uploads_in_progress", help_, {(): working.count})
            help_ = "The time since the oldest upload in progress began; 0 without any."
            yield _gauge("uploads_oldest_seconds", help_, {(): working.oldest})

    def _of_cache(self) -> Iterator[Metric]:
        counts = self._health.catalog.cache.counts()
        family = CounterMetricFamily(
            "imagefs_cache_reads",
            "Parts of chunks that readers wanted: hit if the chunk was here, else miss.",
            labels=("result",),
        )
        family.add_metric(("hit",), counts.hits)
        family.add_metric(("miss",), counts.misses)
        yield family

    def _of_stores(self) -> Iterator[Metric]:
        noted = {name: probe.noted() for name, probe in self._health.stores.items()}
        up: dict[tuple[str, ...], float] = {(name,): each.is_well for name, each in noted.items()}
        yield _gauge("store_up", "Whether the store answers.", up, ("store",))
        yield _gauge(
            "store_answer_seconds",
            "The time of the store's last answer, or since when it has not answered.",
            {(name,): each.seconds for name, each in noted.items()},
            ("store",),
        )
        usages = {name: each.value for name, each in noted.items() if each.value is not None}
        for kind in ("free", "total"):
            yield _gauge(
                f"store_{kind}_bytes",
                f"The store's {kind} room; missing if it has no limit.",
                {
                    (name,): room
                    for name, usage in usages.items()
                    if (room := getattr(usage, kind)) is not None
                },
                ("store",),
            )

    def _of_requests(self) -> Iterator[Metric]:
        families = {
            "requests": "Requests to a remote store; every attempt counts.",
            "errors": "Requests to a remote store that failed.",
            "seconds": "The time of all requests to a remote store together.",
            "bytes": "The data in requests to a remote store that succeeded.",
        }
        made = {
            kind: CounterMetricFamily(
                f"imagefs_store_request_{kind}" if kind != "requests" else "imagefs_store_requests",
                help_,
                labels=("store", "operation"),
            )
            for kind, help_ in families.items()
        }
        for name, store in self._health.catalog.stores.items():
            if isinstance(store, RemoteStore):
                for operation, count in store.metrics().items():
                    for kind, family in made.items():
                        family.add_metric((name, str(operation)), getattr(count, kind))
        yield from made.values()


def _gauge(
    name: str,
    help_: str,
    values: Mapping[tuple[str, ...], float],
    labels: Mapping[str, str] | tuple[str, ...] = (),
) -> Metric:
    """A gauge `imagefs_NAME`; a mapping as `labels` gives its only value all of them."""
    family = GaugeMetricFamily(f"imagefs_{name}", help_, labels=tuple(labels))
    fixed = tuple(labels.values()) if isinstance(labels, Mapping) else ()
    for values_of_labels, value in values.items():
        family.add_metric((*fixed, *values_of_labels), float(value))
    return family
