"""Decodes the path of a URL to a path in the tree, or refuses it.

Scope: bytes in, bytes out; whether anything exists at the path is not checked here.
"""

from __future__ import annotations

import re
import urllib.parse
from http import HTTPStatus

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
# Control characters, except in Finder's file of a folder's icon: `Icon` and CR.
_CONTROL = re.compile(rb"(?!(?<=/Icon)\r(?:/|\Z))[\x00-\x1f\x7f]")


class BadRequest(Exception):
    """The server itself refuses the request, before any application sees it."""

    def __init__(self, reason: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


def decode_path(raw: bytes) -> bytes:
    """Decode the path of a URL to UTF-8 bytes; raises BadRequest for impossible names."""
    if not raw.startswith(b"/") or b"#" in raw:
        raise BadRequest("the request target must be an absolute path")
    if _BAD_ESCAPE.search(raw):
        raise BadRequest("the path has a bad percent-encoding")
    if b"%2f" in raw.lower():
        raise BadRequest("a name cannot hold a slash")
    path = urllib.parse.unquote_to_bytes(raw)
    try:
        path.decode()
    except UnicodeDecodeError:
        raise BadRequest("the path is not UTF-8") from None
    if _CONTROL.search(path):
        raise BadRequest("the path has a control character")
    if not {b".", b".."}.isdisjoint(path.split(b"/")):
        raise BadRequest("the path has a '.' or '..'")
    return path
