"""Conditional requests: who gets 304, who 412, who goes on (RFC 9110 §13)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from tests.catalog.actions import begin
from tests.dav.server import ANONYMOUS, Served, serving
from tests.dav.wire import Wire, head

IMAGE = "/file/image.img"
LONG_AGO = "Mon, 01 Jan 2001 00:00:00 GMT"
FAR_OFF = "Fri, 01 Jan 2100 00:00:00 GMT"

_numbers = count()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with one image."""
    with serving(tmp_path_factory.mktemp("conditions")) as served:
        served.add(IMAGE)
        yield served


READING = [
    (200, "If-Match: ETAG"),
    (200, 'If-Match: "other", ETAG'),
    (200, "If-Match: *"),
    (412, 'If-Match: "other"'),
    (412, "If-Match: W/ETAG"),
    (304, "If-None-Match: ETAG"),
    (304, "If-None-Match: W/ETAG"),
    (304, 'If-None-Match: "other" ,ETAG'),
    (304, "If-None-Match: *"),
    (200, 'If-None-Match: "other"'),
    (304, "If-Modified-Since: MODIFIED"),
    (304, f"If-Modified-Since: {FAR_OFF}"),
    (200, f"If-Modified-Since: {LONG_AGO}"),
    (200, "If-Modified-Since: nonsense"),
    (200, "If-Modified-Since: Mon, 01 Jan 0001 00:00:00 +2359"),
    (200, "If-Unmodified-Since: MODIFIED"),
    (200, f"If-Unmodified-Since: {FAR_OFF}"),
    (412, f"If-Unmodified-Since: {LONG_AGO}"),
    (200, "If-Unmodified-Since: nonsense"),
    # Tags count for more than dates, and If-Match before If-None-Match (§13.2.2).
    (200, f"If-Match: ETAG|If-Unmodified-Since: {LONG_AGO}"),
    (200, f'If-None-Match: "other"|If-Modified-Since: {FAR_OFF}'),
    (412, 'If-Match: "other"|If-None-Match: ETAG'),
    (304, "If-Match: ETAG|If-None-Match: ETAG"),
]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(("status", "conditions"), READING)
def test_reading(served: Served, method: str, status: int, conditions: str) -> None:
    """A client that has the image already is told so; one that wants another is refused."""
    answer = served.ask(f"{method} {IMAGE}", *_filled(served, conditions))
    assert answer.status == status
    if status == 304:
        assert answer.headers["etag"] == served.ask(f"HEAD {IMAGE}").headers["etag"]
        assert answer.body == b""


WRITING = [
    (True, "If-Match: ETAG"),
    (True, "If-Match: *"),
    (False, 'If-Match: "other"'),
    (False, "If-None-Match: *"),
    (False, "If-None-Match: ETAG"),
    (True, 'If-None-Match: "other"'),
    (False, f"If-Unmodified-Since: {LONG_AGO}"),
    (True, f"If-Unmodified-Since: {FAR_OFF}"),
    # This one is for reading only (§13.1.3).
    (True, f"If-Modified-Since: {FAR_OFF}"),
]


@pytest.mark.parametrize(("allowed", "conditions"), WRITING)
@pytest.mark.parametrize("method", ["PUT", "DELETE", "PROPPATCH", "MOVE", "COPY", "LOCK"])
def test_changing(served: Served, method: str, allowed: bool, conditions: str) -> None:
    """Each method that changes something obeys the same conditions."""
    path = f"/file/{method}-{next(_numbers)}.img"
    before = served.add(path)
    headers = _filled(served, conditions, path)
    answer = served.ask(f"{method} {path}", *headers, *_needed(method, path), body=_body(method))
    if allowed:
        assert answer.status < 300, answer.body
    else:
        assert answer.status == 412
        assert served.image(path) == before


@pytest.mark.parametrize(
    ("status", "condition"),
    [(201, "If-None-Match: *"), (412, "If-Match: *"), (412, 'If-Match: "x"')],
)
def test_nothing_there_yet(served: Served, status: int, condition: str) -> None:
    """A new name matches nothing; what is refused does not come to be."""
    path = f"/file/new-{next(_numbers)}.img"
    assert served.ask(f"PUT {path}", condition, body=b"data").status == status
    assert served.ask(f"HEAD {path}").status == (200 if status == 201 else 404)


def test_refused_before_the_body_is_read(served: Served) -> None:
    """Who would overwrite an image is refused without having to send anything."""
    with Wire(served.port) as wire:
        wire.send(head(f"PUT {IMAGE}", "If-None-Match: *", length=1 << 40))
        assert wire.read().status == 412


def test_refused_without_an_invitation(served: Served) -> None:
    """With `Expect: 100-continue` the refusal comes instead of the invitation."""
    with Wire(served.port) as wire:
        headers = ("If-None-Match: *", "Expect: 100-continue")
        wire.send(head(f"PUT {IMAGE}", *headers, length=1 << 40))
        assert wire.read().status == 412


def test_failed_upload_is_in_nobodys_way(served: Served) -> None:
    """For conditions a killed image is not there: a careful client can try again."""
    begin(served.vfs, "/file/retry.img", b"half", ANONYMOUS).cancel("cut off")
    assert served.ask("PUT /file/retry.img", "If-None-Match: *", body=b"whole").status == 201


def test_queued_image_is_there(served: Served) -> None:
    """davfs2 writes with the tag of the empty file that its LOCK has made."""
    locked = served.ask("LOCK /file/davfs2.img", body=_body("LOCK"))
    assert locked.status == 201
    token = f"If: ({locked.headers['lock-token']})"
    etag = served.ask("HEAD /file/davfs2.img").headers["etag"]
    assert served.ask("PUT /file/davfs2.img", token, "If-None-Match: *", body=b"x").status == 412
    answer = served.ask("PUT /file/davfs2.img", token, f"If-Match: {etag}", body=b"data")
    assert answer.status == 204
    assert answer.headers["etag"] == served.ask("HEAD /file/davfs2.img").headers["etag"] != etag


def _filled(served: Served, conditions: str, path: str = IMAGE) -> list[str]:
    headers = served.ask(f"HEAD {path}").headers
    text = conditions.replace("ETAG", headers["etag"])
    return text.replace("MODIFIED", headers["last-modified"]).split("|")


def _needed(method: str, path: str) -> tuple[str, ...]:
    return (f"Destination: {path}.{method}",) if method in ("MOVE", "COPY") else ()


def _body(method: str) -> bytes:
    match method:
        case "PUT":
            return b"other data"
        case "LOCK":
            return (
                b'<D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope>'
                b"<D:locktype><D:write/></D:locktype></D:lockinfo>"
            )
        case "PROPPATCH":
            return (
                b'<D:propertyupdate xmlns:D="DAV:" xmlns:P="urn:imagefs:property"><D:set><D:prop>'
                b"<P:os_distro>debian</P:os_distro></D:prop></D:set></D:propertyupdate>"
            )
    return b""
