"""How an image is represented in HTTP: validators, headers, digests."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from catalog.model.image import Image
from catalog.model.status import HAS_DATA, IN_PROGRESS, Status
from catalog.model.tree import Entry, Folder, FolderKind, Listed
from catalog.tree.namespace import Node
from catalog.uploads.staging import Uploads
from web.exchange.conditions import Validators

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAYS = "Mon Tue Wed Thu Fri Sat Sun".split()
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
_ALGORITHMS = {"sha256": "sha-256", "sha384": "sha-384", "sha512": "sha-512"}

CONTENT_TYPES = {"qcow2": "application/x-qemu-disk", "iso": "application/x-iso9660-image"}


def exists(image: Image) -> bool:
    """Whether the image counts as existing; a killed image does not."""
    return image.status is not Status.KILLED


def etag(image: Image | Listed) -> str:
    """An entity tag: the image's id and, once it has data, the data's digest.

    A rename does not change it, other content does (RFC 9110 §8.8.3).  A weak tag identifies
    the image, but not its data.
    """
    if may_change(image):
        return f'W/"{image.id}-0"'
    return f'"{image.id}-{(image.os_hash_value or "0")[:32]}"'


def may_change(image: Image | Listed) -> bool:
    """Whether the data can change without the catalog knowing.

    That is so for a link to a web server and for an adopted object until they have digests, and
    for an image that is still being written.
    """
    status = image.status_before_delete or image.status
    return status in IN_PROGRESS or (status in HAS_DATA and image.os_hash_value is None)


def modified_at(image: Image) -> datetime:
    """The data's modification time, without the fraction of a second."""
    return datetime.fromtimestamp(mtime_seconds(image), UTC)


def mtime_seconds(image: Image | Listed) -> int:
    """The same in seconds since 1970."""
    return image.mtime // 10**9


def validators(node: Node | None, *, reading: bool = False) -> Validators:
    """The values that a request's conditions are compared with; a folder has no tag.

    While `reading`, an image whose data may change has no validators: the client's data may be
    of another version.  It must neither be confirmed as current (304) nor be continued with
    bytes of this version.
    """
    if isinstance(node, Entry):
        return validators_of(node.image, reading=reading)
    return Validators(None, None, exists=node is not None)


def validators_of(image: Image, *, reading: bool) -> Validators:
    """As `validators`, for an image."""
    if reading and may_change(image):
        return Validators(None, None)
    return Validators(etag(image), modified_at(image))


def content_length(image: Image | Listed, uploads: Uploads) -> int:
    """The size in bytes; during an upload, the bytes that have arrived."""
    upload = uploads.get(image.number) if image.status is Status.SAVING else None
    return image.size if upload is None else upload.size


def content_type(image: Image | Listed) -> str:
    """The media type of an image's data."""
    return CONTENT_TYPES.get(image.disk_format or "", "application/octet-stream")


def http_date(moment: datetime) -> str:
    """A time in the format of RFC 9110 §5.6.7."""
    return http_date_at(int(moment.timestamp()))


def http_date_at(seconds: int) -> str:
    """As `http_date`, for a time in seconds since 1970."""
    return f"{_http_minute(seconds // 60)}{seconds % 60:02} GMT"


# Cached: a listing has a date for each member, and clients ask for it again and again.
@lru_cache(maxsize=16384)
def _http_minute(minute: int) -> str:
    at = _EPOCH + timedelta(minutes=minute)
    return (
        f"{_DAYS[at.weekday()]}, {at.day:02} {_MONTHS[at.month - 1]} {at.year:04}"
        f" {at.hour:02}:{at.minute:02}:"
    )


def http_date_now() -> str:
    """The `Date` of an answer."""
    return http_date(datetime.now(UTC))


def date_headers(image: Image) -> list[tuple[str, str]]:
    """`Last-Modified`, unless the data may have changed without the catalog knowing."""
    if may_change(image):
        return []
    return [("Last-Modified", http_date(modified_at(image)))]


def digest_headers(image: Image) -> list[tuple[str, str]]:
    """`Repr-Digest` (RFC 9530) and the older `Digest` (RFC 3230) of the whole image."""
    algorithm = _ALGORITHMS.get(image.os_hash_algo or "")
    if algorithm is None or not image.os_hash_value or may_change(image):
        return []
    value = base64.b64encode(bytes.fromhex(image.os_hash_value)).decode()
    return [("Repr-Digest", f"{algorithm}=:{value}:"), ("Digest", f"{algorithm}={value}")]


def checksums(image: Image | Listed) -> str | None:
    """`oc:checksum`, as ownCloud clients and rclone read it: `SHA256:…`, perhaps `MD5:…`."""
    if may_change(image):
        return None
    found = []
    if image.os_hash_value and image.os_hash_algo:
        found.append(f"{image.os_hash_algo.upper()}:{image.os_hash_value}")
    if image.checksum:
        found.append(f"MD5:{image.checksum}")
    return " ".join(found) or None


def is_writable(folder: Folder) -> bool:
    """Whether members can be made in the folder."""
    return folder.kind in (FolderKind.STORE, FolderKind.PLAIN)
