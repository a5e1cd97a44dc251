"""What a browser asks for, and what it is answered."""

from __future__ import annotations

import json

import pytest

from catalog.errors import NotFound
from catalog.tree.vfs import Vfs
from dav import browse
from dav.browse import assets
from tests.dav.browse.asking import Markup, ask, text
from tests.kit.catalog import put
from web.exchange.negotiation import Kind, kind_for

_ACCEPTS = ("text/html,*/*;q=0.8", "application/json", "*/*")


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("text/html,application/xhtml+xml,*/*;q=0.8", Kind.HTML),
        ("application/json", Kind.JSON),
        ("application/json, text/html;q=0.5", Kind.JSON),
        ("text/html;q=0, application/json;q=0.1", Kind.JSON),
        ("*/*", Kind.TEXT),
        ("", Kind.TEXT),
        ("text/html;q=nonsense", Kind.HTML),
    ],
)
def test_accept_decides_between_html_and_json(accept: str, kind: Kind) -> None:
    """The heavier of both wins; who names neither gets the default."""
    assert kind_for(accept, otherwise=Kind.TEXT) is kind


def test_data_of_an_image_is_not_the_page_s(vfs: Vfs) -> None:
    """Only `?page` is answered, so that a plain GET always gives the data."""
    put(vfs, "/file/a.raw")
    assert ask(vfs, "/file/a.raw") is None
    assert ask(vfs, "/file/a.raw", accept="application/json") is None
    assert ask(vfs, "/file/a.raw", method="PUT") is None
    assert "a.raw" in text(vfs, "/file/a.raw", "page")


def test_what_is_not_there_is_not_found(vfs: Vfs) -> None:
    """A missing name is left to WebDAV, a missing asset is refused."""
    assert ask(vfs, "/file/nothing") is None
    for path in ("/.assets/x/page.css", "/.assets/../page.js", "/.assets/"):
        with pytest.raises(NotFound):
            ask(vfs, path)


def test_head_has_the_headers_of_get_and_no_body(vfs: Vfs) -> None:
    """RFC 9110 §9.3.2."""
    got, head = ask(vfs, "/file/"), ask(vfs, "/file/", method="HEAD")
    assert got is not None
    assert head is not None
    assert head.headers == got.headers
    assert head.body == b""


def test_every_answer_carries_the_strict_policy(vfs: Vfs) -> None:
    """Pages, JSON, assets, sums and errors alike; pages are kept by no cache."""
    put(vfs, "/file/a.raw")
    asset = assets.URLS["page.js"]
    answers = [ask(vfs, path) for path in ("/", "/file", "/.by-id", "/file/SHA256SUMS", asset)]
    answers += [ask(vfs, "/file/a.raw", "page"), browse.error_page(404, "x", "1", "text/html")]
    for response in answers:
        assert response is not None
        headers = dict(response.headers)
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none';")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
    assert dict(answers[1].headers)["Cache-Control"] == "no-store"  # type: ignore[union-attr]
    assert "immutable" in dict(answers[4].headers)["Cache-Control"]  # type: ignore[union-attr]


def test_pages_refer_to_nothing_outside_and_run_nothing_inline(vfs: Vfs) -> None:
    """Every source is an asset of ours; no style or handler stands in the markup."""
    put(vfs, "/file/a.raw")
    for path, query in (("/", ""), ("/file/", ""), ("/file/a.raw", "page"), ("/file/.trash", "")):
        for tag, attributes in Markup(text(vfs, path, query)).elements:
            assert not any(name == "style" or name.startswith("on") for name in attributes)
            for name in ("src", "href", "action"):
                value = attributes.get(name) or "/"
                assert value[0] in "/?#", (tag, value)
                assert not value.startswith("//")
            if tag in ("script", "link", "img"):
                assert (attributes.get("src") or attributes.get("href")) in assets.URLS.values()


def test_an_error_is_told_as_it_was_asked_for() -> None:
    """HTML with the request id, JSON with its parts, one line to everybody else."""
    message = "<b>no</b> such image"
    pages = [browse.error_page(404, message, "r1", accept) for accept in _ACCEPTS]
    html, as_json, line = (page.body.decode() for page in pages)  # type: ignore[union-attr]
    assert {page.status for page in pages} == {404}
    assert "&lt;b&gt;no&lt;/b&gt;" in html
    assert "r1" in html
    assert json.loads(as_json)["error"] == {"status": 404, "message": message, "request_id": "r1"}
    assert line == f"{message} (request r1)\n"
