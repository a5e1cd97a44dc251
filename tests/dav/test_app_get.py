"""GET and HEAD: whole images, ranges, validators and digests (RFC 9110 §9.3, §14)."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
from pathlib import Path

import pytest

from catalog.model.access import ADMIN, Role
from tests.dav.server import ANONYMOUS, Served, login
from tests.kit.catalog import begin, put, rename, set_fields, some_bytes
from tests.kit.wire import Answer

DATA = some_bytes(100_000, seed=1)
IMAGE = "/file/image.img"


@pytest.fixture(scope="module")
def served(served: Served) -> Served:
    """A server with one image."""
    served.add(IMAGE, DATA)
    return served


def test_whole_image(served: Served) -> None:
    """All bytes come, with their length and type, and are never taken for a page."""
    answer = served.ask(f"GET {IMAGE}")
    assert (answer.status, answer.body) == (200, DATA)
    assert answer.headers["content-length"] == str(len(DATA))
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_image_of_a_store_without_files(served: Served) -> None:
    """What no local file holds is sent in blocks, whole and in part."""
    served.add("/memory/image.img", DATA)
    assert served.ask("GET /memory/image.img").body == DATA
    assert served.ask("GET /memory/image.img", "Range: bytes=70000-70009").body == DATA[70000:70010]


@pytest.mark.parametrize("headers", [(), ("Range: bytes=0-9",), ("Range: bytes=0-9,20-29",)])
def test_head_is_get_without_its_body(served: Served, headers: tuple[str, ...]) -> None:
    """HEAD has the headers of a GET; Range has a meaning for GET only (RFC 9110 §14.2)."""
    head, get = served.ask(f"HEAD {IMAGE}", *headers), served.ask(f"GET {IMAGE}")
    assert (head.status, head.body) == (200, b"")
    assert _without_what_differs(head) == _without_what_differs(get)


def _without_what_differs(answer: Answer) -> dict[str, str]:
    own = ("date", "x-request-id")
    return {name: value for name, value in answer.headers.items() if name not in own}


@pytest.mark.parametrize(
    ("wanted", "first", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-", 0, len(DATA)),
        ("bytes=10-19", 10, 20),
        ("bytes=99990-", 99_990, len(DATA)),
        ("bytes=99990-999999", 99_990, len(DATA)),
        ("bytes=-10", 99_990, len(DATA)),
        ("bytes=-999999", 0, len(DATA)),
        ("Bytes = 10-19", 10, 20),
        ("bytes= 10-19 ,,", 10, 20),
    ],
)
def test_single_range(served: Served, wanted: str, first: int, end: int) -> None:
    """One range is a part of its own, cut at the end of the data."""
    answer = served.ask(f"GET {IMAGE}", f"Range: {wanted}")
    assert (answer.status, answer.body) == (206, DATA[first:end])
    assert answer.headers["content-range"] == f"bytes {first}-{end - 1}/{len(DATA)}"


def test_several_ranges(served: Served) -> None:
    """Several ranges come as multipart/byteranges, in the order asked for."""
    answer = served.ask(f"GET {IMAGE}", "Range: bytes=500-599, 0-9, -5, 200000-")
    assert answer.status == 206
    kind = answer.headers["content-type"]
    boundary = re.fullmatch(r"multipart/byteranges; boundary=(\S+)", kind)
    assert boundary
    expected = b"".join(
        f"\r\n--{boundary[1]}\r\nContent-Type: application/octet-stream\r\n"
        f"Content-Range: bytes {first}-{end - 1}/{len(DATA)}\r\n\r\n".encode()
        + DATA[first:end]
        for first, end in ((500, 600), (0, 10), (len(DATA) - 5, len(DATA)))
    )
    assert answer.body == expected + f"\r\n--{boundary[1]}--\r\n".encode()


def test_one_of_several_ranges_is_left(served: Served) -> None:
    """Of several ranges with only one inside the data, that one comes by itself."""
    answer = served.ask(f"GET {IMAGE}", "Range: bytes=200000-, 5-9")
    assert (answer.status, answer.body) == (206, DATA[5:10])


@pytest.mark.parametrize("wanted", ["bytes=100000-", "bytes=-0", "bytes=100000-100001,500000-"])
def test_range_outside_the_image(served: Served, wanted: str) -> None:
    """A range behind the end is refused with the size that there is."""
    answer = served.ask(f"GET {IMAGE}", f"Range: {wanted}")
    assert answer.status == 416
    assert answer.headers["content-range"] == f"bytes */{len(DATA)}"


@pytest.mark.parametrize(
    "wanted",
    [
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=1-2-3",
        "bytes=5-3",
        "bytes=1",
        "bytes 0-5",
        "lines=0-5",
        "bytes=" + "9" * 5000 + "-",
        "bytes=" + ",".join(f"{first}-{first}" for first in range(65)),
    ],
)
def test_malformed_or_too_many_ranges_are_ignored(served: Served, wanted: str) -> None:
    """What is no range, or more than 64 of them, brings the whole image."""
    answer = served.ask(f"GET {IMAGE}", f"Range: {wanted}")
    assert (answer.status, answer.body) == (200, DATA)


def test_if_range(served: Served) -> None:
    """A range comes only of what the client has the rest of, else the whole image."""
    headers = served.ask(f"HEAD {IMAGE}").headers
    for validator, status in (
        (headers["etag"], 206),
        (headers["last-modified"], 206),
        ('"another"', 200),
        (f"W/{headers['etag']}", 200),
        ("Mon, 01 Jan 2001 00:00:00 GMT", 200),
        ("Fri, 01 Jan 2100 00:00:00 GMT", 200),
        ("nonsense", 200),
    ):
        answer = served.ask(f"GET {IMAGE}", "Range: bytes=0-9", f"If-Range: {validator}")
        assert answer.status == status, validator
        assert answer.body == (DATA[:10] if status == 206 else DATA)


def test_etag_is_strong_and_stays_with_the_image(served: Served) -> None:
    """The tag is quoted, not weak, and the same after a rename."""
    served.add("/file/old.img")
    before = served.ask("HEAD /file/old.img").headers["etag"]
    assert re.fullmatch(r'"[^"]+"', before)
    rename(served.vfs, "/file/old.img", "/file/new.img", ANONYMOUS)
    assert served.ask("HEAD /file/new.img").headers["etag"] == before


def test_digests_of_the_whole_image(served: Served) -> None:
    """`Repr-Digest` and `Digest` tell the sha256 of all of it, also beside a range."""
    value = base64.b64encode(hashlib.sha256(DATA).digest()).decode()
    for headers in ((), ("Range: bytes=0-9",)):
        answer = served.ask(f"GET {IMAGE}", *headers)
        assert answer.headers["repr-digest"] == f"sha-256=:{value}:"
        assert answer.headers["digest"] == f"sha-256={value}"


def test_content_type_is_the_formats(served: Served, tmp_path: Path) -> None:
    """What the name says does not matter."""
    disk = tmp_path / "disk"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "1M"], check=True)
    put(served.vfs, "/file/disk.html", disk.read_bytes(), ANONYMOUS)
    assert served.ask("HEAD /file/disk.html").headers["content-type"] == "application/x-qemu-disk"


def test_queued_image_is_empty(served: Served) -> None:
    """What has no data yet reads as an empty file."""
    served.vfs.create(served.vfs.place("/file/queued.img"), ANONYMOUS)
    answer = served.ask("GET /file/queued.img")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["etag"]


def test_image_that_is_being_uploaded(served: Served) -> None:
    """GET does not give half an image for a whole one; HEAD tells how much has arrived."""
    upload = begin(served.vfs, "/file/saving.img", b"half", ANONYMOUS)
    assert served.ask("GET /file/saving.img").status == 409
    head = served.ask("HEAD /file/saving.img")
    assert (head.status, head.headers["upload-offset"]) == (200, "4")
    upload.cancel("the test has ended")


def test_killed_image(served: Served) -> None:
    """An image whose upload failed is not there, and the answer says why."""
    begin(served.vfs, "/file/killed.img", b"half", ANONYMOUS).cancel("the cat bit the cable")
    answer = served.ask("GET /file/killed.img")
    assert answer.status == 404
    assert b"the cat bit the cable" in answer.body


def test_temporary_file_is_read_back(served: Served) -> None:
    """Finder reads its `._NAME` files again, which never become images."""
    assert served.ask("PUT /file/._image.img", body=b"resource fork").status == 201
    assert served.ask("GET /file/._image.img").body == b"resource fork"


def test_by_id(served: Served) -> None:
    """An image is found by its id, whatever it is called."""
    image = served.image(IMAGE)
    assert served.ask(f"GET /.by-id/{image.id}").body == DATA


@pytest.mark.parametrize("path", ["/nothing", "/file/nothing", "/file/nothing/else", "/.by-id/x"])
def test_nothing_there(served: Served, path: str) -> None:
    """What is not there is 404."""
    assert served.ask(f"GET {path}").status == 404


def test_image_is_no_folder(served: Served) -> None:
    """Below an image there is nothing."""
    assert served.ask(f"GET {IMAGE}/x").status in (404, 409)


def test_private_image(served: Served) -> None:
    """Another's private image is not there, with and without data."""
    put(served.vfs, "/file/private.img", DATA, ADMIN)
    served.vfs.create(served.vfs.place("/file/private-queued.img"), ADMIN)
    for path in ("/file/private.img", "/file/private-queued.img"):
        set_fields(served.vfs, path, ADMIN, visibility="private")
        for method in ("GET", "HEAD"):
            assert served.ask(f"{method} {path}").status == 404


def test_deactivated_image(served: Served) -> None:
    """A deactivated image is for administrators only."""
    served.add("/file/closed.img")
    set_fields(served.vfs, "/file/closed.img", ADMIN, status="deactivated")
    assert served.ask("GET /file/closed.img").status == 403
    admin = login(served.vfs, "operator", Role.ADMIN)
    assert served.ask("GET /file/closed.img", admin).status == 200


def test_deleted_image_is_in_the_trash(served: Served) -> None:
    """An image in the trash is read by whoever could read it before, by its name and its id."""
    by_id = f"/.by-id/{served.add('/file/deleted.img').id}"
    assert served.ask("DELETE /file/deleted.img").status == 204
    assert served.ask("GET /file/deleted.img").status == 404
    for path in ("/file/.trash/deleted.img", by_id):
        assert served.ask(f"GET {path}").status == 200
