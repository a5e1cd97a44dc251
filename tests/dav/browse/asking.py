"""The page, asked as a browser asks it."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

from catalog.errors import NotFound
from catalog.model.access import Principal
from catalog.tree.vfs import Vfs
from dav import browse
from dav.browse.exchange import query_of
from tests.kit.catalog import ALICE

HOSTILE = (
    "<script>alert(1)</script>.raw".replace("/", "∕"),
    "\"onmouseover='alert(1)'.raw",
    "a&amp;b?c#d%2e.raw",
    "-rf $(id) `id`;'x'.raw",
    "back\\slash\\n.raw",
    "\u202egnp.elif.raw",
    "{{ 7 * 7 }}{% raw %}",
    "n" * 255,
)


def ask(
    vfs: Vfs,
    path: str,
    query: str = "",
    *,
    accept: str = "text/html",
    who: Principal = ALICE,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    body: bytes = b"",
) -> browse.Response | None:
    """Ask the page as a browser does."""
    try:
        node = vfs.find(path, who)
    except NotFound:
        node = None
    request = browse.Request(
        method=method,
        path=path,
        query=query_of(query),
        accept=accept,
        headers=headers or {},
        read=lambda: body,
        principal=who,
        vfs=vfs,
        request_id="abc123",
        base_url="http://images.test:8080",
    )
    return browse.respond(request, node)


def text(vfs: Vfs, path: str, query: str = "", **options: Any) -> str:
    """The body of an answer."""
    response = ask(vfs, path, query, **options)
    assert response is not None
    body = response.body
    return (body if isinstance(body, bytes) else b"".join(body)).decode()


def document(vfs: Vfs, path: str, query: str = "", **options: Any) -> Any:
    """The JSON of a page."""
    return json.loads(text(vfs, path, query, accept="application/json", **options))


class Markup(HTMLParser):
    """Every element and every text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
