"""An answer, before the server writes it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus

from web.exchange.body import FileRange


@dataclass(slots=True)
class Response:
    """Status, headers, and a body: blocks of bytes or a range of a local file."""

    status: HTTPStatus
    headers: list[tuple[str, str]]
    body: Iterable[bytes]
    send: FileRange | None = None


def empty(status: HTTPStatus, *headers: tuple[str, str]) -> Response:
    """An answer without a body."""
    length = (
        ()
        if status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
        else (("Content-Length", "0"),)
    )
    return Response(status, [*headers, *length], [])
