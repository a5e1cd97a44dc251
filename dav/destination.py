"""The `Destination` of COPY and MOVE (RFC 4918 §10.3), in a form that wsgidav reads rightly.

Users: `provider`, `resources`.  wsgidav decodes the header before it takes it apart, and so cuts
a name at its `?` or `;`.  On its way through wsgidav such a character is a surrogate, which no
name holds.
"""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import quote, urlsplit

from dav.errors import HttpError
from dav.head import BadRequest, decode_path

_PLAIN = {0xDC3B: ";", 0xDC3F: "?"}
_SHIELDS = {quote(character): chr(shielded) for shielded, character in _PLAIN.items()}


def shield(destination: str) -> str:
    """The header's text for wsgidav.  Raises HttpError 400 for what is no URL of a name."""
    try:
        url = urlsplit(destination, allow_fragments=False)
        # RFC 4918 knows no fragment here: the character is one of a name's.
        path = decode_path(url.path.encode("latin-1").replace(b"#", b"%23")).decode()
    except (BadRequest, ValueError) as error:
        raise HttpError(HTTPStatus.BAD_REQUEST, f"Destination: {error}") from error
    if url.query:
        raise HttpError(HTTPStatus.BAD_REQUEST, "Destination: '?' in a name is %3F")
    text = quote(path)
    for code, shielded in _SHIELDS.items():
        text = text.replace(code, shielded)
    return url._replace(path=text, query="").geturl()


def plain(path: str) -> str:
    """The path that wsgidav has read from a shielded header."""
    return path.translate(_PLAIN)
