"""Multipart uploads: the parts of an object are sent, or copied by the server, one by one.

Safe from several threads.  Scope: the requests of the Amazon S3 API Reference
(CreateMultipartUpload, UploadPart, UploadPartCopy, CompleteMultipartUpload,
AbortMultipartUpload, ListMultipartUploads).

obstore's own multipart uploads are not enough.  It cannot list or abort uploads, copy parts, or
name the upload that it has begun, and an upload that fails in its last parts stays behind.
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
"""Uploads or parts that one request lists."""
PARTS_MAX = 10_000
_PATIENCE = 90
"""Additional seconds for a server to put parts together, or to copy one."""
_PATIENCE_TO_COPY = 300
"""The same for an object of up to 5 GiB."""


class S3Part(Protocol):
    """A function that makes one part of an upload."""

    def __call__(self, number: int) -> str:
        """Send the part; return its ETag."""


@dataclass(frozen=True, slots=True)
class S3Upload:
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
        """Whether the part has these bytes; False also if its ETag is no MD5."""
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
        """Copy a whole object of up to 5 GiB, if it still has that ETag.

        `source` is the return value of `S3Requests.copy_source`.
        """
        headers = self._copy_headers(source, etag)
        self._requests.send(
            "PUT", key, None, headers, subject=self._url + key, patience=_PATIENCE_TO_COPY
        )

    def copy_part(
        self, source: str, etag: str, piece: range, key: str, upload: str, number: int
    ) -> str:
        """Make a part from a piece of another object; return its ETag."""
        headers = self._copy_headers(source, etag)
        headers["x-amz-copy-source-range"] = f"bytes={piece.start}-{piece.stop - 1}"
        query = {"partNumber": str(number), "uploadId": upload}
        subject = self._url + key
        answer = self._requests.send(
            "PUT", key, query, headers, subject=subject, patience=_PATIENCE
        )
        return _text(subject, _parse(subject, answer.text), "ETag")

    def complete(self, key: str, upload: str, etags: list[str]) -> None:
        """Make one object of the parts."""
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
        """Drop an upload and its parts.  A missing upload is no error."""
        with suppress(NotFound):
            query = {"uploadId": upload}
            self._requests.send("DELETE", key, query, subject=self._url + key)

    def uploads(self, prefix: str) -> Iterator[S3Upload]:
        """Every unfinished upload whose key begins with `prefix`.

        Raises NotSupported if the server cannot list them, and as all requests.
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
        """The parts that the server has of an upload, by number."""
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

    def _upload(self, found: Element) -> S3Upload:
        key, upload, initiated = (
            _text(self._url, found, name) for name in ("Key", "UploadId", "Initiated")
        )
        return S3Upload(key, upload, _moment(self._url, initiated))

    def _copy_headers(self, source: str, etag: str) -> dict[str, str]:
        headers = {"x-amz-copy-source": source}
        # Without an ETag its place is taken by a date, which is no value for this condition.
        is_etag = etag.startswith('"')
        return headers | ({"x-amz-copy-source-if-match": etag} if is_etag else {})


class PartsInFlight:
    """One upload whose parts are made by a few threads.  Used by one thread."""

    def __init__(self, multipart: Multipart, key: str, at_once: int, upload: str = "") -> None:
        """Begin an upload, or continue `upload`."""
        self.key = key
        self.id = upload or multipart.create(key)
        self._multipart = multipart
        self._room = BoundedSemaphore(at_once)
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="s3-part")
        self._parts: list[Future[str]] = []
        self._failure: CatalogError | None = None

    def add(self, part: S3Part) -> None:
        """Make the next part as soon as a thread is free.

        Raises the error of an earlier part that has failed.
        """
        if len(self._parts) == PARTS_MAX:
            raise ImageTooLarge(self.key, f"it has more than {PARTS_MAX} parts")
        self._room.acquire()
        if self._failure is not None:
            self._room.release()
            raise self._failure
        self._parts.append(self._threads.submit(self._make, part, len(self._parts) + 1))

    def wait(self) -> None:
        """Wait for all parts; raises the error of one that has failed."""
        self._etags()

    def complete(self) -> None:
        """Wait for all parts and make one object of them.

        Raises NotFound if the server does not know the upload any more.  Perhaps an earlier
        attempt has completed it, and only the answer was lost.
        """
        self._multipart.complete(self.key, self.id, self._etags())

    def expected_etag(self) -> str:
        """The ETag that S3 computes from those of the parts; empty if these are no MD5s.

        Waits for all parts.
        """
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
        """Wait for the parts under way, then drop the upload.  Raises StoreUnavailable."""
        # In this order: a part that arrives after the abort would stay on the server.
        self.close()
        self._multipart.abort(self.key, self.id)

    def _make(self, part: S3Part, number: int) -> str:
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
    """The text of a child element, in any namespace.  Raises StoreUnavailable without it."""
    text = element.findtext(f"{{*}}{name}")
    if not text:
        raise StoreUnavailable(subject, f"the server's answer has no {name}")
    return text


def _moment(subject: str, text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise StoreUnavailable(subject, "the server's answer has no valid time") from error
    # Without a time zone the server means UTC.
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
