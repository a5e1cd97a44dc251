"""A store in OpenStack Swift, by its own API.

Safe from several threads.  Scope: reads plain objects, Static and Dynamic Large Objects; writes
plain and static ones (see `writer`).

    CONTAINER/KEY                      an image
    CONTAINER/KEY-00001                a segment of an image that Glance stored
    CONTAINER/.quarantine.KEY.HEX      an object that fsck has moved away
    CONTAINER_segments/KEY/UPLOAD/…    segments of an image that we stored
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import quote, urlsplit

from pydantic import Field, PositiveInt

from catalog.errors import DataChanged, InvalidName, InvalidValue, StoreRefused
from catalog.stores.base import Capability, IsGood, Stat, Usage, WithoutPolicy
from catalog.stores.openstack.answers import discard
from catalog.stores.policy.retry import Retry
from catalog.stores.swift.auth import SwiftAuthSettings
from catalog.stores.swift.client import SwiftClient
from catalog.stores.swift.errors import failure
from catalog.stores.swift.location import CONFIG, SwiftLocation
from catalog.stores.swift.reader import SwiftReader
from catalog.stores.swift.segments import QUARANTINE, SEGMENT_OF_GLANCE, SwiftSegments
from catalog.stores.swift.writer import SwiftTarget, SwiftWriter

_KEY_MAX = 200

_MIB = 1 << 20


class SwiftStoreSettings(SwiftAuthSettings):
    """`[stores.NAME]` with `type = "swift"`."""

    type: Literal["swift"] = "swift"
    container: str = Field(default="images", pattern=r"^[^/\x00]{1,200}$")
    """The segments are in a second one, `<container>_segments`."""
    reference: str | None = Field(default=None, pattern=r"^[^/@:\s]+$")
    """The account's name in locations, `swift+config://REFERENCE/…`; None for the store's name."""
    segment_size: int = Field(default=32 * _MIB, ge=1, le=5 << 30)
    """Bytes.  A larger image is stored in segments of that size."""
    upload_threads: PositiveInt = 4
    """Segments of one upload that are sent at the same time."""


class SwiftStore(WithoutPolicy):
    """One container of an account, and the container of its segments."""

    capabilities = (
        Capability.WRITE
        | Capability.COPY
        | Capability.LISTING
        | Capability.GROWING
        | Capability.RESUME
    )

    def __init__(self, name: str, settings: SwiftStoreSettings) -> None:
        self.name = name
        self._settings = settings
        self._container = settings.container
        self._segments = f"{settings.container}_segments"
        self._client = SwiftClient(name, settings)
        self._parts = SwiftSegments(self._client, self._container, self._segments)

    def initialize(self) -> None:
        """Make the containers; existing ones stay as they are.  Raises StoreUnavailable."""
        for container in (self._container, self._segments):
            self._client.make_container(container)

    def check(self) -> None:
        """Raise StoreUnavailable unless the container answers."""
        self._client.check_container(self._container)

    def open(self, url: str) -> SwiftReader:
        """Open an object to read.  Raises NotFound, StoreUnavailable."""
        path = self._path_of(url)
        return SwiftReader(self._client, path, url, self._client.head(path, url))

    def stat(self, url: str) -> Stat:
        """Size and ETag.  Raises NotFound, StoreUnavailable."""
        found = self._client.head(self._path_of(url), url)
        return Stat(found.size, found.etag)

    def writer(self, key: str, size: int | None = None) -> SwiftWriter:
        """Start storing an object.  Raises InvalidName."""
        target = SwiftTarget(
            container=self._container,
            segments=self._segments,
            key=_checked(key),
            url=self.url_of(key),
            segment_size=self._settings.segment_size,
            concurrency=self._settings.upload_threads,
            retry=Retry(self._settings.policy.attempts, self._settings.policy.deadline),
        )
        return SwiftWriter(self._client, target)

    def resume(self, key: str, size: int, _step: int, _is_good: IsGood) -> tuple[SwiftWriter, int]:
        """Continue the newest unfinished upload of this key, and remove the others.

        The caller writes all bytes again; a segment is not sent if the server has one with the
        same MD5.  Raises InvalidName, StoreUnavailable.
        """
        writer, url = self.writer(key, size), self.url_of(key)
        left = self._parts.to_go_on(key, url, self._settings.segment_size)
        if left is not None:
            writer.go_on(left)
        return writer, 0

    def delete(self, url: str) -> None:
        """Remove an object with its segments, and unfinished uploads of its key.

        A missing object is no error.  Raises StoreUnavailable; StoreRefused only before
        anything is removed.
        """
        path = self._path_of(url)
        container, _, key = path.partition("/")
        # First: if we may not list the segments, the refusal comes before anything is removed.
        if container == self._container:
            self._parts.sweep(key, url)
        found = self._client.find(path, url)
        if found is not None:
            # If we may not delete the segments, Swift deletes the manifest all the same, and the
            # object is lost.  So the right to delete segments is checked first.
            for place in sorted(self._parts.containers(path, url, found)):
                self._client.check_deletes(place, url)
            query = {"multipart-manifest": "delete"} if found.is_static else None
            self._client.delete(path, url, query)
        if found is None or found.dynamic is not None:
            self._parts.delete_dynamic(container, key, url, found)

    def copy(self, url: str, key: str) -> str:
        """Let the server duplicate an object's data.  Raises NotFound, StoreUnavailable.

        Segments are copied, too.  If two large objects shared their segments, the deletion of
        one would destroy the other.
        """
        path = self._path_of(url)
        source = self._client.head(path, url)
        writer = self.writer(key)
        try:
            writer.copy_from(path, source)
            copied = writer.commit()
        finally:
            writer.cancel()
        if self._client.head(path, url) != source:
            self.delete(copied)
            raise DataChanged(url, "changed while it was being copied")
        return copied

    def reaches(self, url: str) -> bool:
        """Whether the url is in another container of the same account, by its reference."""
        try:
            location = SwiftLocation.parse(url)
        except InvalidValue:
            return False
        is_here = location.scheme == CONFIG and location.address == self._reference
        return is_here and location.container != self._container

    def usage(self) -> Usage:
        """The room by the quota, of the account or a container, that has the least left."""
        found = [self._quota("", "Account")]
        found += [self._quota(path, "Container") for path in (self._container, self._segments)]
        limited = [usage for usage in found if usage.free is not None]
        return min(limited, key=lambda usage: usage.free or 0, default=Usage(None, None))

    def url_of(self, key: str) -> str:
        """`swift+config://REFERENCE/CONTAINER/KEY`."""
        return str(SwiftLocation(CONFIG, self._reference, self._container, _checked(key)))

    def keys(self) -> Iterator[str]:
        """Every object's name, except those in quarantine and Glance's segments."""
        self.check()
        last = ""
        for entry in self._client.listing(self._container):
            name = str(entry["name"])
            # A manifest comes before its segments in the order of names.
            if SEGMENT_OF_GLANCE.fullmatch(name.removeprefix(last)) and last:
                continue
            last = name
            if not name.startswith(QUARANTINE):
                yield name

    def leftovers(self, older_than: float) -> Iterator[str]:
        """`KEY/UPLOAD` of segments of no object, the newest at least `older_than` seconds old."""
        return self._parts.leftovers(older_than)

    def drop_leftover(self, name: str) -> None:
        """Delete the segments of a `KEY/UPLOAD` of `leftovers`.

        Idempotent.  Raises Conflict if they belong to an object after all, StoreUnavailable.
        """
        self._parts.drop(name)

    def staging_folder(self) -> Path | None:
        """None: there is no local folder."""
        return None

    def quarantine(self, key: str) -> str:
        """Rename an object to `.quarantine.KEY.HEX`; its segments stay where they are.

        Raises NotFound, StoreUnavailable.
        """
        url, name = self.url_of(key), f"{QUARANTINE}{key}.{secrets.token_hex(4)}"
        place = f"{self._container}/{name}"
        headers = {"X-Copy-From": quote(f"{self._container}/{key}"), "Content-Length": "0"}
        query = {"multipart-manifest": "get"}
        self._client.head(f"{self._container}/{key}", url)
        self._client.do("PUT", place, 201, subject=url, headers=headers, query=query)
        self._client.delete(f"{self._container}/{key}", url)
        return str(SwiftLocation(CONFIG, self._reference, self._container, name))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    @property
    def _reference(self) -> str:
        return self._settings.reference or self.name

    def _path_of(self, url: str) -> str:
        """`container/object` in a url of this account, in any of its forms.

        Any other url is StoreRefused, not NotFound: most likely the settings were
        changed, and the data must not be taken for lost.
        """
        try:
            location = SwiftLocation.parse(url)
        except InvalidValue as error:
            raise StoreRefused(self.name, str(error)) from None
        if not self._is_own(location):
            raise StoreRefused(self.name, f"{location} is in another account")
        return f"{location.container}/{location.name}"

    def _is_own(self, location: SwiftLocation) -> bool:
        if location.scheme == CONFIG:
            return location.address == self._reference
        if location.user is None:
            return location.address == _address(self._client.storage_url())
        settings = self._settings
        owner, mine = location.user.rpartition(":")[0], settings.project
        if settings.auth_version == 1:
            mine = str(settings.user).rpartition(":")[0]
        same = _address(location.address) == _address(settings.auth_url)
        return same and (not owner or mine in (None, owner))

    def _quota(self, path: str, kind: str) -> Usage:
        with self._client.ask("HEAD", path) as response:
            # A user of a container may not be allowed to see the account.  And the container of
            # segments may not exist before the first segment.
            is_optional = path != self._container and response.status in (403, 404)
            if response.status not in (200, 204) and not is_optional:
                raise failure(response, self.name)
            headers = response.headers
            discard(response)
        try:
            total = int(headers[f"X-{kind}-Meta-Quota-Bytes"])
            return Usage(total, max(0, total - int(headers[f"X-{kind}-Bytes-Used"])))
        except (KeyError, ValueError):
            return Usage(None, None)


def _address(url: str) -> str:
    """A URL without the parts that Glance's locations may leave out."""
    parts = urlsplit(url if "://" in url else f"//{url}")
    return f"{parts.netloc}{parts.path}".rstrip("/").removesuffix("/v3")


def _checked(key: str) -> str:
    """The key, if it can be an object's name.  Raises InvalidName."""
    if not key or len(key) > _KEY_MAX or key.startswith(".") or "/" in key or "\0" in key:
        raise InvalidName(key, "is not a key of an image")
    return key
