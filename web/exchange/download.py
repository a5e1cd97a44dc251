"""GET and HEAD of an image's data (RFC 9110 §9.3.1, §14).

Data of a local file is sent by the kernel (`body.FileRange`), any other data in blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from http import HTTPStatus
from secrets import token_hex
from typing import Any

from catalog.errors import Conflict
from catalog.model.access import Principal
from catalog.model.image import Image
from catalog.model.status import Status
from catalog.rules.members import check_read
from catalog.stores.base import DataReader
from catalog.tree.namespace import Spot
from catalog.tree.vfs import Vfs
from catalog.uploads.upload import Upload, UploadState
from web.exchange import conditions, representation
from web.exchange.body import FileRange
from web.exchange.response import Response

_BLOCK = 1024 * 1024


def serve(
    vfs: Vfs, spot: Spot, image: Image, principal: Principal, environ: dict[str, Any]
) -> Response:
    """Answer a GET or HEAD of an image, which was looked up for reading.

    Raises HttpError (304, 412, 416), Forbidden, Deactivated, ImageKilled, Conflict while
    it is being uploaded, StoreUnavailable.
    """
    headers = [
        ("Accept-Ranges", "bytes"),
        ("ETag", representation.etag(image)),
        *representation.date_headers(image),
        ("Content-Type", representation.content_type(image)),
        # Anybody can choose a name like `x.html`: no browser may show an image as a page.
        ("X-Content-Type-Options", "nosniff"),
        *representation.digest_headers(image),
    ]
    current = representation.validators_of(image, reading=True)
    head = environ["REQUEST_METHOD"] == "HEAD"
    reader = _open(vfs, spot, image, principal, headers, head=head)
    try:
        conditions.check(environ, current)
        # Range is defined for GET only (RFC 9110 §14.2).
        wanted = None if head else conditions.ranges(environ, current, reader.size)
        return _respond(reader, wanted, headers, head=head)
    except BaseException:
        reader.close()
        raise


def _open(
    vfs: Vfs,
    spot: Spot,
    image: Image,
    principal: Principal,
    headers: list[tuple[str, str]],
    *,
    head: bool,
) -> DataReader:
    """A reader for the image's data; during an upload, for what was uploaded so far, if at all."""
    if image.status not in (Status.QUEUED, Status.SAVING):
        # A HEAD is not recorded as a use of the image.
        user = "" if head else f"{principal.name} (WebDAV)"
        return vfs.open_seen(spot, principal, user)
    check_read(spot, image, principal)
    upload = vfs.uploads.get(image.number)
    if upload is not None and upload.state is UploadState.FINISHED:
        return _Staged(upload)
    if upload is not None:
        headers.append(("Upload-Offset", str(upload.size)))
    if image.status is Status.SAVING and not head:
        raise Conflict(image.name, "is still being uploaded")
    return _Staged(None)


class _Staged(DataReader):
    """Reads what an upload has staged; without an upload it is empty."""

    def __init__(self, upload: Upload | None) -> None:
        self._upload = upload
        self.size = upload.size if upload is not None else 0

    def read_at(self, offset: int, size: int) -> bytes:
        return self._upload.read_at(offset, size) if self._upload is not None else b""

    def fileno(self) -> None:
        return None

    def close(self) -> None:
        self._upload = None


def _respond(
    reader: DataReader,
    wanted: list[tuple[int, int]] | None,
    headers: list[tuple[str, str]],
    *,
    head: bool,
) -> Response:
    if wanted is None:
        return _send(HTTPStatus.OK, reader, (0, reader.size), headers, head=head)
    if len(wanted) == 1:
        start, end = wanted[0]
        content_range = f"bytes {start}-{end - 1}/{reader.size}"
        headers.append(("Content-Range", content_range))
        return _send(HTTPStatus.PARTIAL_CONTENT, reader, wanted[0], headers, head=head)
    return _multipart(reader, wanted, headers)


def _send(
    status: HTTPStatus,
    reader: DataReader,
    span: tuple[int, int],
    headers: list[tuple[str, str]],
    *,
    head: bool,
) -> Response:
    start, end = span
    headers.append(("Content-Length", str(end - start)))
    if head:
        reader.close()
        return Response(status, headers, [])
    fd = reader.fileno()
    if fd is not None:
        return Response(status, headers, [], FileRange(fd, start, end - start, reader.close))
    return Response(status, headers, _Blocks(reader, [(b"", span)], b""))


def _multipart(
    reader: DataReader, wanted: list[tuple[int, int]], headers: list[tuple[str, str]]
) -> Response:
    """Several ranges as multipart/byteranges (RFC 9110 §14.6)."""
    boundary = token_hex(16)
    kind = dict(headers)["Content-Type"]
    headers = [pair for pair in headers if pair[0] != "Content-Type"]
    parts = []
    for start, end in wanted:
        lead = (
            f"\r\n--{boundary}\r\nContent-Type: {kind}\r\n"
            f"Content-Range: bytes {start}-{end - 1}/{reader.size}\r\n\r\n"
        )
        parts.append((lead.encode(), (start, end)))
    tail = f"\r\n--{boundary}--\r\n".encode()
    length = sum(len(lead) + end - start for lead, (start, end) in parts) + len(tail)
    headers += [
        ("Content-Type", f"multipart/byteranges; boundary={boundary}"),
        ("Content-Length", str(length)),
    ]
    return Response(HTTPStatus.PARTIAL_CONTENT, headers, _Blocks(reader, parts, tail))


class _Blocks(Iterable[bytes]):
    """Parts of an image in blocks; `close` closes the reader, also before the end."""

    def __init__(
        self, reader: DataReader, parts: list[tuple[bytes, tuple[int, int]]], tail: bytes
    ) -> None:
        self._reader = reader
        self._parts = parts
        self._tail = tail

    def __iter__(self) -> Iterator[bytes]:
        for lead, (start, end) in self._parts:
            if lead:
                yield lead
            for offset in range(start, end, _BLOCK):
                yield bytes(self._reader.read_at(offset, min(_BLOCK, end - offset)))
        if self._tail:
            yield self._tail

    def close(self) -> None:
        self._reader.close()
