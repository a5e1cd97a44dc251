"""The `Destination` of COPY and MOVE (RFC 4918 §10.3), in a form that wsgidav reads correctly.

Only the path counts: a proxy that does TLS has another scheme, host and port than this server, and
seldom sends them.  wsgidav decodes the header before it splits it, and so cuts a name at `?` or
`;`.  While wsgidav handles the request, such a character is replaced by a surrogate, which no name
can have.
"""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import SplitResult, quote, urlsplit

from web.exchange.errors import HttpError
from web.exchange.forwarded import host_name
from web.exchange.paths import BadRequest, decode_path

_PLAIN = {0xDC3B: ";", 0xDC3F: "?"}
_SHIELDS = {quote(character): chr(shielded) for shielded, character in _PLAIN.items()}


def shield(destination: str, public_host: str | None) -> str:
    """The header's text for wsgidav: only a path.

    `public_host` is the client's name for this server, if it is surely known.  Raises HttpError
    400 for anything but the URL of a name, and 502 for a URL on another server.
    """
    try:
        url = urlsplit(destination, allow_fragments=False)
        path = _decoded(url)
    except (BadRequest, ValueError) as error:
        raise HttpError(HTTPStatus.BAD_REQUEST, f"Destination: {error}") from error
    if url.query:
        raise HttpError(HTTPStatus.BAD_REQUEST, "Destination: '?' in a name is %3F")
    _check_host(url.netloc, public_host)
    text = quote(f"/{path.lstrip('/')}")
    for code, shielded in _SHIELDS.items():
        text = text.replace(code, shielded)
    return text


def _check_host(netloc: str, public_host: str | None) -> None:
    """Raise HttpError for another server's name, if ours is known.  Ports may be a proxy's."""
    if not netloc or public_host is None or host_name(netloc) == host_name(public_host):
        return
    raise HttpError(
        HTTPStatus.BAD_GATEWAY,
        f"Destination: {host_name(netloc)} is another server than {host_name(public_host)}, as"
        " which this one was asked; a proxy in between has to send X-Forwarded-Host"
        " and to be one of [dav] trusted_proxies",
    )


def path_of(destination: str) -> str:
    """The header's path, unchecked, for callers that need only a hint; empty if it has none."""
    try:
        return _decoded(urlsplit(destination, allow_fragments=False))
    except (BadRequest, ValueError):
        return ""


def _decoded(url: SplitResult) -> str:
    # RFC 4918 has no fragments here: a `#` is part of the name.
    return decode_path(url.path.encode("latin-1").replace(b"#", b"%23")).decode()


def above(path: str) -> str:
    """The path of the folder that has the last name of `path`; `/` for the root."""
    return path.rstrip("/").rpartition("/")[0] or "/"


def plain(path: str) -> str:
    """The real path, from the one that wsgidav has read from a shielded header."""
    return path.translate(_PLAIN)
