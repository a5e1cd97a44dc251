"""Finds the head of an HTTP request in the bytes received, and parses it.

Scope: pure functions.  They are stricter than most servers: a head that two programs could read in
two ways is refused and never repaired (RFC 9112 §11.2, request smuggling).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus

from web.exchange.limits import Limits
from web.exchange.paths import BadRequest, decode_path

END = b"\r\n\r\n"
_BARE_LF = re.compile(rb"(?<!\r)\n")
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_REQUEST_LINE = re.compile(rb"(%b) ([\x21-\x7e\x80-\xff]+) HTTP/(\d)\.(\d)" % _TOKEN.pattern)
_ABSOLUTE = re.compile(rb"https?://([^/?#]+)(.*)", re.IGNORECASE)
_HOST = re.compile(rb"[0-9A-Za-z._~!$&'()*+,;=%:\[\]-]+")
_LENGTH = re.compile(rb"[0-9]{1,18}")

# Fields that must not come twice, as it is not clear which value counts.  All others are lists,
# and are joined (RFC 9110 §5.3).
_SINGLE = frozenset(
    b"Authorization Content-Length Content-Range Content-Type Depth Destination Expect Host "
    b"Lock-Token Overwrite Range Transfer-Encoding".split()
)


@dataclass(frozen=True, slots=True)
class Head:
    """A request's head.  `path` is decoded, `query` is not; header names are `Title-Case`."""

    method: bytes
    target: bytes
    path: bytes
    query: bytes
    http11: bool
    headers: dict[bytes, bytes]
    length: int | None
    """The body's length in bytes; None if it is chunked."""
    keep_alive: bool
    expects_continue: bool


def find_end(buffer: bytearray, scanned: int, limits: Limits) -> int:
    """Where the head ends, after its blank line; 0 while that has not arrived.

    `scanned` is how much of the buffer an earlier call has searched.  Raises BadRequest as soon
    as the head cannot become valid any more.
    """
    found = buffer.find(END, max(scanned - len(END) + 1, 0))
    end = found + len(END) if found >= 0 else len(buffer)
    if buffer.find(b"\r\n", 0, limits.request_line + 2) < 0 and end > limits.request_line + 1:
        raise BadRequest("the request line is too long", HTTPStatus.REQUEST_URI_TOO_LONG)
    if end > limits.header_block:
        raise _headers_too_large()
    if _BARE_LF.search(buffer, scanned, end):
        raise BadRequest("lines must end with CR LF")
    return end if found >= 0 else 0


def parse(block: bytes, limits: Limits) -> Head:
    """Parse a complete head, its blank line included.  Raises BadRequest."""
    line, *fields = block.removesuffix(END).split(b"\r\n")
    if len(fields) > limits.header_fields:
        raise _headers_too_large()
    method, target, http11 = _request_line(line)
    headers = _headers(fields)
    origin = _origin_form(target, headers, http11)
    raw_path, _, query = origin.partition(b"?")
    connection = {part.strip().lower() for part in headers.get(b"Connection", b"").split(b",")}
    return Head(
        method=method,
        target=target,
        path=b"*" if (method, origin) == (b"OPTIONS", b"*") else decode_path(raw_path),
        query=query,
        http11=http11,
        headers=headers,
        length=_body_length(headers, http11),
        keep_alive=b"close" not in connection and (http11 or b"keep-alive" in connection),
        expects_continue=http11 and headers.get(b"Expect", b"").lower() == b"100-continue",
    )


def _request_line(line: bytes) -> tuple[bytes, bytes, bool]:
    match = _REQUEST_LINE.fullmatch(line)
    if not match:
        raise BadRequest("the request line is malformed")
    method, target, major, minor = match.groups()
    if major != b"1":
        raise BadRequest("only HTTP/1 is spoken here", HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
    return method, target, minor != b"0"


def _headers(fields: list[bytes]) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for line in fields:
        name, colon, value = line.partition(b":")
        value = value.strip(b" \t")
        if not (colon and _TOKEN.fullmatch(name) and _VALUE.fullmatch(value)):
            raise BadRequest("a header line is malformed")
        if b"_" in name:
            continue  # In a WSGI environment it could pose as the name with a hyphen.
        name = name.title()
        if name in found:
            if name in _SINGLE:
                raise BadRequest(f"more than one {name.decode()} header")
            value = found[name] + b", " + value
        found[name] = value
    return found


def _origin_form(target: bytes, headers: dict[bytes, bytes], http11: bool) -> bytes:
    """Path and query of the target; an absolute target's host replaces Host (RFC 9112 §3.2.2)."""
    if http11 and b"Host" not in headers:
        raise BadRequest("the Host header is missing")
    if absolute := _ABSOLUTE.fullmatch(target):
        headers[b"Host"], target = absolute.groups()
        target = target if target.startswith(b"/") else b"/" + target
    if b"Host" in headers and not _HOST.fullmatch(headers[b"Host"]):
        raise BadRequest("the Host header is malformed")
    return target


def _body_length(headers: dict[bytes, bytes], http11: bool) -> int | None:
    """The body's length (RFC 9112 §6.3); without either header there is no body."""
    coding = headers.get(b"Transfer-Encoding")
    length = headers.get(b"Content-Length")
    if coding is not None:
        if length is not None:
            raise BadRequest("Content-Length together with Transfer-Encoding")
        if not http11:
            raise BadRequest("Transfer-Encoding in HTTP/1.0")
        if coding.lower() != b"chunked":
            raise BadRequest("unknown Transfer-Encoding", HTTPStatus.NOT_IMPLEMENTED)
        return None
    if length is not None and not _LENGTH.fullmatch(length):
        raise BadRequest("the Content-Length header is malformed")
    return int(length or 0)


def _headers_too_large() -> BadRequest:
    return BadRequest(
        "the request's headers are too large", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    )
