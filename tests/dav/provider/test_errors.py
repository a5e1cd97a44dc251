"""Each catalog error has an HTTP status, and each answer says in words what is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest
from defusedxml.ElementTree import fromstring

from catalog.errors import CatalogError, ImageKilled, QuotaExceeded, StoreUnavailable
from catalog.model.access import Principal, Role
from dav.provider.errors import to_dav_error
from tests.dav.server import Served
from web.exchange.errors import STATUS, to_status, told


def _classes(root: type[CatalogError] = CatalogError) -> Iterator[type[CatalogError]]:
    yield root
    for child in root.__subclasses__():
        yield from _classes(child)


@pytest.mark.parametrize("kind", list(_classes()), ids=lambda kind: kind.__name__)
def test_each_error_has_a_status(kind: type[CatalogError]) -> None:
    """A new error has to be given a status of its own; only the root is the server's fault."""
    assert kind in STATUS
    assert STATUS[kind] >= HTTPStatus.BAD_REQUEST


def test_no_status_without_an_error() -> None:
    """Errors that are gone leave no line in the table."""
    assert set(STATUS) == set(_classes())


@pytest.mark.parametrize("kind", list(_classes()), ids=lambda kind: kind.__name__)
def test_a_fault_is_told_by_its_kind(kind: type[CatalogError]) -> None:
    """A store's, a disk's or a database's own words are an administrator's to read."""
    error = kind.__new__(kind)
    error.subject, error.reason = "s3.internal", "http://10.1.2.3/bucket: /srv/x: SELECT 1"
    for principal in (None, Principal("anonymous", Role.READER), Principal("alice")):
        words = told(error, principal)
        if to_status(error) >= HTTPStatus.INTERNAL_SERVER_ERROR and kind is not QuotaExceeded:
            assert words == kind.summary
        else:
            assert words == str(error)
    assert told(error, Principal("root", Role.ADMIN)) == str(error)


def test_a_name_is_said_once() -> None:
    """A killed image's message begins with it, and a line beside a store's name as well."""
    assert str(ImageKilled("a", "a: no space left")) == "a: no space left"
    assert str(ImageKilled("a", "its writer was killed")) == "a: its writer was killed"
    assert StoreUnavailable("s3", "refused").beside("s3") == "refused"
    assert StoreUnavailable("s3", "refused").beside("other") == "s3: refused"


def test_multistatus_has_the_same_words() -> None:
    """What wsgidav passes on has the status and the reason."""
    error = to_dav_error(ImageKilled("a.img", "the cat bit the cable"))
    assert (error.value, error.context_info) == (404, "a.img: the cat bit the cable")


def test_readable_error(served: Served) -> None:
    """The body names the request as the log does, in the form that the client asked for."""
    for accept, kind in (
        ("*/*", "text/plain"),
        ("text/html", "text/html"),
        ("application/json", "application/json"),
    ):
        answer = served.ask("GET /file/missing.img", f"Accept: {accept}")
        assert answer.status == 404
        assert answer.headers["content-type"].startswith(kind)
        assert answer.headers["x-request-id"].encode() in answer.body
        assert b"missing.img" in answer.body
        if accept == "application/json":
            json.loads(answer.body)


def test_failed_precondition_is_xml(served: Served) -> None:
    """Preconditions that RFC 4918 names come as it says."""
    lock = (
        b'<D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope>'
        b"<D:locktype><D:write/></D:locktype></D:lockinfo>"
    )
    assert served.ask("LOCK /file/locked.img", body=lock).status == 201
    answer = served.ask("PUT /file/locked.img", body=b"data")
    assert answer.status == 423
    assert fromstring(answer.body, forbid_dtd=True).find("{DAV:}lock-token-submitted") is not None


@pytest.mark.expect_log("failed unexpectedly")
def test_fault_of_the_server_tells_nothing_else(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody has foreseen is logged, and the client told where to look."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a secret of this host")

    monkeypatch.setattr(served.vfs, "look", fail)
    answer = served.ask("GET /file/image.img")
    assert answer.status == 500
    assert b"secret" not in answer.body
    assert answer.headers["x-request-id"].encode() in answer.body


@pytest.mark.parametrize("method", ["PATCH", "TRACE", "CONNECT", "BREW"])
def test_unknown_method(served: Served, method: str) -> None:
    """What is no method of ours is refused, with those that are."""
    answer = served.ask(f"{method} /file/")
    assert answer.status == 405
    assert "PROPFIND" in answer.headers["allow"].split(", ")


def test_store_that_is_gone(served: Served) -> None:
    """A store's data that is not there is an error of the server, not of the request."""
    image = served.add("/other/image.img")
    url = next(iter(served.vfs.entries_of(image.number))).location.url
    assert url is not None
    Path(url.removeprefix("file://")).unlink()
    assert served.ask("GET /other/image.img").status == 503


@pytest.mark.parametrize(
    "request_line", ["MKCOL /file/new", "LOCK /file/locked-2.img", "OPTIONS /"]
)
def test_success_says_nothing_of_the_libraries(served: Served, request_line: str) -> None:
    """No page, and no version of what the server is made of."""
    lock = (
        b'<D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope>'
        b"<D:locktype><D:write/></D:locktype></D:lockinfo>"
    )
    answer = served.ask(request_line, body=lock if request_line.startswith("LOCK") else b"")
    assert answer.status in (200, 201)
    assert b"wsgidav" not in answer.body.lower()
    assert b"<html" not in answer.body.lower()
