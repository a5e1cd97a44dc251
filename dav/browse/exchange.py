"""Requests to the pages and their answers, independent of WSGI.

Every answer has headers that keep a browser from running code that is in an image's name, even
after a mistake of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote

from catalog.model.access import Principal
from catalog.tree.vfs import Vfs
from web.exchange.environ import Environ, principal_of, request_id_of
from web.exchange.negotiation import Kind

_CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
SECURITY_HEADERS = (
    ("Content-Security-Policy", _CONTENT_POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
)
_MAX_QUERY_FIELDS = 32
_MAX_DIGITS = 15


@dataclass(frozen=True, slots=True)
class Request:
    """One request for a URL of the tree."""

    method: str
    path: str
    """Absolute in the tree, decoded; a folder's may end with a slash."""
    query: Mapping[str, str]
    """As `query_of` gives it."""
    accept: str
    """The header, or empty."""
    headers: Mapping[str, str]
    """By name in lower case."""
    read: Callable[[], bytes]
    """Reads the whole body; the server limits its size."""
    principal: Principal
    vfs: Vfs
    request_id: str
    base_url: str
    """The client's URL of this server: scheme and authority, without a path."""


@dataclass(frozen=True, slots=True)
class Response:
    """An answer; a body that is not `bytes` is sent in blocks, without its length."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes | Iterable[bytes]


def request_of(environ: Environ, path: str, vfs: Vfs) -> Request:
    """The request in a WSGI environment (PEP 3333); `path` is the decoded path in the tree."""
    headers = {
        name.removeprefix("HTTP_").lower().replace("_", "-"): value
        for name, value in environ.items()
        if name.startswith("HTTP_") or name == "CONTENT_TYPE"
    }
    own = f"{environ['SERVER_NAME']}:{environ['SERVER_PORT']}"
    return Request(
        method=environ["REQUEST_METHOD"],
        path=path,
        query=query_of(environ.get("QUERY_STRING", "")),
        accept=headers.get("accept", ""),
        headers=headers,
        read=environ["wsgi.input"].read,
        principal=principal_of(environ),
        vfs=vfs,
        request_id=request_id_of(environ),
        base_url=f"{environ['wsgi.url_scheme']}://{headers.get('host', own)}",
    )


def query_of(text: str) -> dict[str, str]:
    """The fields of a URL's query; `?page` is a field without a value.

    If a field comes twice, the first one counts.  A query with more fields than any page has
    is taken for an empty one.
    """
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_QUERY_FIELDS)
    except ValueError:
        return {}
    return dict(reversed(pairs))


def number_of(text: str) -> int:
    """A number in a query; 0 for anything else, and for a number that is too large."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else 0


def answer(
    body: bytes | Iterable[bytes],
    kind: Kind,
    *,
    status: int = 200,
    headers: Iterable[tuple[str, str]] = (),
) -> Response:
    """An answer that no cache may keep: it is for this user and this moment only."""
    own = [("Content-Type", kind.value), ("Cache-Control", "no-store"), ("Vary", "Accept")]
    if isinstance(body, bytes):
        own.append(("Content-Length", str(len(body))))
    return Response(status, (*own, *SECURITY_HEADERS, *headers), body)


def redirect(location: str) -> Response:
    """Send the browser to another path of this server."""
    return answer(b"", Kind.TEXT, status=302, headers=[("Location", location)])


def url_of(path: str) -> str:
    """The path of a URL for an absolute path in the tree.

    It never begins with two slashes: a browser would take the first name for a host.
    """
    return quote("/" + path.lstrip("/"), safe="/")
