"""Who reads and writes now: what processes have published, and what those of this host count.

Rates come from two samples, so that nobody has to publish them.  Threading: any.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from prometheus_client.parser import text_string_to_metric_families

from catalog.catalog import Catalog
from catalog.copies.uses import current
from catalog.errors import NotFound
from catalog.model.activity import Use
from catalog.model.image import Image
from catalog.rules.presence import ended
from catalog.service.endpoint import targets_folder
from catalog.upkeep.in_progress import Going, in_progress

_PATIENCE = 2.0
"""Seconds in which a process has to answer."""

_COUNTED = {
    "imagefs_fuse_read_bytes_total": "read",
    "imagefs_http_sent_bytes_total": "read",
    "imagefs_fuse_written_bytes_total": "written",
    "imagefs_http_received_bytes_total": "written",
    "imagefs_fuse_request_seconds_count": "requests",
    "imagefs_http_request_seconds_count": "requests",
}
"""Metric -> what it adds to."""


@dataclass(frozen=True, slots=True)
class Serving:
    """What a process of this host has counted since its start."""

    labels: Mapping[str, str]
    """`service`, `mount` and `pid`."""
    counts: Mapping[str, float]
    """`read` and `written` in bytes, `requests`."""


@dataclass(frozen=True, slots=True)
class Sample:
    """All activity at one moment."""

    at: float
    """Seconds of the monotonic clock."""
    serving: Mapping[str, Serving]
    """The monitored processes of this host, by address."""
    going: tuple[Going, ...]
    """Uploads and copies on all hosts."""
    uses: tuple[tuple[Image, Use], ...]
    """Images that are open, and each program that has one open, on all hosts."""


@dataclass(frozen=True, slots=True)
class Rates:
    """What has happened between two samples, for each second."""

    old: Sample
    new: Sample

    def of_process(self, address: str, what: str) -> float:
        """The rate of `read`, `written` or `requests` of a process; 0 if it is new."""
        before = self.old.serving.get(address)
        if before is None:
            return 0.0
        return self._rate(before.counts[what], self.new.serving[address].counts[what])

    def of_upload(self, going: Going) -> float | None:
        """The bytes a second of an upload; None if that is not known here."""
        for before in self.old.going:
            if before.record == going.record or before.image.number == going.image.number:
                if before.staged is None or going.staged is None:
                    return None
                return self._rate(before.staged, going.staged)
        return None

    def _rate(self, before: float, after: float) -> float:
        return max(0.0, after - before) / max(self.new.at - self.old.at, 0.001)


def sample(catalog: Catalog) -> Sample:
    """Look at everything once.  Raises CatalogUnavailable."""
    return Sample(
        time.monotonic(), dict(_serving()), tuple(in_progress(catalog)), tuple(_uses(catalog))
    )


def _uses(catalog: Catalog) -> Iterator[tuple[Image, Use]]:
    with catalog.read() as repository:
        published = repository.all_uses()
        has_ended = ended(repository)
    for number, uses in published.items():
        with suppress(NotFound):
            image = catalog.image(number)
            yield from ((image, use) for use in current(uses, has_ended))


def _serving() -> Iterator[tuple[str, Serving]]:
    """The monitored processes of this host that answer in time."""
    # Without a proxy: these are processes of this host.
    opener = build_opener(ProxyHandler({}))
    for file in sorted(targets_folder().glob("*.json")):
        try:
            (found,) = json.loads(file.read_text())
            address = found["targets"][0]
            with opener.open(f"http://{address}/metrics", timeout=_PATIENCE) as answer:
                text = answer.read().decode()
        except (OSError, URLError, ValueError, LookupError):
            continue  # it has ended, or hangs
        counts = dict.fromkeys(_COUNTED.values(), 0.0)
        for family in text_string_to_metric_families(text):
            for each in family.samples:
                if each.name in _COUNTED:
                    counts[_COUNTED[each.name]] += each.value
        yield address, Serving(found["labels"], counts)
