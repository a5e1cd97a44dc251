"""What an image is to HTTP: validators, headers, digests.

Users: `get`, `put`, `propfind`, `resources`.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from urllib.parse import quote

from catalog.image import Entry, Folder, FolderKind, Image
from catalog.status import Status
from catalog.upload import Upload
from catalog.vfs import Node
from dav.conditions import Validators

_DAYS = "Mon Tue Wed Thu Fri Sat Sun".split()
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
_ALGORITHMS = {"sha256": "sha-256", "sha384": "sha-384", "sha512": "sha-512"}

CONTENT_TYPES = {"qcow2": "application/x-qemu-disk", "iso": "application/x-iso9660-image"}


def exists(image: Image) -> bool:
    """Whether the image counts as being there: a killed upload is in nobody's way."""
    return image.status is not Status.KILLED


def etag(image: Image) -> str:
    """A strong entity tag: the image's id and, once it has data, the data's digest.

    The same after every rename, another for every other content (RFC 9110 §8.8.3).
    """
    return f'"{image.id}-{(image.os_hash_value or "0")[:32]}"'


def modified_at(image: Image) -> datetime:
    """The data's modification time, with the precision of a second at the client."""
    return datetime.fromtimestamp(image.mtime / 10**9, UTC)


def validators(node: Node | None) -> Validators:
    """What the conditions of a request compare with."""
    if isinstance(node, Entry) and exists(node.image):
        return Validators(etag(node.image), modified_at(node.image))
    if isinstance(node, Folder):
        return Validators(None, None)
    return Validators(None, None)


def content_length(image: Image, upload: Upload | None) -> int:
    """Bytes; of an upload in progress what has arrived."""
    return upload.size if upload is not None else image.size


def content_type(image: Image) -> str:
    """The media type of an image's data."""
    return CONTENT_TYPES.get(image.disk_format or "", "application/octet-stream")


def http_date(moment: datetime) -> str:
    """RFC 9110 §5.6.7; written out, as a listing has one for each member."""
    at = moment.astimezone(UTC)
    return (
        f"{_DAYS[at.weekday()]}, {at.day:02} {_MONTHS[at.month - 1]} {at.year:04}"
        f" {at.hour:02}:{at.minute:02}:{at.second:02} GMT"
    )


def http_date_now() -> str:
    """The `Date` of an answer."""
    return http_date(datetime.now(UTC))


def digest_headers(image: Image) -> list[tuple[str, str]]:
    """`Repr-Digest` (RFC 9530) and the older `Digest` (RFC 3230) of the whole image."""
    algorithm = _ALGORITHMS.get(image.os_hash_algo or "")
    if algorithm is None or not image.os_hash_value:
        return []
    value = base64.b64encode(bytes.fromhex(image.os_hash_value)).decode()
    return [("Repr-Digest", f"{algorithm}=:{value}:"), ("Digest", f"{algorithm}={value}")]


def checksums(image: Image) -> str | None:
    """`oc:checksum`, as ownCloud clients and rclone read it: `SHA256:…`, perhaps `MD5:…`."""
    found = []
    if image.os_hash_value and image.os_hash_algo:
        found.append(f"{image.os_hash_algo.upper()}:{image.os_hash_value}")
    if image.checksum:
        found.append(f"MD5:{image.checksum}")
    return " ".join(found) or None


def href(path: str, node: Node) -> str:
    """A member's URL path: quoted, a folder's with a slash at its end (RFC 4918 §5.2)."""
    quoted = quote(path)
    return quoted + "/" if isinstance(node, Folder) and not quoted.endswith("/") else quoted


def is_writable(folder: Folder) -> bool:
    """Whether members can be made in the folder."""
    return folder.kind in (FolderKind.STORE, FolderKind.PLAIN)
