"""Which segments belong to which object in Swift, and which to none.

Safe from several threads.  Listings follow changes with a delay, so that what is not found now
may be found later: by the next deletion of the key, or by fsck.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from urllib.parse import unquote

from catalog.errors import Conflict, InvalidName
from catalog.stores.swift.client import ObjectInfo, SwiftClient

QUARANTINE = ".quarantine."
"""Begins the names: without a slash, as a location's URL could not tell it from the container."""

SEGMENT_OF_GLANCE = re.compile(r"-\d{5}")
"""What Glance appends to the name of an object to name its segments."""

_UPLOAD = re.compile(r"([^/]+)/[0-9a-f]{16}")
"""`KEY/UPLOAD`, as our writer names its own; other programs keep theirs in the same container."""

_SEGMENT = re.compile(r"\d{8}")


@dataclass(frozen=True, slots=True)
class Left:
    """What an upload that died has sent."""

    name: str
    """`KEY/UPLOAD`."""
    segments: Mapping[int, tuple[int, str]]
    """Size in bytes and MD5, by their numbers."""
    newest: str
    """When the last of them was sent, as listings tell it."""

    def has(self, segment_size: int) -> bool:
        """Whether it has segments of that size: the numbers of others mean other bytes."""
        sizes = [size for size, _ in self.segments.values()]
        return bool(sizes) and all(size == segment_size for size in sizes[:-1])


class SwiftSegments:
    """The segments of the objects of one container."""

    def __init__(self, client: SwiftClient, container: str, segments: str) -> None:
        """Segments we wrote are in the container `segments`."""
        self._client = client
        self._container = container
        self._segments = segments

    def leftovers(self, older_than: float) -> Iterator[str]:
        """`KEY/UPLOAD` of segments no object has, the newest `older_than` seconds old or more."""
        limit = datetime.fromtimestamp(time.time() - older_than, UTC)
        quarantined = self._quarantined()
        entries = self._client.listing(self._segments)
        for upload, group in groupby(entries, lambda entry: entry["name"].rpartition("/")[0]):
            newest = max(entry["last_modified"] for entry in group)
            is_old = datetime.fromisoformat(newest).replace(tzinfo=UTC) <= limit
            named = _UPLOAD.fullmatch(upload)
            if is_old and named and upload not in self._live(named[1], quarantined):
                yield upload

    def drop(self, name: str) -> None:
        """Delete the segments of a `KEY/UPLOAD`.  Raises Conflict if an object has them."""
        named = _UPLOAD.fullmatch(name)
        if named is None:
            raise InvalidName(name, "is no leftover of this store")
        if name in self._live(named[1], self._quarantined(f"{named[1]}.")):
            raise Conflict(name, "belongs to an object")
        self._client.delete_prefix(self._segments, f"{name}/", name)

    def sweep(self, key: str, url: str) -> None:
        """Delete the segments of uploads of a key that no object has."""
        for upload in self._dead(key):
            self._client.delete_prefix(self._segments, f"{upload}/", url)

    def to_go_on(self, key: str, url: str, segment_size: int) -> Left | None:
        """The newest upload of a key that no object has; the others are deleted.

        So is one whose segments are of another size.
        """
        found = [self._left(upload) for upload in self._dead(key)]
        fitting = (left for left in found if left.has(segment_size))
        chosen = max(fitting, key=lambda left: left.newest, default=None)
        for left in found:
            if left is not chosen:
                self._client.delete_prefix(self._segments, f"{left.name}/", url)
        return chosen

    def _left(self, upload: str) -> Left:
        segments, newest = {}, ""
        for entry in self._client.listing(self._segments, f"{upload}/"):
            number = entry["name"].removeprefix(f"{upload}/")
            if _SEGMENT.fullmatch(number):
                segments[int(number)] = (int(entry["bytes"]), str(entry["hash"]))
                newest = max(newest, str(entry["last_modified"]))
        return Left(upload, segments, newest)

    def _dead(self, key: str) -> list[str]:
        """The `KEY/UPLOAD` of a key that no object has."""
        kept = self._live(key, self._quarantined(f"{key}."))
        entries = self._client.listing(self._segments, f"{key}/", "/")
        uploads = [entry.get("subdir", "").removesuffix("/") for entry in entries]
        return [each for each in uploads if _UPLOAD.fullmatch(each) and each not in kept]

    def containers(self, path: str, url: str, manifest: ObjectInfo) -> set[str]:
        """The containers of a large object, its own among them; none of a plain one."""
        own = path.partition("/")[0]
        if manifest.is_static:
            segments = self._client.manifest(path, url)
            return {own, *(segment.partition("/")[0] for segment in segments)}
        if manifest.dynamic is not None:
            return {own, unquote(manifest.dynamic).partition("/")[0]}
        return set()

    def delete_dynamic(
        self, container: str, key: str, url: str, manifest: ObjectInfo | None
    ) -> None:
        """Delete the segments of a Dynamic Large Object that was deleted, now or before.

        Those are named after it: `KEY-00001` by Glance, `KEY/…` by Swift's own client.  A
        manifest that names others is not believed.
        """
        if any(name.rpartition(".")[0] == key for name in self._quarantined(f"{key}.")):
            return
        if manifest is not None and manifest.dynamic is not None:
            segments, _, prefix = unquote(manifest.dynamic).partition("/")
            if prefix.startswith(f"{key}/"):
                self._client.delete_prefix(segments, prefix, url)
        for entry in self._client.listing(container, f"{key}-"):
            if SEGMENT_OF_GLANCE.fullmatch(entry["name"].removeprefix(key)):
                self._client.delete(f"{container}/{entry['name']}", url)

    def _live(self, key: str, quarantined: list[str]) -> set[str]:
        """The `KEY/UPLOAD` an object of that key has, or one of it in quarantine."""
        names = [key] + [
            f"{QUARANTINE}{name}" for name in quarantined if name.rpartition(".")[0] == key
        ]
        return {upload for name in names for upload in self._uploads_of(name)}

    def _uploads_of(self, name: str) -> Iterator[str]:
        """The `KEY/UPLOAD` of the segments an object has.

        By its manifest: its headers, and with them the name of its upload, anybody may
        overwrite.
        """
        path = f"{self._container}/{name}"
        found = self._client.find(path, path)
        if found is not None and found.is_static:
            for segment in self._client.manifest(path, path):
                container, _, rest = segment.partition("/")
                if container == self._segments:
                    yield rest.rpartition("/")[0]

    def _quarantined(self, prefix: str = "") -> list[str]:
        """The names `KEY.HEX` in quarantine."""
        entries = self._client.listing(self._container, f"{QUARANTINE}{prefix}")
        return [entry["name"].removeprefix(QUARANTINE) for entry in entries]
