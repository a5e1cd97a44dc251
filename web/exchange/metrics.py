"""What an HTTP server counts of its requests.  Threading: any."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

from catalog.service.metrics import LATENCIES, REGISTRY

_METHODS = frozenset(
    "GET HEAD POST PUT PROPFIND PROPPATCH MKCOL DELETE COPY MOVE LOCK UNLOCK OPTIONS".split()
)

_REQUESTS = Histogram(
    "imagefs_http_request_seconds",
    "The time from a request's head to the end of its response, by method.",
    ("method",),
    buckets=LATENCIES,
    registry=REGISTRY,
)
_RESPONSES = Counter(
    "imagefs_http_responses",
    "Responses by method and status; 499 if the client went away before any.",
    ("method", "status"),
    registry=REGISTRY,
)
_RECEIVED = Counter(
    "imagefs_http_received_bytes", "Bytes of request bodies received.", registry=REGISTRY
)
_SENT = Counter("imagefs_http_sent_bytes", "Bytes of response bodies sent.", registry=REGISTRY)


def count(method: bytes, status: bytes, seconds: float, *, received: int, sent: int) -> None:
    """Count one request that has ended."""
    name = method.decode("latin-1")
    if name not in _METHODS:
        name = "other"  # clients choose it, and each value is kept for ever
    _REQUESTS.labels(name).observe(seconds)
    _RESPONSES.labels(name, status[:3].decode("latin-1") or "499").inc()
    _RECEIVED.inc(received)
    _SENT.inc(sent)
