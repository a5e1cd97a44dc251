"""PUT: an upload in one request, or in several with Content-Range (RFC 9110 §9.3.4, §14.4).

A new name is visible as `saving` while its data arrives.  Onto an image that has data, the new
image grows under a temporary name and takes the old one's name in one step at the end; the old
one goes to the trash.

Resuming: a PUT with `Content-Range: bytes FIRST-LAST/TOTAL` that is cut off keeps what has
arrived.  HEAD tells `Upload-Offset`; the next PUT goes on there (`curl -C`), and the one
that brings the last byte commits.

Threading: one request at a time writes to an image.  A second one is a Conflict, unless it is
the same client's, whose first one has fallen silent: that one is ended.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from secrets import token_hex
from typing import Any

from catalog.errors import (
    CatalogError,
    Conflict,
    DigestMismatch,
    Forbidden,
    IsAFolder,
    NotFound,
)
from catalog.members import members_of
from catalog.model import access
from catalog.model.access import Principal
from catalog.model.image import Image
from catalog.model.names import is_temporary
from catalog.model.status import Status
from catalog.model.tree import Entry, Place
from catalog.tree.namespace import BY_ID
from catalog.tree.vfs import BY_ANOTHER, Vfs
from catalog.uploads.upload import Upload
from dav import announced, conditions, representation, subtrees
from dav.announced import Announced, Digests, Part
from dav.body import Body
from dav.errors import HttpError
from dav.response import Response, empty
from dav.upload import blocks, verify

SILENT_SECONDS = 5.0
"""Without a byte for so long, a PUT makes way for the same client's next one."""


@dataclass(frozen=True, slots=True, eq=False)
class _Request:
    """A PUT; it is also who writes to the image that takes its data."""

    vfs: Vfs
    place: Place
    principal: Principal
    environ: dict[str, Any]
    body: Body
    expected: Announced

    def check_locks(self) -> None:
        """Raise DAVError 423 unless the locks there are now let the request write."""
        self.environ["wsgidav.provider"].lock_manager.check_request(self.environ)


def receive(vfs: Vfs, place: Place, principal: Principal, environ: dict[str, Any]) -> Response:
    """Answer a PUT.

    Raises HttpError (400, 409, 412), DAVError 423, IsAFolder, IncompleteUpload,
    DigestMismatch, InvalidImage, Protected, Forbidden, Conflict, StoreFull, StoreUnavailable.
    """
    body: Body = environ["wsgi.input"]
    expected = announced.read(environ, body.length)
    request = _Request(vfs, place, principal, environ, body, expected)
    if place.folder == BY_ID:
        raise Forbidden(place.name, "/.by-id is made by the catalog")
    present = _present(vfs, place)
    if present is not None and _outlive(request, present.image):
        present = _present(vfs, place)
    hidden = is_hidden(vfs, place, principal)
    if present is not None and not hidden:
        # Before the conditions, which tell of the image (RFC 9110 §13.2.1).
        access.check_change(principal, present.image)
    existing = present if present and representation.exists(present.image) else None
    conditions.check(environ, representation.validators(None if hidden else existing))
    if hidden:
        raise Forbidden(place.name, "the name is taken")
    if expected.part is not None:
        return _receive_part(request, present, expected.part)
    target = _begin(request, present)
    with vfs.uploads.turns.taken(target.image, request):
        _upload(request, target)
    return _finish(request, present, target)


def is_hidden(vfs: Vfs, place: Place, principal: Principal) -> bool:
    """Whether an image is there that the principal may not see."""
    present = subtrees.find(vfs, place)
    if not isinstance(present, Entry):
        return False
    return not access.may_see(principal, present.image, members_of(vfs.catalog, present.image))


def _outlive(request: _Request, image: Image) -> bool:
    """End an earlier PUT of the same client's that has fallen silent; whether one has ended.

    A client that lost its connection tries again long before the server misses it.
    """
    turns = request.vfs.uploads.turns
    earlier = turns.of(image.number)
    if not isinstance(earlier, _Request) or earlier.principal != request.principal:
        return False
    # Twice: what was still on its way when this request came is no sign of life.
    for _ in range(2):
        received = earlier.body.received
        if turns.wait(image.number, earlier, SILENT_SECONDS):
            return True
        if earlier.body.finished:
            return False
        if earlier.body.received == received:
            earlier.body.abort()
            return turns.wait(image.number, earlier, SILENT_SECONDS)
    return False


def _upload(request: _Request, target: Entry) -> None:
    """The request's body into `target`, which stays queued when there is none."""
    vfs, expected = request.vfs, request.expected
    upload: Upload | None = None
    try:
        digests = _announce(request, target, expected.image + expected.body)
        for offset, block in blocks(request.body, 0, expected.size, digests):
            if upload is None:
                upload = vfs.uploads.start(target.image.number, request)
                upload.expected_size = expected.size
            upload.write(offset, block)
        _publish(request, target, upload)
    except BaseException as error:
        # Killed, so that it is in nobody's way and tells why; `error` counts, not this.
        with suppress(CatalogError):
            (upload or vfs.uploads.start(target.image.number, request)).cancel(_reason(error))
            if target.name != request.place.name:
                vfs.remove(Place(target.folder, target.name), request.principal)
        raise


def _present(vfs: Vfs, place: Place) -> Entry | None:
    try:
        node = vfs.lookup(place.folder, place.name)
    except NotFound:
        return None
    if not isinstance(node, Entry):
        raise IsAFolder(place.name)
    return node


def _begin(request: _Request, present: Entry | None) -> Entry:
    """The queued image that takes the data: a new one, the queued one, or a replacement."""
    vfs, place, principal = request.vfs, request.place, request.principal
    if present is None:
        return vfs.create(place, principal)
    match vfs.settled(present.image).status:
        case Status.QUEUED:
            return present
        case Status.KILLED:
            return vfs.catalog.renew(place, principal)
        case Status.SAVING:
            return _begin_again(request, present)
    # Refused names are refused before the data comes.
    replacement = Place(place.folder, f".{token_hex(8)}.put")
    entry = vfs.create(replacement, principal, target=place)
    try:
        vfs.catalog.check_rename(replacement, place, principal, replace=True)
    except CatalogError:
        vfs.remove(replacement, principal)
        raise
    return entry


def _begin_again(request: _Request, present: Entry) -> Entry:
    """A new image instead of an upload that waits: for its other parts, or for its name."""
    uploads = request.vfs.uploads
    upload = uploads.get(present.image.number)
    if upload is None:
        raise Conflict(present.name, BY_ANOTHER)
    with uploads.turns.taken(present.image, request):
        upload.cancel("another upload took its place")
    # Under the name is what has failed now, or what that was to replace.
    return _begin(request, _present(request.vfs, request.place))


def _publish(request: _Request, target: Entry, upload: Upload | None) -> None:
    """Make the image active under the request's name, unless that is temporary."""
    vfs, place = request.vfs, request.place
    if upload is not None:
        upload.mtime = request.expected.mtime
        upload.finish()
    # Whoever has locked the name meanwhile trusts that it stays as it was (RFC 4918 §7).
    request.check_locks()
    if target.name != place.name and upload is None:
        _keep(request, target)
    elif target.name != place.name:
        vfs.rename(Place(target.folder, target.name), place, request.principal)
    elif upload is not None and not is_temporary(_name_now(request, target)):
        upload.commit()


def _name_now(request: _Request, target: Entry) -> str:
    """The name of what has been written: a MOVE may have come before the end of the data."""
    entries = request.vfs.entries_of(target.image.number)
    return entries[0].name if entries else request.place.name


def _keep(request: _Request, target: Entry) -> None:
    """Let the old image stay: no data came, and an empty image is none to put in its place.

    Explorer and Finder announce so what they are about to send, and may never send it.
    """
    vfs, place, principal = request.vfs, request.place, request.principal
    vfs.remove(Place(target.folder, target.name), principal)
    vfs.note_failed_replacement(place, principal, "it was announced, and nothing was sent yet")


def _finish(request: _Request, present: Entry | None, target: Entry) -> Response:
    image = request.vfs.catalog.image(target.image.number)
    if image.status is Status.DELETED and present is not None:
        image = present.image
    existed = present is not None and representation.exists(present.image)
    status = HTTPStatus.NO_CONTENT if existed else HTTPStatus.CREATED
    # Nothing was added to the data: its tag, as RFC 9110 §9.3.4 allows.
    headers = [("ETag", representation.etag(image))]
    if request.expected.mtime is not None:
        headers.append(("X-OC-Mtime", "accepted"))
    return empty(status, *headers)


def _receive_part(request: _Request, present: Entry | None, part: Part) -> Response:
    """Take one part; the upload stays `saving` until the last one has come."""
    # `curl -C -` does not ask how much has arrived: from 0 on, it is another upload.
    anew = (Status.KILLED, Status.SAVING) if part.first == 0 else (Status.KILLED,)
    if present is None or present.image.status in anew:
        present = _begin(request, present)
    with request.vfs.uploads.turns.taken(present.image, request):
        upload = _resume(request, present, part)
        _append(request, upload, part)
        if upload.size < part.total:
            return empty(HTTPStatus.ACCEPTED, ("Upload-Offset", str(upload.size)))
        try:
            verify(upload, _announce(request, present, request.expected.image))
            _publish(request, present, upload)
        except BaseException as error:
            upload.cancel(_reason(error))
            raise
    return _finish(request, None, present)


def _resume(request: _Request, present: Entry, part: Part) -> Upload:
    """The upload that the part belongs to.  Raises HttpError 409 when it begins elsewhere."""
    uploads = request.vfs.uploads
    upload = uploads.get(present.image.number)
    if upload is None and present.image.status is not Status.QUEUED:
        raise Conflict(present.name, "no upload of it can be resumed here")
    arrived = upload.size if upload is not None else 0
    if part.first != arrived:
        raise HttpError(
            HTTPStatus.CONFLICT,
            f"{arrived} bytes have arrived: go on there",
            (("Upload-Offset", str(arrived)),),
        )
    upload = upload or uploads.start(present.image.number, request)
    upload.expected_size = part.total
    return upload


def _append(request: _Request, upload: Upload, part: Part) -> None:
    expected = request.expected
    try:
        for offset, block in blocks(request.body, part.first, expected.size, expected.body):
            upload.write(offset, block)
    except DigestMismatch:
        # What has arrived is not what was sent: it has to be sent again.
        upload.truncate(part.first)
        raise


def _announce(request: _Request, target: Entry, digests: Digests) -> Digests:
    """Have the catalog verify a sha2 digest, which it computes anyway; return the others."""
    for digest in digests:
        algorithm, value = digest
        if algorithm in ("sha256", "sha384", "sha512"):
            request.vfs.catalog.set_attributes(
                target.image.number, {"image.os_hash_value": value}, request.principal
            )
            return tuple(other for other in digests if other is not digest)
    return digests


def _reason(error: BaseException) -> str:
    # wsgidav's own errors say it in a field.
    return getattr(error, "context_info", "") or str(error) or type(error).__name__
