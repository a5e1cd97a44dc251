"""Uploads in several requests: PUT with Content-Range (RFC 9110 §14.4)."""

from __future__ import annotations

import base64
import hashlib
import subprocess
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from catalog.model.access import ADMIN
from catalog.model.status import Status
from catalog.process import Process
from catalog.rules import uploads
from tests.dav.server import ANONYMOUS, Served, serving
from tests.kit.catalog import begin, read, some_bytes
from tests.kit.daemon import wait_until
from tests.kit.dripping import dripping
from tests.kit.wire import Answer, Wire, head

DATA = some_bytes(300_000, seed=3)

_numbers = count()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with an empty catalog."""
    with serving(tmp_path_factory.mktemp("resume")) as served:
        yield served


@pytest.fixture
def path() -> str:
    """A name that nobody has used."""
    return f"/file/image-{next(_numbers)}.img"


def _range(first: int, end: int, total: int = len(DATA)) -> str:
    return f"Content-Range: bytes {first}-{end - 1}/{total}"


def _send(served: Served, path: str, first: int, end: int, *headers: str) -> Answer:
    """Send one part of the data."""
    return served.ask(f"PUT {path}", _range(first, end), *headers, body=DATA[first:end])


def _offset(served: Served, path: str) -> int:
    return int(served.ask(f"HEAD {path}").headers["upload-offset"])


def test_in_parts(served: Served, path: str) -> None:
    """Each part but the last is accepted, the last one makes the image."""
    for first, end in ((0, 1), (1, 100_000), (100_000, 299_999)):
        answer = _send(served, path, first, end)
        assert (answer.status, answer.headers["upload-offset"]) == (202, str(end))
        assert _offset(served, path) == end
        assert served.image(path).status is Status.SAVING
    answer = _send(served, path, 299_999, 300_000)
    assert answer.status == 201
    assert answer.headers["etag"] == served.ask(f"HEAD {path}").headers["etag"]
    assert served.image(path).status is Status.ACTIVE
    assert read(served.vfs, path) == DATA


def test_onto_a_queued_image(served: Served, path: str) -> None:
    """A name that was taken before is filled."""
    assert served.ask(f"PUT {path}").status == 201
    queued = served.image(path)
    assert _send(served, path, 0, 100_000).status == 202
    assert _send(served, path, 100_000, 300_000).status == 201
    assert served.image(path).id == queued.id


def test_goes_on_where_it_was_cut_off(served: Served, path: str) -> None:
    """What has arrived of a part that was cut off is kept."""
    with Wire(served.port) as wire:
        wire.send(head(f"PUT {path}", _range(0, 300_000), length=300_000) + DATA[:123_456])
        wire.socket.shutdown(1)
        assert wire.read().status == 400
    arrived = _offset(served, path)
    assert arrived == 123_456
    assert _send(served, path, arrived, 300_000).status == 201
    assert read(served.vfs, path) == DATA


def test_curl_resumes(served: Served, path: str, tmp_path: Path) -> None:
    """`curl -C OFFSET -T FILE` needs nothing else."""
    source = tmp_path / "source"
    source.write_bytes(DATA)
    assert _send(served, path, 0, 77_777).status == 202
    url = f"http://127.0.0.1:{served.port}{path}"
    subprocess.run(["curl", "-sSf", "-C", "77777", "-T", source, url], check=True)
    assert read(served.vfs, path) == DATA


@pytest.mark.parametrize("first", [99_999, 100_001])
def test_part_that_begins_elsewhere(served: Served, path: str, first: int) -> None:
    """A part before or behind the end is refused, with the place to go on at."""
    assert _send(served, path, 0, 100_000).status == 202
    answer = _send(served, path, first, 300_000)
    assert (answer.status, answer.headers["upload-offset"]) == (409, "100000")
    assert _send(served, path, 100_000, 300_000).status == 201


def test_first_part_is_missing(served: Served, path: str) -> None:
    """Nothing begins in the middle."""
    answer = _send(served, path, 100_000, 300_000)
    assert (answer.status, answer.headers["upload-offset"]) == (409, "0")


@pytest.mark.parametrize(
    "value",
    [
        "bytes 0-99/*",
        "bytes */100",
        "bytes 5-3/100",
        "bytes 0-100/100",
        "bytes 0-3/100",
        "lines 0-4/100",
        f"bytes 0-{'9' * 5000}/{'9' * 5000}",
        "nonsense",
    ],
)
def test_malformed_range(served: Served, path: str, value: str) -> None:
    """A range that cannot be, or is not the body's, is refused and makes no image."""
    assert served.ask(f"PUT {path}", f"Content-Range: {value}", body=b"12345").status == 400
    assert served.ask(f"HEAD {path}").status == 404


def test_chunked_part_shorter_than_its_range(served: Served, path: str) -> None:
    """A part in chunks is as long as its range says; what came of it counts."""
    with Wire(served.port) as wire:
        headers = (_range(0, 300_000), "Transfer-Encoding: chunked")
        wire.send(head(f"PUT {path}", *headers) + b"5\r\n" + DATA[:5] + b"\r\n0\r\n\r\n")
        assert wire.read().status == 400
    assert _offset(served, path) == 5


@pytest.mark.parametrize("algorithm", ["sha256", "sha512", "sha1", "md5"])
def test_digest_of_the_whole(served: Served, path: str, algorithm: str) -> None:
    """The last part announces the digest of all data, which is verified."""
    right = hashlib.new(algorithm, DATA).hexdigest()
    for value, status in ((hashlib.new(algorithm, b"other").hexdigest(), 400), (right, 201)):
        assert _send(served, path, 0, 200_000).status == 202
        header = f"OC-Checksum: {algorithm.upper()}:{value}"
        assert _send(served, path, 200_000, 300_000, header).status == status
    assert read(served.vfs, path) == DATA


def test_digest_of_a_part(served: Served, path: str) -> None:
    """`Content-Digest` is that of the part; a part that was damaged is sent again."""
    assert _send(served, path, 0, 100_000).status == 202
    right = hashlib.sha256(DATA[100_000:]).digest()
    for digest, status in ((hashlib.sha256(b"other").digest(), 400), (right, 201)):
        assert _offset(served, path) == 100_000
        header = f"Content-Digest: sha-256=:{base64.b64encode(digest).decode()}:"
        assert _send(served, path, 100_000, 300_000, header).status == status
    assert read(served.vfs, path) == DATA


def test_modification_time(served: Served, path: str) -> None:
    """The last part's `X-OC-Mtime` is the image's."""
    assert _send(served, path, 0, 100_000).status == 202
    answer = _send(served, path, 100_000, 300_000, "X-OC-Mtime: 1700000000")
    assert answer.headers["x-oc-mtime"] == "accepted"
    assert served.image(path).mtime == 1700000000 * 10**9


def test_starting_over(served: Served, path: str) -> None:
    """A PUT of all data takes the place of parts that nobody goes on with."""
    assert _send(served, path, 0, 100_000).status == 202
    assert served.ask(f"PUT {path}", body=b"all of it").status == 204
    assert read(served.vfs, path) == b"all of it"


def test_giving_up(served: Served, path: str) -> None:
    """DELETE ends an upload."""
    assert _send(served, path, 0, 100_000).status == 202
    assert served.ask(f"DELETE {path}").status == 204
    assert served.ask(f"HEAD {path}").status == 404


def test_temporary_name(served: Served, path: str) -> None:
    """Parts of a temporary name are published by MOVE, in place of an image too."""
    served.add(path)
    for first, end, status in ((0, 100_000, 202), (100_000, 300_000, 201)):
        assert _send(served, f"{path}.part", first, end).status == status
    assert served.ask(f"MOVE {path}.part", f"Destination: {path}").status == 204
    assert read(served.vfs, path) == DATA


def test_onto_an_image(served: Served, path: str) -> None:
    """An image has its data: there is nothing to resume."""
    served.add(path)
    assert _send(served, path, 0, 100_000).status == 409


def test_onto_another_ones_upload(served: Served, path: str) -> None:
    """Only who began an upload goes on with it."""
    upload = begin(served.vfs, path, DATA[:100_000], ADMIN)
    assert _send(served, path, 100_000, 300_000).status == 403
    upload.cancel("the test has ended")


@pytest.mark.stress
def test_two_at_once(served: Served, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two clients that send the same part do not mix their data."""
    monkeypatch.setattr("dav.put.SILENT_SECONDS", 2.0)
    with Wire(served.port) as wire:
        wire.send(head(f"PUT {path}", _range(0, 300), "Transfer-Encoding: chunked"))
        with dripping(wire, b"1\r\nx\r\n"):
            wait_until(lambda: "upload-offset" in served.ask(f"HEAD {path}").headers, "it begins")
            answer = served.ask(f"PUT {path}", _range(1, 300), body=DATA[1:300])
            assert answer.status == 409
            assert "upload-offset" not in answer.headers
        wire.send(b"0\r\n\r\n")
        assert wire.read().status == 400


@pytest.mark.stress
def test_going_on_while_the_first_is_still_missed(
    served: Served, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What HEAD has told to be there is where a client goes on that has lost its connection."""
    monkeypatch.setattr("dav.put.SILENT_SECONDS", 2.0)
    with Wire(served.port) as lost:
        lost.send(head(f"PUT {path}", _range(0, 300_000), length=300_000) + DATA[:1000])
        wait_until(lambda: "upload-offset" in served.ask(f"HEAD {path}").headers, "it begins")
        lost.send(DATA[1000:200_000])
        arrived = _offset(served, path)
        assert _send(served, path, arrived, 300_000).status == 201
        assert lost.at_end()
    assert read(served.vfs, path) == DATA


def test_upload_of_another_process(served: Served, path: str) -> None:
    """What a mount is writing is not resumed over HTTP."""
    served.vfs.create(served.vfs.place(path), ANONYMOUS)
    uploads.start_upload(
        served.vfs.catalog, served.image(path).number, Process("elsewhere", "boot", 1, 1), ""
    )
    assert _send(served, path, 0, 100_000).status == 409
    assert served.ask(f"PUT {path}", body=DATA).status == 409
