"""Multipart uploads: an object of parts that are sent, or copied by the server, apart.

Safe from several threads.  Scope: the requests of the Amazon S3 API Reference
(CreateMultipartUpload, UploadPart, UploadPartCopy, CompleteMultipartUpload,
AbortMultipartUpload, ListMultipartUploads).

Why not obstore's own: it cannot list or abort uploads, copy parts, or name the upload it
has begun; and one that fails in its last parts leaves them behind.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import BoundedSemaphore
from typing import Protocol
from xml.etree.ElementTree import Element, ParseError
from xml.sax.saxutils import escape

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from catalog.errors import (
    CatalogError,
    ImageTooLarge,
    NotFound,
    NotSupported,
    StoreLacks,
    StoreUnavailable,
)
from catalog.stores.s3.requests import Body, S3Requests

_MD5 = re.compile(r"[0-9a-f]{32}")
_PAGE = 1000
"""Uploads that are listed by one request."""
PARTS_MAX = 10_000
_PATIENCE = 90
"""Seconds more than usual a server may take to put parts together, or to copy one."""
_PATIENCE_TO_COPY = 300
"""The same for an object of up to 5 GiB."""


class Part(Protocol):
    """What makes one part of an upload."""

    def __call__(self, number: int) -> str:
        """Send the part; return its ETag."""


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload that was begun and neither completed nor aborted."""

    key: str
    id: str
    initiated: datetime


@dataclass(frozen=True, slots=True)
class Stored:
    """A part that the server has."""

    etag: str
    size: int

    def has(self, data: bytes | bytearray) -> bool:
        """Whether it is these bytes.  An ETag that is no MD5 tells nothing."""
        digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
        return (self.size, self.etag.strip('"')) == (len(data), digest)


class Multipart:
    """The requests."""

    def __init__(self, requests: S3Requests, url: str) -> None:
        """`url` is the store's, for errors' texts: `s3://HOST/BUCKET/`."""
        self._requests = requests
        self._url = url

    def create(self, key: str) -> str:
        """Begin an upload; return its id."""
        headers = {"Content-Type": "application/octet-stream"}
        subject = self._url + key
        answer = self._requests.send("POST", key, {"uploads": ""}, headers, subject=subject)
        return _text(subject, _parse(subject, answer.text), "UploadId")

    def put_part(self, key: str, upload: str, number: int, body: Body) -> str:
        """Send a part; return its ETag.  Parts are numbered from 1."""
        query, subject = {"partNumber": str(number), "uploadId": upload}, self._url + key
        answer = self._requests.send("PUT", key, query, body=body, subject=subject)
        etag = answer.headers.get("ETag")
        if not etag:
            raise StoreUnavailable(subject, "the server's answer has no ETag")
        return etag

    def copy(self, source: str, etag: str, key: str) -> None:
        """Copy a whole object, up to 5 GiB, if it still has that ETag.

        `source` is as `S3Requests.copy_source` names it.
        """
        headers = self._copy_headers(source, etag)
        self._requests.send(
            "PUT", key, None, headers, subject=self._url + key, patience=_PATIENCE_TO_COPY
        )

    def copy_part(
        self, source: str, etag: str, piece: range, key: str, upload: str, number: int
    ) -> str:
        """Make a part of a piece of another object; return its ETag."""
        headers = self._copy_headers(source, etag)
        headers["x-amz-copy-source-range"] = f"bytes={piece.start}-{piece.stop - 1}"
        query = {"partNumber": str(number), "uploadId": upload}
        subject = self._url + key
        answer = self._requests.send(
            "PUT", key, query, headers, subject=subject, patience=_PATIENCE
        )
        return _text(subject, _parse(subject, answer.text), "ETag")

    def complete(self, key: str, upload: str, etags: list[str]) -> None:
        """Make the parts one object."""
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(etag)}</ETag></Part>"
            for number, etag in enumerate(etags, 1)
        )
        text = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>"
        body, subject = Body.of(text.encode()), self._url + key
        headers = {"Content-Type": "application/xml"}
        query = {"uploadId": upload}
        self._requests.send("POST", key, query, headers, body, subject=subject, patience=_PATIENCE)

    def abort(self, key: str, upload: str) -> None:
        """Drop an upload and its parts; one that is gone is no error."""
        with suppress(NotFound):
            query = {"uploadId": upload}
            self._requests.send("DELETE", key, query, subject=self._url + key)

    def uploads(self, prefix: str) -> Iterator[Upload]:
        """Every unfinished upload of a key that begins with `prefix`.

        Raises NotSupported if the server has no such list, and as all requests.
        """
        query = {"uploads": "", "prefix": prefix, "max-uploads": str(_PAGE)}
        while True:
            try:
                answer = self._requests.send("GET", "", query, subject=self._url, is_retried=False)
            except StoreLacks as error:
                told = f"the server does not list unfinished uploads ({error.reason})"
                raise NotSupported(self._url, told) from error
            page = _parse(self._url, answer.text)
            for found in page.iterfind("{*}Upload"):
                yield self._upload(found)
            if page.findtext("{*}IsTruncated") != "true":
                return
            query["key-marker"] = _text(self._url, page, "NextKeyMarker")
            query["upload-id-marker"] = _text(self._url, page, "NextUploadIdMarker")

    def parts(self, key: str, upload: str) -> dict[int, Stored]:
        """What the server has of an upload, by number."""
        query, subject = {"uploadId": upload, "max-parts": str(_PAGE)}, self._url + key
        stored: dict[int, Stored] = {}
        while True:
            answer = self._requests.send("GET", key, query, subject=subject)
            page = _parse(subject, answer.text)
            for part in page.iterfind("{*}Part"):
                number, etag, size = (
                    _text(subject, part, name) for name in ("PartNumber", "ETag", "Size")
                )
                stored[int(number)] = Stored(etag, int(size))
            if page.findtext("{*}IsTruncated") != "true":
                return stored
            query["part-number-marker"] = _text(subject, page, "NextPartNumberMarker")

    def _upload(self, found: Element) -> Upload:
        key, upload, initiated = (
            _text(self._url, found, name) for name in ("Key", "UploadId", "Initiated")
        )
        return Upload(key, upload, _moment(self._url, initiated))

    def _copy_headers(self, source: str, etag: str) -> dict[str, str]:
        headers = {"x-amz-copy-source": source}
        # What stands for the ETag of a server without is no condition.
        is_etag = etag.startswith('"')
        return headers | ({"x-amz-copy-source-if-match": etag} if is_etag else {})


class PartsInFlight:
    """One upload whose parts are made by threads, a few at once.  Used by one thread."""

    def __init__(self, multipart: Multipart, key: str, at_once: int, upload: str = "") -> None:
        """Begin the upload, or go on with one."""
        self.key = key
        self.id = upload or multipart.create(key)
        self._multipart = multipart
        self._room = BoundedSemaphore(at_once)
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="s3-part")
        self._parts: list[Future[str]] = []
        self._failure: CatalogError | None = None

    def add(self, part: Part) -> None:
        """Make the next part, as soon as one of those at once is done.

        Raises what an earlier part has failed with.
        """
        if len(self._parts) == PARTS_MAX:
            raise ImageTooLarge(self.key, f"it has more than {PARTS_MAX} parts")
        self._room.acquire()
        if self._failure is not None:
            self._room.release()
            raise self._failure
        self._parts.append(self._threads.submit(self._make, part, len(self._parts) + 1))

    def wait(self) -> None:
        """Wait for all parts; raises what one has failed with."""
        self._etags()

    def complete(self) -> None:
        """Wait for all parts and make them one object.

        Raises NotFound if the server no longer knows the upload: perhaps because it is
        complete, and the answer that said so was lost.
        """
        self._multipart.complete(self.key, self.id, self._etags())

    def expected_etag(self) -> str:
        """What S3 makes of the parts' ETags, once all are made; empty if they are no MD5."""
        digests = [etag.strip('"') for etag in self._etags()]
        if not all(_MD5.fullmatch(digest) for digest in digests):
            return ""
        whole = hashlib.md5(bytes.fromhex("".join(digests)), usedforsecurity=False)
        return f'"{whole.hexdigest()}-{len(digests)}"'

    def _etags(self) -> list[str]:
        return [made.result() for made in self._parts]

    def close(self) -> None:
        """End the threads.  Idempotent."""
        self._threads.shutdown(cancel_futures=True)

    def abort(self) -> None:
        """Wait for the parts under way, then drop all.  Raises StoreUnavailable."""
        self.close()
        self._multipart.abort(self.key, self.id)

    def _make(self, part: Part, number: int) -> str:
        try:
            return part(number)
        except CatalogError as error:
            self._failure = error
            raise
        finally:
            self._room.release()


def _parse(subject: str, text: str) -> Element:
    try:
        return fromstring(text)
    except (ParseError, DefusedXmlException) as error:
        raise StoreUnavailable(subject, "the server's answer is not XML") from error


def _text(subject: str, element: Element, name: str) -> str:
    """The text of a child in whatever namespace.  Raises StoreUnavailable without it."""
    text = element.findtext(f"{{*}}{name}")
    if not text:
        raise StoreUnavailable(subject, f"the server's answer has no {name}")
    return text


def _moment(subject: str, text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise StoreUnavailable(subject, "the server's answer has no valid time") from error
    # A server that names no zone means UTC.
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
