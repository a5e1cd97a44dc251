"""Conditional requests: who gets 304, who 412, who goes on (RFC 9110 §13)."""

from __future__ import annotations

from itertools import count

import pytest

from tests.dav.server import ANONYMOUS, Served
from tests.kit.catalog import begin
from tests.kit.wire import Wire, head

IMAGE = "/file/image.img"
LONG_AGO = "Mon, 01 Jan 2001 00:00:00 GMT"
FAR_OFF = "Fri, 01 Jan 2100 00:00:00 GMT"

_numbers = count()


@pytest.fixture(scope="module")
def served(served: Served) -> Served:
    """A server with one image."""
    served.add(IMAGE)
    return served


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
    [
        (201, "If-None-Match: *"),
        (412, "If-Match: *"),
        (412, 'If-Match: "x"'),
        (412, 'If: (["x"])'),
        (412, "If: (<opaquelocktoken:none>)"),
        (412, f"If: <{IMAGE}> (<opaquelocktoken:none>)"),
        (412, "If: ()"),
        (412, 'If: (["x"]'),
        (412, "If: <x"),
        (201, "If: "),
        (201, 'If: (Not ["x"])'),
        (201, "If: (Not <DAV:no-lock>)"),
        (201, 'If: (["x"]) (Not["x"])'),
    ],
)
@pytest.mark.parametrize("method", ["PUT", "LOCK", "MKCOL"])
def test_nothing_there_yet(served: Served, method: str, status: int, condition: str) -> None:
    """A new name matches nothing; what is refused does not come to be."""
    path = f"/file/new-{next(_numbers)}.img"
    assert served.ask(f"{method} {path}", condition, body=_body(method)).status == status
    assert (served.ask(f"PROPFIND {path}", "Depth: 0").status == 207) == (status == 201)


@pytest.mark.parametrize(("method", "status"), [("DELETE", 404), ("COPY", 404), ("UNLOCK", 404)])
def test_what_is_refused_anyway(served: Served, method: str, status: int) -> None:
    """It is refused as without conditions (RFC 9110 §13.2.1)."""
    path = "/file/missing.img"
    headers = ("If-Match: *", 'If: (["x"])', *_needed(method, path))
    assert served.ask(f"{method} {path}", *headers).status == status
    assert served.ask(f"MKCOL {IMAGE}", "If-None-Match: *").status == 405


@pytest.mark.parametrize(
    ("allowed", "condition"),
    [(True, "If-Match: *"), (False, "If-None-Match: *"), (False, 'If-Match: "x"')],
)
@pytest.mark.parametrize("method", ["PROPFIND", "MOVE", "COPY", "DELETE", "LOCK"])
def test_folder(served: Served, method: str, allowed: bool, condition: str) -> None:
    """It is there, and has no tag."""
    path = f"/file/folder-{next(_numbers)}"
    assert served.ask(f"MKCOL {path}").status == 201
    headers = ("Depth: infinity" if method != "PROPFIND" else "Depth: 0", *_needed(method, path))
    status = served.ask(f"{method} {path}", condition, *headers, body=_body(method)).status
    assert (status < 300) if allowed else status == 412


@pytest.mark.parametrize("condition", ["If-Match: ETAG", "If: ([ETAG])", "If: (Not [OTHER])"])
@pytest.mark.parametrize("method", ["MOVE", "COPY"])
def test_condition_is_of_the_source(served: Served, method: str, condition: str) -> None:
    """And not of what stands at the destination (RFC 9110 §13.1.1, RFC 4918 §10.4.2)."""
    path = f"/file/source-{next(_numbers)}.img"
    served.add(path)
    served.add(f"{path}.{method}", b"other")
    other = served.ask(f"HEAD {path}.{method}").headers["etag"]
    headers = _filled(served, condition.replace("OTHER", other), path)
    assert served.ask(f"{method} {path}", *headers, *_needed(method, path)).status == 204


@pytest.mark.parametrize(
    ("status", "lists"),
    [
        (204, "<OTHER> ([ETAG])"),
        (412, "<OTHER> (Not [ETAG])"),
        (204, "<https://proxy.test/file/if-other.img> ([ETAG])"),
        (412, "</file/missing> ([ETAG])"),
        (412, "<http://[> ([ETAG])"),
        (204, "<OTHER> (Not [ETAG]) ([ETAG])"),
        (204, "<PATH> (<DAV:no-lock>) <OTHER> ([ETAG])"),
    ],
)
def test_if_names_another_resource(served: Served, status: int, lists: str) -> None:
    """Each list is of the resource that it is tagged with; one that is true is enough."""
    path, other = "/file/if.img", "/file/if-other.img"
    for each in (path, other):
        served.ask(f"PUT {each}", body=each.encode())
    lists = lists.replace("OTHER", other).replace("PATH", path)
    (condition,) = _filled(served, f"If: {lists}", other)
    assert served.ask(f"PUT {path}", condition, body=b"new").status == status


def test_the_page_obeys_conditions(served: Served) -> None:
    """Properties are set of the image that was seen, or of none."""
    request = (f"POST {IMAGE}?properties", "Content-Type: application/json", "X-Imagefs: 1")
    body = b'{"property.os_distro": "debian"}'
    assert served.ask(*request, 'If-Match: "x"', body=body).status == 412
    assert served.ask(*request, *_filled(served, "If-Match: ETAG"), body=body).status == 200


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
