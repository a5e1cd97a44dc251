"""What the page is asked and what it answers, free of WSGI.

Every answer carries the headers that keep an image's hostile name, or a mistake of
ours, from running anything in the browser.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote

from catalog.model.access import Principal
from catalog.tree.vfs import Vfs
from dav.environ import Environ, principal_of, request_id_of
from dav.negotiation import Kind

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
    """By lower-case name; the page asks for `origin`, `content-type`, `x-imagefs`."""
    read: Callable[[], bytes]
    """The whole body, of which the server limits the size."""
    principal: Principal
    vfs: Vfs
    request_id: str
    base_url: str
    """How the client calls this server: scheme and authority, without a path."""


@dataclass(frozen=True, slots=True)
class Response:
    """What to send; a body that is not `bytes` is sent as it comes, without its length."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes | Iterable[bytes]


def request_of(environ: Environ, path: str, vfs: Vfs) -> Request:
    """The request of a WSGI environment (PEP 3333); `path` is the tree's, decoded."""
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
    """The fields of a URL's query; `?page` is a field without a value, the first one counts.

    A query with more fields than any page has is read as an empty one.
    """
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_QUERY_FIELDS)
    except ValueError:
        return {}
    return dict(reversed(pairs))


def number_of(text: str) -> int:
    """A number in a query; 0 for what is none, or larger than anything there is."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else 0


def answer(
    body: bytes | Iterable[bytes],
    kind: Kind,
    *,
    status: int = 200,
    headers: Iterable[tuple[str, str]] = (),
) -> Response:
    """A page for this user and this moment: no cache keeps it."""
    own = [("Content-Type", kind.value), ("Cache-Control", "no-store"), ("Vary", "Accept")]
    if isinstance(body, bytes):
        own.append(("Content-Length", str(len(body))))
    return Response(status, (*own, *SECURITY_HEADERS, *headers), body)


def redirect(location: str) -> Response:
    """Send the browser to another path of this server."""
    return answer(b"", Kind.TEXT, status=302, headers=[("Location", location)])


def url_of(path: str) -> str:
    """The path of a URL for an absolute path of the tree.

    It cannot begin with two slashes, which would name another host.
    """
    return quote("/" + path.lstrip("/"), safe="/")
