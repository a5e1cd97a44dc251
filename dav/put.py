"""PUT: an upload in one request, or in several with Content-Range (RFC 9110 §9.3.4, §14.4).

At a new name the image is visible as `saving` while its data arrives.  If the PUT replaces an image
that has data, the new image first gets a temporary name.  At the end it takes the name of the old
image in one step, and the old image goes to the trash.

Resuming: if a PUT with `Content-Range: bytes FIRST-LAST/TOTAL` is cut off, the data that has
arrived is kept.  The answer to a HEAD has an `Upload-Offset`; the next PUT continues there
(`curl -C`), and the PUT with the last byte commits.

Threading: one request at a time writes to an image.  A second one gets a Conflict.  But if both
come from the same user, and the first one has not received a byte for a while, the first one is
ended.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from http import HTTPStatus
from secrets import token_hex

from catalog.errors import CatalogError, Conflict, DigestMismatch, Forbidden, IsAFolder, Locked
from catalog.model import access
from catalog.model.access import Principal
from catalog.model.image import Image
from catalog.model.status import Status
from catalog.model.tree import Entry, Place
from catalog.rules import entries, fields
from catalog.rules.entries import Rename
from catalog.rules.locks import Writing
from catalog.tree.namespace import BY_ID, Spot
from catalog.tree.vfs import BY_ANOTHER, Vfs
from catalog.uploads.upload import Upload
from dav.provider.locks import locked, writing
from web.exchange import announced, conditions, representation
from web.exchange.announced import Announced, Digests, Part
from web.exchange.body import Body
from web.exchange.environ import Environ
from web.exchange.errors import HttpError
from web.exchange.response import Response, empty
from web.exchange.upload import blocks, verify

SILENT_SECONDS = 5.0
"""After so long without a byte, a PUT is ended if the same user sends another one."""


@dataclass(frozen=True, slots=True, eq=False)
class _Request:
    """A PUT; the object itself is also the owner of the image's turn (`Turns`)."""

    vfs: Vfs
    spot: Spot
    place: Place
    principal: Principal
    environ: Environ
    body: Body
    expected: Announced

    @property
    def writing(self) -> Writing:
        """The write that the locks have to allow once the data is there."""
        return writing(self.environ, self.environ["PATH_INFO"])


def receive(vfs: Vfs, spot: Spot, principal: Principal, environ: Environ) -> Response:
    """Answer a PUT; `spot` is what was found at its path.

    Raises HttpError (400, 409, 412), DAVError 423, IsAFolder, IncompleteUpload,
    DigestMismatch, InvalidImage, Protected, Forbidden, Conflict, StoreFull, StoreUnavailable.
    """
    body: Body = environ["wsgi.input"]
    expected = announced.read(environ, body.length)
    place = spot.place
    request = _Request(vfs, spot, place, principal, environ, body, expected)
    if place.folder == BY_ID:
        raise Forbidden(place.name, "/.by-id is made by the catalog")
    present = _present(spot)
    if present is not None and _outlive(request, present.image):
        spot = vfs.look([spot.path], principal)[0]
        request = replace(request, spot=spot, place=spot.place)
        present = _present(spot)
    if present is not None and not spot.is_hidden:
        # Before the conditions: their result would show something about the image
        # (RFC 9110 §13.2.1).
        access.check_change(principal, present.image)
    existing = present if present and representation.exists(present.image) else None
    conditions.check(environ, representation.validators(None if spot.is_hidden else existing))
    if spot.is_hidden:
        raise Forbidden(place.name, "the name is taken")
    if expected.part is not None:
        return _receive_part(request, present, expected.part)
    sha2, others = _split(expected.image + expected.body)
    target = _begin(request, present, sha2)
    with vfs.uploads.turns.taken(target.image, request):
        image = _upload(request, target, present, sha2, others)
    return _answer(request, present, image)


def _outlive(request: _Request, image: Image) -> bool:
    """End an earlier PUT of the same user that receives nothing; return whether one has ended.

    A client that lost its connection tries again long before the server notices the loss.
    """
    turns = request.vfs.uploads.turns
    earlier = turns.of(image.number)
    if not isinstance(earlier, _Request) or earlier.principal != request.principal:
        return False
    # Wait twice: bytes that were still on their way when this request came do not show that the
    # earlier client is alive.
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


def _upload(
    request: _Request, target: Entry, present: Entry | None, sha2: str | None, digests: Digests
) -> Image:
    """Write the request's body to `target`, which stays queued if the body is empty."""
    vfs, expected = request.vfs, request.expected
    upload: Upload | None = None
    try:
        if present is not None and target.name == request.place.name:
            _announce(request, target, sha2)
        for offset, block in blocks(request.body, 0, expected.size, digests):
            if upload is None:
                upload = vfs.uploads.start(target.image.number, request, target)
                upload.expected_size = expected.size
            upload.write(offset, block)
        if upload is None:
            return _leave_empty(request, target, present)
        return _publish(request, target, upload)
    except BaseException as error:
        # Kill the image: others can use its name, and its message says why it failed.  A
        # failure of that is ignored, as `error` is the one to report.
        with suppress(CatalogError):
            (upload or vfs.uploads.start(target.image.number, request)).cancel(_reason(error))
            if target.name != request.place.name:
                vfs.remove(Place(target.folder, target.name), request.principal)
        raise


def _present(spot: Spot) -> Entry | None:
    if spot.present is None or isinstance(spot.present, Entry):
        return spot.present
    raise IsAFolder(spot.name)


def _begin(request: _Request, present: Entry | None, sha2: str | None) -> Entry:
    """The queued image for the data: a new one, the one that is there, or a replacement.

    `sha2` is the announced digest; an image that is made here gets it as its expected digest.
    """
    vfs, place, principal = request.vfs, request.place, request.principal
    folder = request.spot.folder
    if present is None:
        return vfs.create(place, principal, folder=folder, expected_hash=sha2)
    match vfs.settled(present.image).status:
        case Status.QUEUED:
            return present
        case Status.KILLED:
            return entries.renew(vfs.catalog, place, principal)
        case Status.SAVING:
            return _begin_again(request, present, sha2)
    # With `target`, a name that is refused is refused now, before the data comes.
    replacement = Place(place.folder, f".{token_hex(8)}.put")
    return vfs.create(replacement, principal, target=place, folder=folder, expected_hash=sha2)


def _announce(request: _Request, entry: Entry, sha2: str | None) -> None:
    """Let the catalog verify a digest, which it computes anyway."""
    if sha2 is not None:
        fields.set_attributes(
            request.vfs.catalog,
            entry.image.number,
            {"image.os_hash_value": sha2},
            request.principal,
        )


def _split(digests: Digests) -> tuple[str | None, Digests]:
    """The first digest that the catalog can verify, if any, and those that we have to verify."""
    for digest in digests:
        algorithm, value = digest
        if algorithm in ("sha256", "sha384", "sha512"):
            return value, tuple(other for other in digests if other is not digest)
    return None, digests


def _begin_again(request: _Request, present: Entry, sha2: str | None) -> Entry:
    """Cancel an upload that waits for further parts, or for a rename; begin a new image."""
    vfs = request.vfs
    upload = vfs.uploads.get(present.image.number)
    if upload is None:
        raise Conflict(present.name, BY_ANOTHER)
    with vfs.uploads.turns.taken(present.image, request):
        upload.cancel("another upload took its place")
    # The name now belongs to the killed image, or to the image that it would have replaced.
    return _begin(request, _present(vfs.look([request.spot.path], request.principal)[0]), sha2)


def _publish(request: _Request, target: Entry, upload: Upload) -> Image:
    """Make the image active under the request's name, unless that is temporary.

    The locks are checked once more: if a client has locked the name while the data was arriving,
    it must stay as it is (RFC 4918 §7).
    """
    vfs, place = request.vfs, request.place
    upload.mtime = request.expected.mtime
    move = None
    if target.name != place.name:
        if isinstance(request.spot.present, Entry):
            vfs.uses.publish_of(request.spot.present.image)
        source = Place(target.folder, target.name)
        move = Rename(source, place, request.principal, replace=True)
    try:
        vfs.publish(upload, request.writing, move)
    except Locked as error:
        raise locked(error) from error
    return upload.image


def _leave_empty(request: _Request, target: Entry, present: Entry | None) -> Image:
    """Keep the old image, as an empty body does not replace it.

    Explorer and Finder first send an empty PUT to announce a file, and may never send its data.
    """
    vfs, place, principal = request.vfs, request.place, request.principal
    request.environ["wsgidav.provider"].lock_manager.check_request(request.environ)
    if target.name == place.name or present is None:
        return target.image
    vfs.remove(Place(target.folder, target.name), principal)
    vfs.note_failed_replacement(place, principal, "it was announced, and nothing was sent yet")
    return present.image


def _answer(request: _Request, present: Entry | None, image: Image) -> Response:
    existed = present is not None and representation.exists(present.image)
    status = HTTPStatus.NO_CONTENT if existed else HTTPStatus.CREATED
    # RFC 9110 §9.3.4 allows a tag here, as the data is stored exactly as it was sent.
    headers = [("ETag", representation.etag(image))]
    if request.expected.mtime is not None:
        headers.append(("X-OC-Mtime", "accepted"))
    return empty(status, *headers)


def _receive_part(request: _Request, present: Entry | None, part: Part) -> Response:
    """Receive one part; the image stays `saving` until the last one has come."""
    # A part from 0 on begins a new upload: `curl -C -` does not ask how much has arrived.
    anew = (Status.KILLED, Status.SAVING) if part.first == 0 else (Status.KILLED,)
    if present is None or present.image.status in anew:
        present = _begin(request, present, None)
    with request.vfs.uploads.turns.taken(present.image, request):
        upload = _resume(request, present, part)
        _append(request, upload, part)
        if upload.size < part.total:
            return empty(HTTPStatus.ACCEPTED, ("Upload-Offset", str(upload.size)))
        try:
            sha2, others = _split(request.expected.image)
            _announce(request, present, sha2)
            verify(upload, others)
            image = _publish(request, present, upload)
        except BaseException as error:
            upload.cancel(_reason(error))
            raise
    return _answer(request, None, image)


def _resume(request: _Request, present: Entry, part: Part) -> Upload:
    """The upload that the part continues.  Raises HttpError 409 if it has another offset."""
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
    upload = upload or uploads.start(present.image.number, request, present)
    upload.expected_size = part.total
    return upload


def _append(request: _Request, upload: Upload, part: Part) -> None:
    expected = request.expected
    try:
        for offset, block in blocks(request.body, part.first, expected.size, expected.body):
            upload.write(offset, block)
    except DigestMismatch:
        # The part was damaged on its way: drop it, so that the client can send it again.
        upload.truncate(part.first)
        raise


def _reason(error: BaseException) -> str:
    # wsgidav's errors have the reason in a field.
    return getattr(error, "context_info", "") or str(error) or type(error).__name__
