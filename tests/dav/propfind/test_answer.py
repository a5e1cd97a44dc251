"""PROPFIND: properties and listings (RFC 4918 §9.1)."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from xml.etree.ElementTree import Element

import pytest

from catalog.model.access import ADMIN
from catalog.rules import fields
from catalog.rules.members import add_member
from catalog.service.bootstrap import open_catalog
from catalog.tree.vfs import Vfs
from dav.propfind import kept_pages
from tests.dav.server import ANONYMOUS, Served, serving, xml
from tests.kit.catalog import (
    begin,
    make_folder,
    put,
    remove,
    rename,
    set_fields,
    settings_at,
    some_bytes,
)
from tests.kit.daemon import Daemon
from tests.kit.large_folder import fill
from tests.kit.service import service
from tests.kit.wire import Answer, Wire

DATA = some_bytes(100_000, seed=4)
IMAGE = "/file/image.img"
MEMBERS = 10_000

D, OC = "{DAV:}", "{http://owncloud.org/ns}"
FIELD, P = "{urn:imagefs:image}", "{urn:imagefs:property}"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with one image that has two custom properties."""
    with serving(tmp_path_factory.mktemp("propfind")) as served:
        image = served.add(IMAGE, DATA)
        fields.set_attributes(
            served.vfs.catalog,
            image.number,
            {"property.os_distro": "debian", "property.note": "<&>\"'", "image.tags": "a,b"},
            ANONYMOUS,
        )
        yield served


def _find(served: Served, path: str, body: str = "", *headers: str, depth: str = "0") -> Answer:
    wanted = ""
    if body:
        wanted = (
            '<D:propfind xmlns:D="DAV:" xmlns:I="urn:imagefs:image" xmlns:P="urn:imagefs:property"'
            f' xmlns:oc="http://owncloud.org/ns" xmlns:x="urn:x">{body}</D:propfind>'
        )
    return served.ask(f"PROPFIND {path}", f"Depth: {depth}", *headers, body=wanted.encode())


def _found(answer: Answer, status: int = 200) -> dict[str, Element]:
    """The properties of a single response that have the status."""
    assert answer.status == 207, answer.body
    (response,) = xml(answer)
    return {
        element.tag: element
        for propstat in response.iterfind("{DAV:}propstat")
        if f" {status} " in (propstat.findtext("{DAV:}status") or "")
        for element in propstat.find("{DAV:}prop") or ()
    }


def _hrefs(answer: Answer) -> list[str]:
    assert answer.status == 207, answer.body
    return [response.findtext("{DAV:}href") or "" for response in xml(answer)]


# -- what is asked for -----------------------------------------------------------------


@pytest.mark.parametrize("body", ["", "<D:allprop/>"])
def test_all_properties(served: Served, body: str) -> None:
    """`allprop`, and no body, bring what RFC 4918 defines and the custom properties."""
    found = _found(_find(served, IMAGE, body))
    image = served.image(IMAGE)
    assert found[f"{D}getcontentlength"].text == str(len(DATA))
    assert found[f"{D}getetag"].text == served.ask(f"HEAD {IMAGE}").headers["etag"]
    assert found[f"{D}getlastmodified"].text == served.ask(f"HEAD {IMAGE}").headers["last-modified"]
    assert found[f"{D}creationdate"].text == image.created_at.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert found[f"{D}displayname"].text == "image.img"
    assert not list(found[f"{D}resourcetype"])
    assert len(found[f"{D}supportedlock"]) == 2
    assert found[f"{P}os_distro"].text == "debian"
    assert found[f"{P}note"].text == "<&>\"'"
    assert not any(tag.startswith((FIELD, OC, f"{D}quota")) for tag in found)


def test_include(served: Served) -> None:
    """`include` adds to `allprop` what it leaves out."""
    body = "<D:allprop/><D:include><I:id/><D:quota-used-bytes/><D:getetag/></D:include>"
    found = _found(_find(served, IMAGE, body))
    assert found[f"{FIELD}id"].text == served.image(IMAGE).id
    assert f"{D}getetag" in found


def test_names(served: Served) -> None:
    """`propname` brings every property's name and no value."""
    found = _found(_find(served, IMAGE, "<D:propname/>"))
    assert {f"{D}getetag", f"{FIELD}status", f"{P}os_distro", f"{OC}checksums"} <= set(found)
    assert not any(element.text or len(element) for element in found.values())


def test_chosen_properties(served: Served) -> None:
    """`prop` brings these and nothing else, and says which are not there."""
    body = "<D:prop><D:getetag/><I:status/><P:os_distro/><P:os_version/><x:y/><I:z/></D:prop>"
    answer = _find(served, IMAGE, body)
    assert set(_found(answer)) == {f"{D}getetag", f"{FIELD}status", f"{P}os_distro"}
    assert set(_found(answer, 404)) == {f"{P}os_version", "{urn:x}y", f"{FIELD}z"}


def test_image_fields(served: Served) -> None:
    """The fields of an image are what the catalog says."""
    names = ("id", "status", "name", "size", "disk_format", "visibility", "protected", "tags")
    body = "<D:prop>" + "".join(f"<I:{name}/>" for name in names) + "</D:prop>"
    found = {
        tag.removeprefix(FIELD): it.text for tag, it in _found(_find(served, IMAGE, body)).items()
    }
    assert found == {
        "id": served.image(IMAGE).id,
        "status": "active",
        "name": "image.img",
        "size": str(len(DATA)),
        "disk_format": "raw",
        "visibility": "public",
        "protected": "false",
        "tags": "a,b",
    }


def test_checksums_and_stable_id(served: Served) -> None:
    """What ownCloud's clients and rclone ask for."""
    found = _found(_find(served, IMAGE, "<D:prop><oc:checksums/><oc:id/></D:prop>"))
    sums = found[f"{OC}checksums"].findtext(f"{OC}checksum")
    assert sums == f"SHA256:{hashlib.sha256(DATA).hexdigest()}"
    assert found[f"{OC}id"].text == served.image(IMAGE).id


def test_quota(served: Served) -> None:
    """A folder tells its store's room (RFC 4331)."""
    body = "<D:prop><D:quota-used-bytes/><D:quota-available-bytes/></D:prop>"
    found = _found(_find(served, "/file/", body))
    usage = served.vfs.usage("file")
    assert usage.total is not None
    used, free = (int(found[f"{D}quota-{it}-bytes"].text or "") for it in ("used", "available"))
    assert used + free == usage.total


def test_upload_in_progress(served: Served) -> None:
    """The length of what is being uploaded grows."""
    upload = begin(served.vfs, "/file/saving.img", b"12345", ANONYMOUS)
    body = "<D:prop><D:getcontentlength/><I:status/></D:prop>"
    found = _found(_find(served, "/file/saving.img", body))
    assert (found[f"{D}getcontentlength"].text, found[f"{FIELD}status"].text) == ("5", "saving")
    upload.cancel("the test has ended")


def test_locks(served: Served) -> None:
    """`lockdiscovery` shows who holds a lock."""
    served.add("/file/locked.img")
    lock = (
        b'<D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope>'
        b"<D:locktype><D:write/></D:locktype><D:owner>me &amp; you</D:owner></D:lockinfo>"
    )
    token = served.ask("LOCK /file/locked.img", body=lock).headers["lock-token"]
    found = _found(_find(served, "/file/locked.img", "<D:prop><D:lockdiscovery/></D:prop>"))
    (active,) = found[f"{D}lockdiscovery"]
    assert f"<{active.findtext(f'{D}locktoken/{D}href')}>" == token
    assert active.findtext(f"{D}owner") == "me & you"


# -- listings --------------------------------------------------------------------------


def test_members(served: Served) -> None:
    """A folder comes first, then its members; the trash is found by its name alone."""
    make_folder(served.vfs, "/file/ordner", ANONYMOUS)
    make_folder(served.vfs, "/file/ordner/ein & aus", ANONYMOUS)
    served.add("/file/ordner/50% ü.img")
    hrefs = _hrefs(_find(served, "/file/ordner", depth="1"))
    assert hrefs == [
        "/file/ordner/",
        "/file/ordner/ein%20%26%20aus/",
        "/file/ordner/50%25%20%C3%BC.img",
    ]
    assert _hrefs(_find(served, "/file/ordner/", depth="0")) == ["/file/ordner/"]
    assert "/file/.trash/" not in _hrefs(_find(served, "/file/", depth="1"))
    assert _hrefs(_find(served, "/file/.trash/", depth="1"))[0] == "/file/.trash/"


def test_root(served: Served) -> None:
    """The root lists the stores and nothing else."""
    expected = ["/", "/file/", "/memory/", "/other/"]
    assert sorted(_hrefs(_find(served, "/", depth="1"))) == expected


def test_image_has_no_members(served: Served) -> None:
    """rclone asks for a file with Depth 1."""
    assert _hrefs(_find(served, IMAGE, depth="1")) == [IMAGE]


def test_private_images(served: Served) -> None:
    """Another's image is neither listed nor told of until it is shared."""
    put(served.vfs, "/other/private.img", DATA, ADMIN)
    set_fields(served.vfs, "/other/private.img", ADMIN, visibility="private")
    assert _hrefs(_find(served, "/other/", depth="1")) == ["/other/"]
    assert _find(served, "/other/private.img").status == 404
    set_fields(served.vfs, "/other/private.img", ADMIN, visibility="shared")
    number = served.image("/other/private.img").number
    add_member(served.vfs.catalog, number, ANONYMOUS.name, ADMIN)
    assert _hrefs(_find(served, "/other/", depth="1")) == ["/other/", "/other/private.img"]
    assert _find(served, "/other/private.img").status == 207


@pytest.mark.parametrize("depth", ["infinity", "Infinity", "2", ""])
def test_infinite_depth(served: Served, depth: str) -> None:
    """Everything at once is refused, in the words of RFC 4918 §9.1.1."""
    headers = [f"Depth: {depth}"] if depth else []
    answer = served.ask("PROPFIND /", *headers)
    assert answer.status == 403
    assert [element.tag for element in xml(answer)] == ["{DAV:}propfind-finite-depth"]


def test_compressed(served: Served) -> None:
    """gzip when the client asks for it, the same in its content."""
    plain = _find(served, "/file/", depth="1")
    packed = _find(served, "/file/", "", "Accept-Encoding: deflate, gzip", depth="1")
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body) == plain.body
    assert "content-encoding" not in plain.headers
    assert "Accept-Encoding" in plain.headers["vary"]


@pytest.mark.parametrize("coding", ["gzip;q=0", "identity, gzip; q=0.0", "br"])
def test_not_compressed(served: Served, coding: str) -> None:
    """A client that forbids gzip gets none."""
    answer = _find(served, "/file/", "", f"Accept-Encoding: {coding}", depth="1")
    assert "content-encoding" not in answer.headers


# -- bad requests ----------------------------------------------------------------------

_BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">%s]><D:propfind xmlns:D="DAV:">&z;</D:propfind>'


@pytest.mark.parametrize(
    "body",
    [
        "not XML",
        "<D:propfind",
        '<D:propfind xmlns:D="DAV:">',
        '<D:propfind xmlns:D="DAV:"/>',
        '<D:propfind xmlns:D="DAV:"><D:other/></D:propfind>',
        '<D:mkcol xmlns:D="DAV:"/>',
        "<propfind/>",
        '<D:propfind xmlns:D="DAV:"><D:prop><bad xmlns:x=""/></D:prop></D:propfind>',
        _BOMB % "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in pairwise("abcdefz")),
        '<!DOCTYPE x [<!ENTITY z SYSTEM "file:///etc/passwd">]>'
        '<D:propfind xmlns:D="DAV:"><D:prop>&z;</D:prop></D:propfind>',
        '<!DOCTYPE x SYSTEM "http://127.0.0.1:1/x.dtd"><D:propfind xmlns:D="DAV:"/>',
    ],
)
def test_body_that_is_no_propfind(served: Served, body: str) -> None:
    """What is malformed, another element or carries a DTD is refused."""
    answer = served.ask(f"PROPFIND {IMAGE}", "Depth: 0", body=body.encode())
    assert answer.status == 400
    assert b"root:" not in answer.body


def test_large_body(served: Served) -> None:
    """A body beyond the limit is not kept in memory."""
    with Wire(served.port) as wire:
        wire.send(b"PROPFIND / HTTP/1.1\r\nHost: x\r\nDepth: 0\r\nContent-Length: 99999999\r\n\r\n")
        assert wire.read().status == 413


def test_nothing_there(served: Served) -> None:
    """What is not there is 404."""
    assert _find(served, "/file/missing.img").status == 404


# -- listings that were made before ---------------------------------------------------------


def _sizes(served: Served, path: str) -> dict[str, str]:
    """A listing: each member and its length."""
    answer = _find(served, path, "<D:prop><D:getcontentlength/></D:prop>", depth="1")
    assert answer.status == 207
    return {
        response.findtext("{DAV:}href") or "": response.findtext(
            "{DAV:}propstat/{DAV:}prop/{DAV:}getcontentlength", ""
        )
        for response in xml(answer)
    }


def test_a_listing_follows_each_change(served: Served) -> None:
    """A listing asked for twice is never that of before a change, whatever has changed."""
    path = "/file/changing/"
    make_folder(served.vfs, path, ANONYMOUS)
    assert list(_sizes(served, path)) == [path]
    served.add(f"{path}a", b"1")
    assert _sizes(served, path)[f"{path}a"] == "1"
    rename(served.vfs, f"{path}a", f"{path}b", ANONYMOUS)
    assert list(_sizes(served, path)) == [path, f"{path}b"]
    upload = begin(served.vfs, f"{path}c", b"12", ANONYMOUS)
    assert _sizes(served, path)[f"{path}c"] == "2"
    upload.write(2, b"3")
    assert _sizes(served, path)[f"{path}c"] == "3"
    upload.commit()
    number = served.image(f"{path}c").number
    for note in ("new", "newer"):
        fields.set_attributes(served.vfs.catalog, number, {"property.note": note}, ANONYMOUS)
        found = _find(served, path, "<D:prop><P:note/></D:prop>", depth="1")
        assert f">{note}<".encode() in found.body
    remove(served.vfs, f"{path}b", ANONYMOUS)
    assert list(_sizes(served, path)) == [path, f"{path}c"]
    rename(served.vfs, path, "/file/changed", ANONYMOUS)
    assert list(_sizes(served, "/file/changed/")) == ["/file/changed/", "/file/changed/c"]


def test_a_listing_follows_another_process(tmp_path: Path) -> None:
    """What another process changes is in the next listing."""
    settings = settings_at(tmp_path)
    with serving(tmp_path, settings) as served:
        assert list(_sizes(served, "/file/")) == ["/file/"]
        catalog = open_catalog(settings)
        put(Vfs(catalog), "/file/new", b"1234", ANONYMOUS)
        catalog.close()
        assert _sizes(served, "/file/")["/file/new"] == "4"


def test_a_listing_follows_locks(served: Served) -> None:
    """A lock taken after a listing is in the next one, and gone from the one after it."""
    make_folder(served.vfs, "/file/locks", ANONYMOUS)
    served.add("/file/locks/a")
    wanted = "<D:prop><D:lockdiscovery/></D:prop>"
    lock = (
        b'<D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope>'
        b"<D:locktype><D:write/></D:locktype></D:lockinfo>"
    )
    found = []
    found.append(_find(served, "/file/locks/", wanted, depth="1").body)
    token = served.ask("LOCK /file/locks/a", body=lock).headers["lock-token"]
    found.append(_find(served, "/file/locks/", wanted, depth="1").body)
    served.ask("UNLOCK /file/locks/a", f"Lock-Token: {token}")
    found.append(_find(served, "/file/locks/", wanted, depth="1").body)
    assert [b"activelock" in body for body in found] == [False, True, False]


def test_times(served: Served) -> None:
    """The oldest and the newest time an image can have are told as dates."""
    make_folder(served.vfs, "/file/times", ANONYMOUS)
    for name, mtime in (("old", -(2**63)), ("new", 2**63 - 1)):
        image = served.add(f"/file/times/{name}")
        fields.set_mtime(served.vfs.catalog, image.number, mtime, ANONYMOUS)
    found = _find(served, "/file/times/", "<D:prop><D:getlastmodified/></D:prop>", depth="1")
    assert b"Tue, 21 Sep 1677 00:12:43 GMT" in found.body
    assert b"Fri, 11 Apr 2262 23:47:16 GMT" in found.body
    assert served.ask("HEAD /file/times/old").status == 200


# -- a large folder --------------------------------------------------------------------


@pytest.mark.server
def test_ten_thousand_members(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """A large folder is listed whole, and the server's memory hardly grows."""
    daemon = Daemon(tmp_path / "host")
    with service(daemon) as running:
        catalog = daemon.catalog()
        fill(catalog, MEMBERS)
        catalog.close()
        with running.connect() as wire:
            assert wire.ask("PROPFIND /file/", "Depth: 1").status == 207
            before = running.peak_memory()
            answer = wire.ask(f"PROPFIND /file/{MEMBERS}/", "Depth: 1")
            # As many different listings as make more than may be kept of them.
            for number in range(kept_pages.LIMIT // len(answer.body) + 1):
                body = f"<D:allprop/><D:include><D:x{number}/></D:include>"
                body = f'<D:propfind xmlns:D="DAV:">{body}</D:propfind>'
                other = wire.ask(f"PROPFIND /file/{MEMBERS}/", "Depth: 1", body=body.encode())
                assert len(other.body) == len(answer.body)
        grown = running.peak_memory() - before
    record_property("VmHWM_delta", grown)
    assert answer.headers["transfer-encoding"] == "chunked"
    assert len(set(_hrefs(answer))) == MEMBERS + 1
    # What is kept, and as much again for the holes that forgotten pages leave in the heap.
    assert grown < 2 * kept_pages.LIMIT
