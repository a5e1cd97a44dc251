"""Finds which segments in Swift belong to which object, and which belong to none.

Safe from several threads.  Listings follow changes with a delay.  So segments that are not found
now may be found later: by the next deletion of the key, or by fsck.
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
"""Names in quarantine begin so.  It has no slash: in a location's URL that would look like the
end of the container's name."""

SEGMENT_OF_GLANCE = re.compile(r"-\d{5}")
"""The end of a segment's name in Glance, behind the name of the object."""

_UPLOAD = re.compile(r"([^/]+)/[0-9a-f]{16}")
"""`KEY/UPLOAD` of our own segments.  Other programs have theirs in the same container."""

_SEGMENT = re.compile(r"\d{8}")


@dataclass(frozen=True, slots=True)
class Left:
    """The segments of an unfinished upload."""

    name: str
    """`KEY/UPLOAD`."""
    segments: Mapping[int, tuple[int, str]]
    """Size in bytes and MD5, by their numbers."""
    newest: str
    """The time of the last segment, as text of a listing."""

    def has(self, segment_size: int) -> bool:
        """Whether its segments have that size; with another size, equal numbers are other bytes."""
        sizes = [size for size, _ in self.segments.values()]
        return bool(sizes) and all(size == segment_size for size in sizes[:-1])


class SwiftSegments:
    """The segments of the objects of one container."""

    def __init__(self, client: SwiftClient, container: str, segments: str) -> None:
        """Our own segments are in the container `segments`."""
        self._client = client
        self._container = container
        self._segments = segments

    def leftovers(self, older_than: float) -> Iterator[str]:
        """`KEY/UPLOAD` of segments of no object, the newest at least `older_than` seconds old."""
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
        """Delete the segments of a `KEY/UPLOAD`.  Raises Conflict if they belong to an object."""
        named = _UPLOAD.fullmatch(name)
        if named is None:
            raise InvalidName(name, "is no leftover of this store")
        if name in self._live(named[1], self._quarantined(f"{named[1]}.")):
            raise Conflict(name, "belongs to an object")
        self._client.delete_prefix(self._segments, f"{name}/", name)

    def sweep(self, key: str, url: str) -> None:
        """Delete the segments of a key's uploads that belong to no object."""
        for upload in self._dead(key):
            self._client.delete_prefix(self._segments, f"{upload}/", url)

    def to_go_on(self, key: str, url: str, segment_size: int) -> Left | None:
        """The newest unfinished upload of a key whose segments have that size.

        All other unfinished uploads of the key are deleted.
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
        """The `KEY/UPLOAD`s of a key that belong to no object."""
        kept = self._live(key, self._quarantined(f"{key}."))
        entries = self._client.listing(self._segments, f"{key}/", "/")
        uploads = [entry.get("subdir", "").removesuffix("/") for entry in entries]
        return [each for each in uploads if _UPLOAD.fullmatch(each) and each not in kept]

    def containers(self, path: str, url: str, manifest: ObjectInfo) -> set[str]:
        """The containers of a large object's parts, with its own; none for a plain object."""
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
        """Delete the segments of a Dynamic Large Object that is deleted by now.

        Their names begin with its key: `KEY-00001` in Glance, `KEY/…` with Swift's own client.
        Segments with other names are not deleted, even if the manifest names them: it could
        name another object's.
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
        """The `KEY/UPLOAD`s of the key's object, and of its objects in quarantine."""
        names = [key] + [
            f"{QUARANTINE}{name}" for name in quarantined if name.rpartition(".")[0] == key
        ]
        return {upload for name in names for upload in self._uploads_of(name)}

    def _uploads_of(self, name: str) -> Iterator[str]:
        """The `KEY/UPLOAD`s of an object's segments.

        They are taken from its manifest.  Its headers name the upload, too, but anybody who
        may write to the object can overwrite these.
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
