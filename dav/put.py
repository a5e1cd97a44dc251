"""PUT: an upload in one request, or in several with Content-Range (RFC 9110 §9.3.4, §14.4).

Users: `app`.  A new name is visible as `saving` while its data arrives.  Onto an image
that has data, the new image grows under a temporary name and takes the old one's name
in one step at the end; the old one goes to the trash.

Resuming: a PUT with `Content-Range: bytes FIRST-LAST/TOTAL` that is cut off keeps what has
arrived.  HEAD tells `Upload-Offset`; the next PUT goes on there (`curl -C`), and the one
that brings the last byte commits.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from http import HTTPStatus
from secrets import token_hex
from typing import Any

from catalog import access
from catalog.access import Principal
from catalog.errors import (
    CatalogError,
    Conflict,
    DigestMismatch,
    IncompleteUpload,
    IsAFolder,
    NotFound,
)
from catalog.image import Entry, Place
from catalog.names import is_temporary
from catalog.status import Status
from catalog.upload import Upload
from catalog.vfs import Vfs
from dav import conditions, representation
from dav.body import Body
from dav.errors import HttpError
from dav.response import Response, empty

_BLOCK = 1024 * 1024
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_ALGORITHMS = {"sha-256": "sha256", "sha-384": "sha384", "sha-512": "sha512", "md5": "md5"}


@dataclass(frozen=True, slots=True)
class _Expected:
    """What the client says of the whole of the data."""

    size: int | None
    digests: tuple[tuple[str, str], ...]
    """Algorithm as hashlib calls it, and the value in hexadecimal."""
    mtime: int | None
    """Nanoseconds since 1970."""


@dataclass(frozen=True, slots=True)
class _Part:
    """The bytes `[first, last + 1)` of `total`."""

    first: int
    last: int
    total: int


def receive(vfs: Vfs, place: Place, principal: Principal, environ: dict[str, Any]) -> Response:
    """Answer a PUT.

    Raises HttpError (400, 409, 412), IsAFolder, IncompleteUpload, DigestMismatch,
    InvalidImage, Protected, Forbidden, Conflict, StoreFull, StoreUnavailable.
    """
    present = _present(vfs, place)
    conditions.check(environ, representation.validators(present))
    body: Body = environ["wsgi.input"]
    expected = _expected(environ, body)
    part = _part(environ, body)
    if part is not None:
        return _receive_part(vfs, place, present, part, expected, principal, body)
    target = _begin(vfs, place, present, principal)
    if body.length == 0:
        return _finish(vfs, place, present, target, principal)
    upload = vfs.uploads.start(target.image.number)
    try:
        _announce(vfs, target, expected, principal)
        _copy(body, upload, 0, expected)
        upload.mtime = expected.mtime
        upload.finish()
        if not is_temporary(target.name):
            upload.commit()
    except BaseException as error:
        upload.cancel(_reason(error))
        if target.name != place.name:
            vfs.remove(Place(target.folder, target.name), principal)
        raise
    return _finish(vfs, place, present, target, principal)


def _present(vfs: Vfs, place: Place) -> Entry | None:
    try:
        node = vfs.lookup(place.folder, place.name)
    except NotFound:
        return None
    if not isinstance(node, Entry):
        raise IsAFolder(place.name)
    return node


def _begin(vfs: Vfs, place: Place, present: Entry | None, principal: Principal) -> Entry:
    """The queued image that takes the data: a new one, the queued one, or a replacement."""
    if present is None:
        return vfs.create(place, principal)
    access.check_change(principal, present.image)
    match present.image.status:
        case Status.QUEUED:
            return present
        case Status.KILLED:
            return vfs.catalog.renew(place, principal)
        case Status.SAVING if not is_temporary(place.name):
            raise Conflict(place.name, "is being uploaded")
    # Refused names are refused before the data comes.
    replacement = Place(place.folder, f".{place.name[:200]}.{token_hex(4)}")
    entry = vfs.create(replacement, principal)
    try:
        vfs.catalog.check_rename(replacement, place, principal, replace=True)
    except CatalogError:
        vfs.remove(replacement, principal)
        raise
    return entry


def _finish(
    vfs: Vfs, place: Place, present: Entry | None, target: Entry, principal: Principal
) -> Response:
    if target.name != place.name:
        vfs.rename(Place(target.folder, target.name), place, principal)
    image = vfs.catalog.image(target.image.number)
    existed = present is not None and representation.exists(present.image)
    status = HTTPStatus.NO_CONTENT if existed else HTTPStatus.CREATED
    # Nothing was added to the data: its tag, as RFC 9110 §9.3.4 allows.
    return empty(status, ("ETag", representation.etag(image)), ("X-OC-Mtime", "accepted"))


def _receive_part(
    vfs: Vfs,
    place: Place,
    present: Entry | None,
    part: _Part,
    expected: _Expected,
    principal: Principal,
    body: Body,
) -> Response:
    """Take one part; the upload stays `saving` until the last one has come."""
    if present is None or present.image.status is Status.KILLED:
        present = _begin(vfs, place, present, principal)
    access.check_change(principal, present.image)
    upload = vfs.uploads.get(present.image.number)
    if upload is None and present.image.status is not Status.QUEUED:
        raise Conflict(place.name, "no upload of it can be resumed here")
    arrived = upload.size if upload is not None else 0
    if part.first != arrived:
        raise HttpError(
            HTTPStatus.CONFLICT,
            f"{arrived} bytes have arrived: go on there",
            (("Upload-Offset", str(arrived)),),
        )
    upload = upload or vfs.uploads.start(present.image.number)
    _copy(body, upload, part.first, _Expected(None, (), None))
    if upload.size < part.total:
        return empty(HTTPStatus.ACCEPTED, ("Upload-Offset", str(upload.size)))
    _announce(vfs, present, expected, principal)
    upload.mtime = expected.mtime
    if is_temporary(place.name):
        upload.finish()
    else:
        upload.commit()
    image = vfs.catalog.image(present.image.number)
    return empty(HTTPStatus.CREATED, ("ETag", representation.etag(image)))


def _copy(body: Body, upload: Upload, offset: int, expected: _Expected) -> None:
    """The request's body into the upload; compares what only this request announces."""
    hashes = {
        algorithm: hashlib.new(algorithm, usedforsecurity=False)
        for algorithm, _value in expected.digests
        if algorithm in ("md5", "sha1")
    }
    block = memoryview(bytearray(_BLOCK))
    start = offset
    while size := _fill(body, block):
        upload.write(offset, block[:size])
        for digest in hashes.values():
            digest.update(block[:size])
        offset += size
    name = upload.image.name
    if expected.size is not None and offset - start != expected.size:
        raise IncompleteUpload(name, f"{expected.size} bytes were announced, {offset} came")
    for algorithm, value in expected.digests:
        if algorithm in hashes and hashes[algorithm].hexdigest() != value:
            raise DigestMismatch(name, f"the {algorithm} is not what was announced")


def _fill(body: Body, block: memoryview) -> int:
    """Fill a block as far as the body goes: one large write is cheaper than many small."""
    done = 0
    while done < len(block):
        size = body.readinto(block[done:])
        if size == 0:
            break
        done += size
    return done


def _announce(vfs: Vfs, target: Entry, expected: _Expected, principal: Principal) -> None:
    """Tell the catalog what the commit must find; it verifies sha2 digests and the size."""
    for algorithm, value in expected.digests:
        if algorithm.startswith("sha") and algorithm != "sha1":
            vfs.catalog.set_attributes(
                target.image.number, {"image.os_hash_value": value}, principal
            )


def _expected(environ: dict[str, Any], body: Body) -> _Expected:
    digests = []
    if checksum := environ.get("HTTP_OC_CHECKSUM"):
        algorithm, _, value = checksum.partition(":")
        digests.append((algorithm.lower().replace("-", ""), value.strip().lower()))
    for header in ("HTTP_REPR_DIGEST", "HTTP_CONTENT_DIGEST"):
        digests += _parse_digests(environ.get(header, ""))
    size = body.length
    announced = environ.get("HTTP_X_EXPECTED_ENTITY_LENGTH", "")
    if announced.isdecimal():
        size = int(announced)
    return _Expected(size, tuple(digests), _mtime(environ.get("HTTP_X_OC_MTIME")))


def _parse_digests(header: str) -> list[tuple[str, str]]:
    """`sha-256=:BASE64:, …` (RFC 9530); algorithms we do not know are ignored, as it says."""
    found = []
    for part in header.split(","):
        name, _, value = part.strip().partition("=")
        algorithm = _ALGORITHMS.get(name.lower())
        if algorithm is None:
            continue
        try:
            found.append((algorithm, base64.b64decode(value.strip(":"), validate=True).hex()))
        except binascii.Error:
            raise HttpError(HTTPStatus.BAD_REQUEST, f"{name}: is not base64") from None
    return found


def _mtime(header: str | None) -> int | None:
    try:
        return None if header is None else int(float(header) * 10**9)
    except (ValueError, OverflowError):
        return None


def _part(environ: dict[str, Any], body: Body) -> _Part | None:
    header = environ.get("HTTP_CONTENT_RANGE")
    if header is None:
        return None
    match = _CONTENT_RANGE.fullmatch(header.strip())
    if match is None:
        raise HttpError(HTTPStatus.BAD_REQUEST, "Content-Range: bytes FIRST-LAST/TOTAL")
    part = _Part(*(int(group) for group in match.groups()))
    if not part.first <= part.last < part.total:
        raise HttpError(HTTPStatus.BAD_REQUEST, "Content-Range: out of order")
    if body.length is not None and body.length != part.last + 1 - part.first:
        raise HttpError(HTTPStatus.BAD_REQUEST, "Content-Range and Content-Length disagree")
    return part


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__
