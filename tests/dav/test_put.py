"""PUT: an upload in one request (docs/webdav.md#uploading)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from itertools import count

import pytest

from catalog.copies.replicate import replicate
from catalog.model.access import ADMIN, Role
from catalog.model.status import Status
from catalog.rules import locks
from catalog.rules.locks import LockRequest
from catalog.rules.users import add_user, remove_user
from tests.dav.server import ANONYMOUS, Served, login, serving
from tests.kit.catalog import (
    image_at,
    make_folder,
    names_in,
    put,
    read,
    set_fields,
    some_bytes,
    staged_files,
)
from tests.kit.daemon import wait_until
from tests.kit.dripping import dripping
from tests.kit.wire import Answer, Wire, head
from web.exchange.representation import etag

DATA = some_bytes(300_000, seed=2)

_numbers = count()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with an empty catalog."""
    folder = tmp_path_factory.mktemp("put")
    with serving(folder) as served:
        yield served
        assert not staged_files(folder), "something is left in the staging folders"


@pytest.fixture
def path() -> str:
    """A name that nobody has used."""
    return f"/file/image-{next(_numbers)}.img"


# -- new images ------------------------------------------------------------------------


def test_new_image(served: Served, path: str) -> None:
    """One request makes an active image, and its answer has the tag that a GET has."""
    answer = served.ask(f"PUT {path}", body=DATA)
    assert answer.status == 201
    assert served.image(path).status is Status.ACTIVE
    assert served.ask(f"GET {path}").body == DATA
    assert answer.headers["etag"] == served.ask(f"HEAD {path}").headers["etag"]


@pytest.mark.parametrize("store", ["other", "memory"])
def test_new_image_in_another_store(served: Served, path: str, store: str) -> None:
    """Every store takes uploads."""
    path = path.replace("/file/", f"/{store}/")
    assert served.ask(f"PUT {path}", body=DATA).status == 201
    assert read(served.vfs, path) == DATA


@pytest.mark.parametrize("chunk", [1, 4096, 70_000])
def test_chunked_body(served: Served, path: str, chunk: int) -> None:
    """A body of unknown length, as Finder sends it, in chunks of any size."""
    data = DATA[: chunk * 5]
    parts = [data[start : start + chunk] for start in range(0, len(data), chunk)]
    body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    with Wire(served.port) as wire:
        wire.send(head(f"PUT {path}", "Transfer-Encoding: chunked") + body + b"0\r\n\r\n")
        assert wire.read().status == 201
    assert read(served.vfs, path) == data


def test_empty_body_leaves_the_image_queued(served: Served, path: str) -> None:
    """A zero-byte PUT takes the name; the first PUT with data completes that image."""
    assert served.ask(f"PUT {path}").status == 201
    queued = served.image(path)
    assert queued.status is Status.QUEUED
    assert served.ask(f"PUT {path}", body=DATA).status == 204
    complete = served.image(path)
    assert (complete.id, complete.status) == (queued.id, Status.ACTIVE)


def test_empty_chunked_body_leaves_the_image_queued(served: Served, path: str) -> None:
    """The same when its emptiness is seen only at its end."""
    with Wire(served.port) as wire:
        wire.send(head(f"PUT {path}", "Transfer-Encoding: chunked") + b"0\r\n\r\n")
        assert wire.read().status == 201
    assert served.image(path).status is Status.QUEUED
    assert served.ask(f"PUT {path}", body=DATA).status == 204


def test_percent_encoded_name(served: Served) -> None:
    """A name in any script, with spaces and a percent sign."""
    assert served.ask("PUT /file/%C3%BC%20100%25%20%E5%83%8F.img", body=DATA).status == 201
    assert read(served.vfs, "/file/ü 100% 像.img") == DATA


# -- replacing -------------------------------------------------------------------------


def test_replaces_in_one_step(served: Served, path: str) -> None:
    """A new image takes the name when it is whole; the old one goes to the trash."""
    old = served.add(path)
    with Wire(served.port) as wire:
        wire.send(head(f"PUT {path}", length=len(DATA)) + DATA[:1000])
        assert served.ask(f"GET {path}").headers["etag"].startswith(f'"{old.id}')
        wire.send(DATA[1000:])
        assert wire.read().status == 204
    new = served.image(path)
    assert new.id != old.id
    assert read(served.vfs, path) == DATA
    trashed = image_at(served.vfs, path.replace("/file/", "/file/.trash/"))
    assert (trashed.id, trashed.status) == (old.id, Status.PENDING_DELETE)


@pytest.mark.parametrize("is_named", [True, False])
def test_replaces_what_has_a_copy_elsewhere(served: Served, path: str, is_named: bool) -> None:
    """It lives on under the name somebody linked; a copy without one goes to the trash with it."""
    old = served.add(path)
    there = served.vfs.place(path.replace("/file/", "/other/")) if is_named else None
    replicate(served.vfs.catalog, old, "other", there, ADMIN)
    assert served.ask(f"PUT {path}", body=DATA).status == 204
    assert read(served.vfs, path) == DATA
    after = served.vfs.catalog.details(old.number)
    assert after.stores == (("other",) if is_named else ("file", "other"))
    assert after.image.status is (Status.ACTIVE if is_named else Status.PENDING_DELETE)


@pytest.mark.parametrize("name", ["ü" * 127, "像" * 85, "n" * 255])
def test_replaces_an_image_with_a_long_name(served: Served, name: str) -> None:
    """Names are limited in bytes; a replacement needs no more of them."""
    old = served.add(f"/other/{name}")
    quoted = "".join(f"%{byte:02X}" for byte in name.encode())
    assert served.ask(f"PUT /other/{quoted}", body=DATA).status == 204
    assert served.image(f"/other/{name}").id != old.id


def test_empty_body_takes_nothing_away(served: Served, path: str) -> None:
    """Explorer's zero bytes onto an image: it stays until the data is there."""
    old = served.add(path)
    answer = served.ask(f"PUT {path}")
    assert (answer.status, answer.headers["etag"]) == (204, etag(old))
    assert served.image(path).id == old.id
    assert not [name for name in names_in(served.vfs, "/file") if name.endswith(".put")]
    assert served.ask(f"PUT {path}", body=DATA).status == 204
    assert read(served.vfs, path) == DATA
    assert image_at(served.vfs, path.replace("/file/", "/file/.trash/")).id == old.id


def test_failed_replacement_changes_nothing(served: Served, path: str) -> None:
    """What is there stays there when the upload that would replace it fails."""
    old = served.add(path)
    members = names_in(served.vfs, "/file")
    wrong = f"OC-Checksum: SHA256:{'0' * 64}"
    assert served.ask(f"PUT {path}", wrong, body=DATA).status == 400
    assert served.image(path) == old
    assert names_in(served.vfs, "/file") == members


# -- refusals --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/file/missing/image.img", 409),
        ("/nowhere/image.img", 409),
        ("/image.img", 403),
        ("/file", 405),
        ("/file/", 405),
        ("/file/new/", 405),
        ("/file/.trash/image.img", 403),
        ("/.by-id/image.img", 403),
        ("/file/a%0Ab", 400),
        ("/file/" + "n" * 256, 400),
    ],
)
def test_no_place_for_an_image(served: Served, target: str, status: int) -> None:
    """Where no image can be the answer says so, without waiting for the body."""
    with Wire(served.port) as wire:
        wire.send(head(f"PUT {target}", length=1 << 40))
        assert wire.read().status == status


def test_onto_a_folder(served: Served) -> None:
    """A folder is not overwritten."""
    make_folder(served.vfs, "/file/folder", ANONYMOUS)
    assert served.ask("PUT /file/folder", body=DATA).status == 405


def test_onto_a_protected_image(served: Served, path: str) -> None:
    """Refused before the data comes, with the way out of it."""
    old = served.add(path)
    set_fields(served.vfs, path, ADMIN, protected="true")
    with Wire(served.port) as wire:
        wire.send(head(f"PUT {path}", length=1 << 40))
        answer = wire.read()
    assert answer.status == 403
    assert b"protected" in answer.body
    assert served.image(path).id == old.id


def test_onto_another_ones_image(served: Served, path: str) -> None:
    """Only who owns an image replaces it."""
    put(served.vfs, path, DATA, ADMIN)
    assert served.ask(f"PUT {path}", body=b"mine").status == 403


def test_conditions_tell_nothing_of_a_hidden_image(served: Served, path: str) -> None:
    """They are those of a name that nobody has; then the name is taken."""
    put(served.vfs, path, DATA, ADMIN)
    tag = served.ask(f"HEAD {path}").headers["etag"]
    set_fields(served.vfs, path, ADMIN, visibility="private")
    for condition in ("If-Match: *", 'If-Match: "other"', f"If-Match: {tag}"):
        assert served.ask(f"PUT {path}", condition, body=b"mine").status == 412
    for condition in ("If-None-Match: *", f"If-None-Match: {tag}", "X-Other: 1"):
        assert served.ask(f"PUT {path}", condition, body=b"mine").status == 403


def test_by_a_reader(served: Served, path: str) -> None:
    """A reader uploads nothing."""
    reader = login(served.vfs, "reader", Role.READER)
    assert served.ask(f"PUT {path}", reader, body=DATA).status == 403
    assert served.ask(f"HEAD {path}").status == 404


def _begin(served: Served, wire: Wire, path: str, sent: bytes) -> None:
    """Begin a PUT of DATA and wait until some of it has arrived."""
    wire.send(head(f"PUT {path}", length=len(DATA)) + sent)
    wait_until(lambda: _has_begun(served, path), "the upload has begun")


def _has_begun(served: Served, path: str) -> bool:
    return "upload-offset" in served.ask(f"HEAD {path}").headers


def test_onto_an_upload_of_another(served: Served, path: str) -> None:
    """Two clients do not write into one image, whoever may and however slow the first is."""
    colleague = login(served.vfs, "colleague")
    remove_user(served.vfs.catalog, "colleague")
    add_user(served.vfs.catalog, "colleague", "secret", project=ANONYMOUS.owner)
    with Wire(served.port) as wire:
        _begin(served, wire, path, DATA[:1000])
        answer = served.ask(f"PUT {path}", colleague, body=b"other")
        assert answer.status == 409
        wire.send(DATA[1000:])
        assert wire.read().status == 201
    assert read(served.vfs, path) == DATA


@pytest.mark.stress
def test_onto_an_upload_that_goes_on(
    served: Served, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as the first of two requests of one client sends anything, the second is refused."""
    monkeypatch.setattr("dav.put.SILENT_SECONDS", 2.0)
    with Wire(served.port) as wire:
        wire.send(head(f"PUT {path}", "Transfer-Encoding: chunked"))
        with dripping(wire, b"1\r\nx\r\n"):
            wait_until(lambda: _has_begun(served, path), "the upload has begun")
            assert served.ask(f"PUT {path}", body=b"other").status == 409
        wire.send(b"0\r\n\r\n")
        assert wire.read().status == 201
    assert set(read(served.vfs, path)) == {ord("x")}


@pytest.mark.stress
def test_a_retry_while_the_first_is_still_missed(
    served: Served, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client whose connection was lost without a word need not wait for the time-out."""
    monkeypatch.setattr("dav.put.SILENT_SECONDS", 2.0)
    with Wire(served.port) as lost:
        _begin(served, lost, path, DATA[:1000])
        assert served.ask(f"PUT {path}", body=DATA).status == 201
        assert read(served.vfs, path) == DATA
        assert lost.at_end()
    assert read(served.vfs, path) == DATA


# -- locks -----------------------------------------------------------------------------


def _lock(served: Served, path: str) -> str:
    return locks.create(served.vfs.catalog, LockRequest(path, "somebody")).token


@pytest.mark.parametrize("replaces", [False, True])
def test_a_lock_taken_meanwhile_is_honoured(served: Served, path: str, replaces: bool) -> None:
    """It is looked for again before anything is published; what was there stays."""
    old = served.add(path) if replaces else None
    members = names_in(served.vfs, "/file")
    with Wire(served.port) as wire:
        wire.send(head(f"PUT {path}", length=len(DATA)) + DATA[:1000])
        wait_until(lambda: names_in(served.vfs, "/file") != members, "the upload has begun")
        token = _lock(served, path)
        wire.send(DATA[1000:])
        answer = wire.read()
    assert (answer.status, b"lock-token-submitted" in answer.body) == (423, True)
    if replaces:
        assert served.image(path) == old
        assert names_in(served.vfs, "/file") == members
    else:
        assert served.image(path).status is Status.KILLED
        assert "is locked" in served.image(path).message
    locks.release(served.vfs.catalog, token)
    assert served.ask(f"PUT {path}", body=DATA).status in (201, 204)


def test_a_lock_taken_before_the_last_part(served: Served, path: str) -> None:
    """An upload in parts is killed by it as well."""
    half = len(DATA) // 2
    part = f"Content-Range: bytes {half}-{len(DATA) - 1}/{len(DATA)}"
    first = f"Content-Range: bytes 0-{half - 1}/{len(DATA)}"
    assert served.ask(f"PUT {path}", first, body=DATA[:half]).status == 202
    with Wire(served.port) as wire:
        wire.send(head(f"PUT {path}", part, length=len(DATA) - half) + DATA[half:-1])
        upload = served.vfs.uploads.get(served.image(path).number)
        assert upload is not None
        wait_until(lambda: upload.size > half, "the last part has begun")
        _lock(served, path)
        wire.send(DATA[-1:])
        assert wire.read().status == 423
    assert served.image(path).status is Status.KILLED


def test_a_lock_of_its_own_is_no_obstacle(served: Served, path: str) -> None:
    """Who shows the token publishes, and nobody who does not."""
    token = locks.create(served.vfs.catalog, LockRequest(path, ANONYMOUS.name)).token
    assert served.ask(f"PUT {path}", f"If: (<{token}>)", body=DATA).status == 201
    assert served.ask(f"PUT {path}", body=DATA).status == 423


def test_format_gate(served: Served, path: str) -> None:
    """An image with a backing file is refused with the reason, and is not there."""
    backed = b"QFI\xfb\0\0\0\2" + (72).to_bytes(8, "big") + (9).to_bytes(4, "big")
    backed += (16).to_bytes(4, "big") + (1 << 20).to_bytes(8, "big") + bytes(40) + b"/etc/hosts"
    answer = served.ask(f"PUT {path}", body=backed + bytes(100_000))
    assert answer.status == 415
    assert b"backing" in answer.body
    _is_killed_and_can_be_tried_again(served, path)


# -- what the client announces ---------------------------------------------------------


def _base64(algorithm: str, data: bytes = DATA) -> str:
    return base64.b64encode(hashlib.new(algorithm, data).digest()).decode()


def _hex(algorithm: str, data: bytes = DATA) -> str:
    return hashlib.new(algorithm, data).hexdigest()


@pytest.mark.parametrize(
    "header",
    [
        f"OC-Checksum: SHA256:{_hex('sha256')}",
        f"OC-Checksum: SHA512:{_hex('sha512').upper()}",
        f"OC-Checksum: SHA1:{_hex('sha1')}",
        f"OC-Checksum: MD5:{_hex('md5')}",
        "OC-Checksum: ADLER32:00000000",
        f"Repr-Digest: sha-256=:{_base64('sha256')}:",
        f"Repr-Digest: unknown=:AAAA:, sha-512=:{_base64('sha512')}:",
        f"Content-Digest: sha-256=:{_base64('sha256')}:",
        f"Content-Digest: md5=:{_base64('md5')}:",
        f"X-Expected-Entity-Length: {len(DATA)}",
    ],
)
def test_right_announcement(served: Served, path: str, header: str) -> None:
    """What is as it was announced becomes active; unknown algorithms are ignored."""
    assert served.ask(f"PUT {path}", header, body=DATA).status == 201
    assert served.image(path).status is Status.ACTIVE


@pytest.mark.parametrize(
    "header",
    [
        f"OC-Checksum: SHA256:{_hex('sha256', b'other')}",
        f"OC-Checksum: SHA1:{_hex('sha1', b'other')}",
        f"OC-Checksum: MD5:{_hex('md5', b'other')}",
        f"Repr-Digest: sha-256=:{_base64('sha256', b'other')}:",
        f"Repr-Digest: sha-256=:{_base64('sha256')}:, sha-512=:{_base64('sha512', b'other')}:",
        f"Repr-Digest: sha-512=:{_base64('sha512')}:, sha-256=:{_base64('sha256', b'other')}:",
        f"Content-Digest: sha-512=:{_base64('sha512', b'other')}:",
        f"Content-Digest: md5=:{_base64('md5', b'other')}:",
        f"X-Expected-Entity-Length: {len(DATA) + 1}",
        f"X-Expected-Entity-Length: {len(DATA) - 1}",
    ],
)
def test_wrong_announcement(served: Served, path: str, header: str) -> None:
    """What is not what was announced never becomes active, and can be sent again."""
    assert served.ask(f"PUT {path}", header, body=DATA).status == 400
    _is_killed_and_can_be_tried_again(served, path)


@pytest.mark.parametrize(
    "header",
    [
        "OC-Checksum: SHA256:zz",
        "Repr-Digest: sha-256=:not base64!:",
        "Repr-Digest: sha-256=:AAAA:",
        "X-Expected-Entity-Length: " + "9" * 5000,
        "X-Expected-Entity-Length: many",
    ],
)
def test_malformed_announcement(served: Served, path: str, header: str) -> None:
    """What cannot be verified is refused, rather than taken unverified."""
    assert served.ask(f"PUT {path}", header, body=DATA).status == 400
    _is_killed_and_can_be_tried_again(served, path)


def test_length_of_a_chunked_body(served: Served, path: str) -> None:
    """Finder announces the length of what it sends in chunks; less than that is no image."""
    headers = ("Transfer-Encoding: chunked", f"X-Expected-Entity-Length: {len(DATA)}")
    with Wire(served.port) as wire:
        wire.send(head(f"PUT {path}", *headers) + b"4\r\ndata\r\n0\r\n\r\n")
        assert wire.read().status == 400
    _is_killed_and_can_be_tried_again(served, path)


def _is_killed_and_can_be_tried_again(served: Served, path: str) -> None:
    assert served.ask(f"GET {path}").status == 404
    if path.rpartition("/")[2] in names_in(served.vfs, "/file"):
        assert served.image(path).status is Status.KILLED
    assert served.ask(f"PUT {path}", "If-None-Match: *", body=DATA).status == 201
    assert read(served.vfs, path) == DATA


def test_truncated_body(served: Served, path: str) -> None:
    """A client that goes away in the middle leaves nothing active and nothing in the way."""
    with Wire(served.port) as wire:
        wire.send(head(f"PUT {path}", length=len(DATA)) + DATA[:-1])
        wire.socket.shutdown(1)
        assert wire.read().status == 400
    _is_killed_and_can_be_tried_again(served, path)


@pytest.mark.parametrize("value", ["1700000000", "1700000000.5"])
def test_modification_time(served: Served, path: str, value: str) -> None:
    """`X-OC-Mtime` is kept and acknowledged, so that a second sync sends nothing."""
    answer = served.ask(f"PUT {path}", f"X-OC-Mtime: {value}", body=DATA)
    assert answer.headers["x-oc-mtime"] == "accepted"
    modified = served.ask(f"HEAD {path}").headers["last-modified"]
    assert modified == "Tue, 14 Nov 2023 22:13:20 GMT"


@pytest.mark.parametrize("header", ["X-Other: 1", "X-OC-Mtime: yesterday", "X-OC-Mtime: 1e300"])
def test_no_modification_time(served: Served, path: str, header: str) -> None:
    """Nothing is acknowledged that was not sent or could not be read."""
    answer = served.ask(f"PUT {path}", header, body=DATA)
    assert answer.status == 201
    assert "x-oc-mtime" not in answer.headers


# -- temporary names -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.img.part", "._a.img", ".DS_Store", ".a.img.Xy12", "b.tmp"])
def test_temporary_name_is_no_image(served: Served, name: str) -> None:
    """What has a temporary name is kept, can be replaced and deleted, and never is an image."""
    path = f"/file/{name}"
    assert served.ask(f"PUT {path}", body=b"first").status == 201
    assert served.image(path).status is Status.SAVING
    assert served.ask(f"PUT {path}", body=DATA).status == 204
    assert served.image(path).status is Status.SAVING
    assert served.ask(f"GET {path}").body == DATA
    assert served.ask(f"DELETE {path}").status == 204
    assert name not in names_in(served.vfs, "/file")


def test_move_publishes(served: Served, path: str) -> None:
    """Renaming what a temporary name holds makes it an image in one step."""
    assert served.ask(f"PUT {path}.part", body=DATA).status == 201
    assert served.ask(f"MOVE {path}.part", f"Destination: {path}").status == 201
    assert served.image(path).status is Status.ACTIVE
    assert served.ask(f"GET {path}").body == DATA


def test_move_publishes_over_an_image(served: Served, path: str) -> None:
    """The same onto an image, which goes to the trash."""
    old = served.add(path)
    assert served.ask(f"PUT {path}.part", body=DATA).status == 201
    answer: Answer = served.ask(f"MOVE {path}.part", f"Destination: {path}", "Overwrite: T")
    assert answer.status == 204
    assert read(served.vfs, path) == DATA
    assert image_at(served.vfs, path.replace("/file/", "/file/.trash/")).id == old.id
