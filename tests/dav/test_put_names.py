"""What PUT, MKCOL, COPY, MOVE and LOCK do with names that are not an image's."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from catalog.model.status import Status
from tests.dav.server import Served
from tests.kit.catalog import folder_at, names_in

LOCK = (
    b'<lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope>'
    b"<locktype><write/></locktype></lockinfo>"
)


@pytest.fixture(scope="module")
def served(served: Served) -> Served:
    """A server with an image."""
    served.add("/file/image")
    return served


@pytest.mark.parametrize("name", ["desktop.ini", "Thumbs.db", ".DS_Store", "._image", "Icon\r"])
def test_a_desktop_copies_a_folder_with_its_own_files(served: Served, name: str) -> None:
    """Each request of Finder and Explorer is answered well, and there is no image more."""
    path = f"/file/{quote(name)}"
    assert served.ask(f"PUT {path}").status == 201
    assert served.ask(f"LOCK {path}", "Timeout: Second-60", body=LOCK).status == 200
    assert served.image(f"/file/{name}").status is Status.QUEUED
    token = served.ask(f"PROPFIND {path}", "Depth: 0").body
    locked = token.partition(b"<D:locktoken><D:href>")[2].partition(b"<")[0].decode()
    assert served.ask(f"PUT {path}", f"If: (<{locked}>)", body=b"[x]\r\n").status in (201, 204)
    assert served.ask(f"UNLOCK {path}", f"Lock-Token: <{locked}>").status == 204
    assert served.image(f"/file/{name}").status is Status.SAVING
    assert served.ask(f"DELETE {path}").status == 204


@pytest.mark.parametrize("name", ["SHA256SUMS", "a\u200bb", "a "])
def test_a_name_that_is_refused_is_told_as_that(served: Served, name: str) -> None:
    """400 for every method, and nothing is left."""
    path, before = f"/file/{quote(name)}", names_in(served.vfs, "/file")
    for request, headers, body in (
        (f"PUT {path}", (), b"data"),
        (f"PUT {path}", (), b""),
        (f"MKCOL {path}", (), b""),
        (f"LOCK {path}", (), LOCK),
        ("COPY /file/image", (f"Destination: {path}",), b""),
        ("MOVE /file/image", (f"Destination: {path}",), b""),
    ):
        answer = served.ask(request, *headers, body=body)
        assert answer.status == 400, request
        assert b"name" in answer.body or b"the catalog's own" in answer.body, request
    assert names_in(served.vfs, "/file") == before
    assert folder_at(served.vfs, "/file")


def test_either_form_of_a_name_is_the_same_image(served: Served) -> None:
    """macOS sends the other form than everybody else; a lock holds for both."""
    nfc, nfd = (quote(f"/file/{form}") for form in ("\u00e9.img", "e\u0301.img"))
    assert served.ask(f"PUT {nfd}", body=b"data").status == 201
    assert served.ask(f"GET {nfc}").body == b"data"
    assert served.ask(f"PUT {nfc}", "If-None-Match: *", body=b"new").status == 412
    assert served.ask(f"MKCOL {nfc}").status == 405
    listing = served.ask("PROPFIND /file", "Depth: 1").body
    assert (nfd.encode() in listing, nfc.encode() in listing) == (True, False)
    locked = served.ask(f"LOCK {nfd}", body=LOCK)
    for form in (nfc, nfd):
        assert served.ask(f"PUT {form}", body=b"new").status == 423
    token = f"Lock-Token: {locked.headers['lock-token']}"
    assert served.ask(f"UNLOCK {nfc}", token).status == 204
    assert served.ask(f"PUT {nfc}", body=b"new").status == 204
    # A PUT has just been refused: who deletes the name says which image it means.
    tag = served.ask(f"HEAD {nfd}").headers["etag"]
    assert served.ask(f"DELETE {nfd}", f"If-Match: {tag}").status == 204
    assert served.ask(f"GET {nfc}").status == 404
