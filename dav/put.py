"""PUT: an upload in one request, or in several with Content-Range (RFC 9110 §9.3.4, §14.4).

Users: `app`.  A new name is visible as `saving` while its data arrives.  Onto an image
that has data, the new image grows under a temporary name and takes the old one's name
in one step at the end; the old one goes to the trash.

Resuming: a PUT with `Content-Range: bytes FIRST-LAST/TOTAL` that is cut off keeps what has
arrived.  HEAD tells `Upload-Offset`; the next PUT goes on there (`curl -C`), and the one
that brings the last byte commits.

Threading: one request at a time writes to an image; a second one is a Conflict.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
from catalog.image import Entry, Image, Place
from catalog.names import is_temporary
from catalog.status import Status
from catalog.upload import Upload
from catalog.vfs import Vfs
from dav import announced, conditions, representation
from dav.announced import Announced, Digests, Part
from dav.body import Body
from dav.errors import HttpError
from dav.response import Response, empty

_BLOCK = 1024 * 1024

_writing: set[str] = set()
"""The ids of the images that requests of this process are writing to."""
_writing_lock = threading.Lock()


def receive(vfs: Vfs, place: Place, principal: Principal, environ: dict[str, Any]) -> Response:
    """Answer a PUT.

    Raises HttpError (400, 409, 412), IsAFolder, IncompleteUpload, DigestMismatch,
    InvalidImage, Protected, Forbidden, Conflict, StoreFull, StoreUnavailable.
    """
    present = _present(vfs, place)
    conditions.check(environ, representation.validators(present))
    body: Body = environ["wsgi.input"]
    expected = announced.read(environ, body.length)
    if expected.part is not None:
        return _receive_part(vfs, place, present, expected.part, expected, principal, body)
    target = _begin(vfs, place, present, principal)
    with _only_writer(target.image):
        _upload(vfs, place, target, expected, principal, body)
    return _finish(vfs, place, present, target, expected, principal)


def _upload(
    vfs: Vfs, place: Place, target: Entry, expected: Announced, principal: Principal, body: Body
) -> None:
    """The request's body into `target`, which stays queued when there is none."""
    upload: Upload | None = None
    try:
        digests = _announce(vfs, target, expected.image + expected.body, principal)
        for offset, block in _blocks(body, 0, expected.size, digests):
            upload = upload or vfs.uploads.start(target.image.number)
            upload.write(offset, block)
        if upload is not None:
            _end(upload, place if target.name == place.name else None, expected)
    except BaseException as error:
        # Killed, so that it is in nobody's way and tells why; `error` counts, not this.
        with suppress(CatalogError):
            (upload or vfs.uploads.start(target.image.number)).cancel(_reason(error))
            if target.name != place.name:
                vfs.remove(Place(target.folder, target.name), principal)
        raise


@contextmanager
def _only_writer(image: Image) -> Iterator[None]:
    with _writing_lock:
        if image.id in _writing:
            raise Conflict(image.name, "is being uploaded")
        _writing.add(image.id)
    try:
        yield
    finally:
        with _writing_lock:
            _writing.discard(image.id)


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
        case Status.SAVING:
            return _begin_again(vfs, place, present, principal)
    # Refused names are refused before the data comes.
    replacement = Place(place.folder, f".{token_hex(8)}.put")
    entry = vfs.create(replacement, principal)
    try:
        vfs.catalog.check_rename(replacement, place, principal, replace=True)
    except CatalogError:
        vfs.remove(replacement, principal)
        raise
    return entry


def _begin_again(vfs: Vfs, place: Place, present: Entry, principal: Principal) -> Entry:
    """A new image instead of an upload that waits: for its other parts, or for its name."""
    upload = vfs.uploads.get(present.image.number)
    if upload is None:
        raise Conflict(place.name, "is being uploaded by another process")
    with _only_writer(present.image):
        upload.cancel("another upload took its place")
    return vfs.catalog.renew(place, principal)


def _finish(
    vfs: Vfs,
    place: Place,
    present: Entry | None,
    target: Entry,
    expected: Announced,
    principal: Principal,
) -> Response:
    if target.name != place.name:
        vfs.rename(Place(target.folder, target.name), place, principal)
    image = vfs.catalog.image(target.image.number)
    existed = present is not None and representation.exists(present.image)
    status = HTTPStatus.NO_CONTENT if existed else HTTPStatus.CREATED
    # Nothing was added to the data: its tag, as RFC 9110 §9.3.4 allows.
    headers = [("ETag", representation.etag(image))]
    if expected.mtime is not None:
        headers.append(("X-OC-Mtime", "accepted"))
    return empty(status, *headers)


def _receive_part(
    vfs: Vfs,
    place: Place,
    present: Entry | None,
    part: Part,
    expected: Announced,
    principal: Principal,
    body: Body,
) -> Response:
    """Take one part; the upload stays `saving` until the last one has come."""
    # `curl -C -` does not ask how much has arrived: from 0 on, it is another upload.
    anew = (Status.KILLED, Status.SAVING) if part.first == 0 else (Status.KILLED,)
    if present is None or present.image.status in anew:
        present = _begin(vfs, place, present, principal)
    access.check_change(principal, present.image)
    with _only_writer(present.image):
        upload = _resume(vfs, place, present, part)
        _append(upload, part, expected, body)
        if upload.size < part.total:
            return empty(HTTPStatus.ACCEPTED, ("Upload-Offset", str(upload.size)))
        _verify(upload, _announce(vfs, present, expected.image, principal))
        _end(upload, place, expected)
    return _finish(vfs, place, None, present, expected, principal)


def _resume(vfs: Vfs, place: Place, present: Entry, part: Part) -> Upload:
    """The upload that the part belongs to.  Raises HttpError 409 when it begins elsewhere."""
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
    return upload or vfs.uploads.start(present.image.number)


def _append(upload: Upload, part: Part, expected: Announced, body: Body) -> None:
    try:
        for offset, block in _blocks(body, part.first, expected.size, expected.body):
            upload.write(offset, block)
    except DigestMismatch:
        # What has arrived is not what was sent: it has to be sent again.
        upload.truncate(part.first)
        raise


def _verify(upload: Upload, digests: Digests) -> None:
    """Compare digests that the catalog does not, of what came in several requests."""
    for algorithm, value in digests:
        digest = hashlib.new(algorithm, usedforsecurity=False)
        for offset in range(0, upload.size, _BLOCK):
            digest.update(upload.read_at(offset, _BLOCK))
        if digest.hexdigest() != value:
            error = _mismatch(algorithm)
            upload.cancel(str(error))
            raise error


def _end(upload: Upload, place: Place | None, expected: Announced) -> None:
    """Commit, unless the name is temporary; None is a replacement's, which is renamed next."""
    upload.mtime = expected.mtime
    if place is None or is_temporary(place.name):
        upload.finish()
    else:
        upload.commit()


def _blocks(
    body: Body, offset: int, size: int | None, digests: Digests
) -> Iterator[tuple[int, memoryview]]:
    """The body in blocks, each with its offset; at its end compares what was announced.

    Raises IncompleteUpload, DigestMismatch.
    """
    hashes = [(hashlib.new(name, usedforsecurity=False), value) for name, value in digests]
    block = memoryview(bytearray(_BLOCK))
    start = offset
    # The first bytes at once: they make a queued image a `saving` one, for others to see.
    count = body.readinto(block)
    while count:
        yield offset, block[:count]
        for digest, _value in hashes:
            digest.update(block[:count])
        offset += count
        count = _fill(body, block[: _BLOCK - offset % _BLOCK])
    if size is not None and offset - start != size:
        raise IncompleteUpload("", f"{size} bytes were announced, {offset - start} came")
    for digest, value in hashes:
        if digest.hexdigest() != value:
            raise _mismatch(digest.name)


def _mismatch(algorithm: str) -> DigestMismatch:
    return DigestMismatch("", f"the {algorithm} is not what was announced")


def _fill(body: Body, block: memoryview) -> int:
    """Fill a block as far as the body goes: one large write is cheaper than many small."""
    done = 0
    while done < len(block):
        try:
            size = body.readinto(block[done:])
        except IncompleteUpload:
            if not done:
                raise
            break  # what has come is kept to resume; the next read raises again
        if size == 0:
            break
        done += size
    return done


def _announce(vfs: Vfs, target: Entry, digests: Digests, principal: Principal) -> Digests:
    """Have the catalog verify a sha2 digest, which it computes anyway; return the others."""
    for digest in digests:
        algorithm, value = digest
        if algorithm in ("sha256", "sha384", "sha512"):
            vfs.catalog.set_attributes(
                target.image.number, {"image.os_hash_value": value}, principal
            )
            return tuple(other for other in digests if other is not digest)
    return digests


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__
