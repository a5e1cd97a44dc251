"""A store of images in a bucket of S3: AWS, Ceph RGW, Swift's s3api, MinIO and others.

Safe from several threads.  The key of our own objects is `PREFIX` + the image's key; objects of
Glance are in the same bucket, under the key in their url.

`location` reads urls, `settings` the configuration, `account` has our credentials, `objects`
reads by obstore, `requests` and `multipart` send, and `writer` stores an object.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from catalog.errors import (
    CatalogError,
    DataChanged,
    InvalidName,
    InvalidValue,
    NotSupported,
    StoreRefused,
)
from catalog.stores.base import Capability, Data, IsGood, NothingToMake, Stat, Usage, WithoutPolicy
from catalog.stores.s3 import bucket
from catalog.stores.s3.account import S3Account
from catalog.stores.s3.location import S3Location
from catalog.stores.s3.multipart import Multipart, PartsInFlight, S3Upload
from catalog.stores.s3.objects import S3Objects
from catalog.stores.s3.requests import S3Requests
from catalog.stores.s3.settings import S3StoreSettings
from catalog.stores.s3.writer import S3Writer

QUARANTINE = ".quarantine/"

_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")
"""Keys of images: no character of them has a meaning in a url or is lost in a listing."""
_FULL_KEY_MAX = 1024
"""Bytes of UTF-8 (Amazon S3 User Guide, "Object key naming guidelines")."""
_COPIED_WHOLE = 5 << 30
"""Bytes of the largest object that one request can copy."""
_COPIED_PIECE = 512 << 20
_COPIES_AT_ONCE = 4


class S3Store(WithoutPolicy, NothingToMake):
    """Objects of one bucket."""

    capabilities = (
        Capability.WRITE
        | Capability.COPY
        | Capability.LISTING
        | Capability.RESUME
        | Capability.GROWING
    )

    def __init__(
        self,
        name: str,
        settings: S3StoreSettings,
        copied_whole: int = _COPIED_WHOLE,
        copied_piece: int = _COPIED_PIECE,
    ) -> None:
        """Objects of more than `copied_whole` bytes are copied in pieces of `copied_piece`."""
        self.name = name
        self._settings = settings
        self._root = settings.prefix
        self._scheme = "s3+https" if settings.is_tls else "s3"
        self._bucket_path = f"{settings.host}/{settings.bucket}/"
        self._copied_whole = copied_whole
        self._copied_piece = copied_piece
        url = self._url("")
        account = S3Account(settings.credentials)
        self._requests = S3Requests(settings, account)
        self._objects = S3Objects(settings, account, self._requests, url)
        self._multipart = Multipart(self._requests, url)

    def check(self) -> None:
        """Raise StoreUnavailable unless the bucket can be listed with our credentials."""
        self._objects.check()

    def open(self, url: str) -> S3Reader:
        """Open an object to read.  Raises NotFound, StoreUnavailable."""
        key = self._key_of(url)
        return S3Reader(self._objects, key, self._objects.head(key))

    def stat(self, url: str) -> Stat:
        """Size and ETag.  Raises NotFound, StoreUnavailable."""
        return self._objects.head(self._key_of(url))

    def writer(self, key: str, size: int | None = None) -> S3Writer:
        """Start storing an object.  Raises InvalidName."""
        url = self.url_of(key)
        return S3Writer(self._objects, self._multipart, self._root + key, url, size)

    def resume(self, key: str, size: int, _step: int, _is_good: IsGood) -> tuple[S3Writer, int]:
        """Continue the newest unfinished upload of this key, and abort the others.

        Parts of an upload cannot be read.  So the caller writes all bytes again, and a part is
        not sent if the server has one with the same MD5.  Raises InvalidName,
        StoreUnavailable.
        """
        writer, path = self.writer(key, size), self._root + key
        left = self._uploads_of(path)
        left.sort(key=lambda upload: upload.initiated)
        for upload in left[:-1]:
            self._multipart.abort(path, upload.id)
        if left:
            writer.go_on(left[-1].id)
        return writer, 0

    def delete(self, url: str) -> None:
        """Remove the object, and abort unfinished uploads of it.

        Raises StoreUnavailable.
        """
        key = self._key_of(url)
        # The object comes last: if anything before it is refused, the object is still whole.
        for upload in self._uploads_of(key):
            self._multipart.abort(key, upload.id)
        self._objects.delete(key)

    def copy(self, url: str, key: str) -> str:
        """Let the server duplicate an object: as a whole, or in pieces if it is large.

        The object may be in another bucket that our credentials can read.  Raises NotFound,
        DataChanged, StoreFull, StoreUnavailable.
        """
        copied = self.url_of(key)
        if not self.reaches(url):
            self._copy(self._source(self._key_of(url)), self._root + key)
            return copied
        bucket, there = self._elsewhere(url)
        with closing(S3Requests(self._settings.model_copy(update={"bucket": bucket}))) as requests:
            path = requests.copy_source(there)
            source = CopySource(path, partial(requests.head, there, subject=path))
            self._copy(source, self._root + key)
        return copied

    def reaches(self, url: str) -> bool:
        """Whether the url is in another bucket of the same server."""
        bucket, key = self._elsewhere(url)
        return bucket not in ("", self._settings.bucket) and _is_key(key)

    def usage(self) -> Usage:
        """Nothing is known: S3 has no such request."""
        return Usage(None, None)

    def url_of(self, key: str) -> str:
        """`s3+https://HOST/BUCKET/PREFIX…KEY`, `s3://…` without TLS.  Raises InvalidName."""
        if not _KEY.fullmatch(key):
            raise InvalidName(key, "is not a key of an image")
        return self._url(self._root + key)

    def keys(self) -> Iterator[str]:
        """Every object directly below the prefix."""
        for key in self._objects.list(self._root):
            name = key.removeprefix(self._root)
            if "/" not in name and not name.startswith("."):
                yield name

    def staging_folder(self) -> Path | None:
        """None: there is no local folder."""
        return None

    def quarantine(self, key: str) -> str:
        """Copy an object to `PREFIX.quarantine/`, then delete it; return its new url.

        Raises NotFound, StoreUnavailable.
        """
        place = f"{self._root}{QUARANTINE}{key}.{secrets.token_hex(4)}"
        source = self._key_of(self.url_of(key))
        self._copy(self._source(source), place)
        self._objects.delete(source)
        return self._url(place)

    def leftovers(self, older_than: float) -> Iterator[str]:
        """Multipart uploads begun more than `older_than` seconds ago: `KEY UPLOAD-ID`."""
        limit = datetime.now(UTC) - timedelta(seconds=older_than)
        for upload in self._multipart.uploads(self._root):
            if upload.initiated <= limit:
                yield f"{upload.key} {upload.id}"

    def drop_leftover(self, name: str) -> None:
        """Abort an upload of `leftovers`.  A missing upload is no error."""
        key, _, upload = name.rpartition(" ")
        self._multipart.abort(key, upload)

    def close(self) -> None:
        """Close the connections."""
        self._objects.close()
        self._requests.close()

    def advice(self) -> Iterator[str]:
        """What the bucket's own settings mean for deletion.  Raises StoreUnavailable."""
        return bucket.advice(self._requests, self._url(""))

    def _uploads_of(self, key: str) -> list[S3Upload]:
        """The unfinished uploads of one key; none if the server does not let us list them.

        That is no error, as the object itself does not depend on them.
        """
        with suppress(NotSupported, StoreRefused):
            return [upload for upload in self._multipart.uploads(key) if upload.key == key]
        return []

    def _url(self, key: str) -> str:
        return f"{self._scheme}://{self._bucket_path}{key}"

    def _key_of(self, url: str) -> str:
        """The full key in a url of our bucket, our own or Glance's.

        Any other url is StoreRefused, not NotFound: most likely the settings were
        changed, and the data must not be taken for lost.
        """
        try:
            path = S3Location.parse(url).path
        except InvalidValue as error:
            raise StoreRefused(self.name, f"{error}") from None
        key = path.removeprefix(self._bucket_path)
        if key == path:
            raise StoreRefused(self.name, f"{path} is not inside {self._bucket_path}")
        if not _is_key(key):
            raise StoreRefused(self.name, f"{key!r} is a key that cannot be asked for")
        return key

    def _elsewhere(self, url: str) -> tuple[str, str]:
        """Bucket and key in a url of this server; both are empty for any other url."""
        try:
            path = S3Location.parse(url).path
        except InvalidValue:
            return "", ""
        host = f"{self._settings.host}/"
        if not path.startswith(host):
            return "", ""
        bucket, _, key = path.removeprefix(host).partition("/")
        return bucket, key

    def _source(self, key: str) -> CopySource:
        return CopySource(self._requests.copy_source(key), partial(self._objects.head, key))

    def _copy(self, source: CopySource, target: str) -> None:
        found = source.head()
        if found.size <= self._copied_whole:
            self._multipart.copy(source.path, found.etag, target)
        else:
            self._copy_pieces(source, found, target)

    def _copy_pieces(self, source: CopySource, found: Stat, target: str) -> None:
        length = max(self._copied_piece, -(-found.size // 9000))
        parts = PartsInFlight(self._multipart, target, _COPIES_AT_ONCE)
        try:
            for start in range(0, found.size, length):
                piece = range(start, min(start + length, found.size))
                copy = self._multipart.copy_part
                parts.add(partial(copy, source.path, found.etag, piece, target, parts.id))
            parts.wait()
            # Ceph's radosgw 16 ignores the condition in the request for each piece, so the source
            # is compared once more before the pieces become an object.
            if source.head() != found:
                raise DataChanged(source.path)
            parts.complete()
        except CatalogError:
            with suppress(CatalogError):
                parts.abort()
            raise
        finally:
            parts.close()


@dataclass(frozen=True, slots=True)
class CopySource:
    """An object that the server shall copy, of any bucket."""

    path: str
    """The value for `x-amz-copy-source`."""
    head: Callable[[], Stat]
    """Asks for its size and ETag."""


class S3Reader:
    """An object pinned to the ETag it had when opened.  Safe from several threads."""

    def __init__(self, objects: S3Objects, key: str, opened: Stat) -> None:
        self.size = opened.size
        self._objects = objects
        self._key = key
        self._opened = opened

    def read_at(self, offset: int, size: int) -> Data:
        """The bytes `[offset, offset + size)`, cut at the end.

        Raises DataChanged, NotFound, StoreUnavailable.
        """
        wanted = range(offset, min(offset + size, self.size))
        return self._objects.read(self._key, wanted, self._opened) if wanted else b""

    def fileno(self) -> int | None:
        """None: there is no file."""
        return None

    def close(self) -> None:
        """Connections belong to the store."""


def _is_key(key: str) -> bool:
    """Whether a key reaches the server unchanged: nothing on the way normalises it as a path."""
    segments = key.split("/")
    is_plain = not any(segment in ("", ".", "..") for segment in segments)
    return is_plain and key.isprintable() and len(key.encode()) <= _FULL_KEY_MAX
