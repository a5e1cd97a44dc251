"""What the mount counts.  Threading: counted in its trio loop, collected by any thread."""

from __future__ import annotations

import time

from prometheus_client import Counter, Gauge, Histogram

from catalog.service.metrics import LATENCIES, REGISTRY

REQUESTS = Histogram(
    "imagefs_fuse_request_seconds",
    "The time of the kernel's requests, by operation.",
    ("operation",),
    buckets=LATENCIES,
    registry=REGISTRY,
)
ERRORS = Counter(
    "imagefs_fuse_errors",
    "Requests of the kernel that were answered with an error; many are everyday, as ENOENT.",
    ("operation", "errno"),
    registry=REGISTRY,
)
WAITING = Gauge(
    "imagefs_fuse_requests_in_progress",
    "Requests of the kernel that are not answered yet.",
    registry=REGISTRY,
)
OLDEST = Gauge(
    "imagefs_fuse_oldest_request_seconds",
    "The time since the oldest request began that is not answered yet; 0 without any.",
    registry=REGISTRY,
)
READ = Counter(
    "imagefs_fuse_read_bytes",
    "Bytes that programs have read; what the kernel's page cache had is not counted.",
    registry=REGISTRY,
)
WRITTEN = Counter(
    "imagefs_fuse_written_bytes", "Bytes that programs have written.", registry=REGISTRY
)
FEED_LAG = Gauge(
    "imagefs_feed_lag_seconds",
    "The time since the change feed was last read to its end: how old the kernel's cached names "
    "may be.",
    registry=REGISTRY,
)
LOOP_LATE = Histogram(
    "imagefs_loop_late_seconds",
    "How late the mount's loop wakes up: whatever blocks it stalls all requests.",
    buckets=LATENCIES,
    registry=REGISTRY,
)

waiting: dict[int, float] = {}
"""Number of a request that is not answered yet -> when it began, the oldest first."""


def _oldest() -> float:
    try:
        return time.perf_counter() - next(iter(waiting.values()))
    except (StopIteration, RuntimeError):
        return 0.0  # none, or it was answered at this very moment


WAITING.set_function(lambda: len(waiting))
OLDEST.set_function(_oldest)
