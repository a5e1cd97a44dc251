"""curl(1): what scripts do."""

from __future__ import annotations

import base64
import gzip
import hashlib
from pathlib import Path

import pytest

from tests.kit.daemon import wait_until
from tests.kit.service import PASSWORD, USER, Service
from tests.kit.tools import attempt, run

CURL = ("curl", "--silent", "--show-error", "--fail-with-body")


def refused(*arguments: object) -> str:
    """Run curl, which the server must refuse; return the status."""
    result = attempt("curl", "--silent", "-w", "\n%{http_code}", *arguments)
    return result.stdout.decode().rpartition("\n")[2]


def has_arrived(service: Service, path: str) -> int:
    """Wait until the server has noticed that an upload was cut off; return its size."""

    def arrived() -> int:
        return int(service.ask(f"HEAD {path}").headers.get("upload-offset", 0))

    wait_until(arrived, "some of the upload has arrived")
    return arrived()


@pytest.fixture
def image(open_service: Service, folder: str, source: Path) -> str:
    """The URL of an image that curl has uploaded."""
    run(*CURL, "-T", source, f"{open_service.url}{folder}/")
    return f"{open_service.url}{folder}/{source.name}"


def test_upload(open_service: Service, folder: str, image: str, data: bytes) -> None:
    """An upload is active when curl has ended, and downloads as what it was."""
    fields = open_service.fields(image.removeprefix(open_service.url))
    assert fields["status"] == "active"
    assert fields["os_hash_value"] == hashlib.sha256(data).hexdigest()
    assert attempt(*CURL, image).stdout == data


def test_upload_of_a_stream(open_service: Service, folder: str, data: bytes) -> None:
    """Of a length nobody knows before: a chunked body."""
    run(*CURL, "-T", "-", f"{open_service.url}{folder}/piped.img", stdin=data)
    assert open_service.fields(f"{folder}/piped.img")["size"] == str(len(data))


def test_an_image_is_not_replaced_unasked(image: str, source: Path, data: bytes) -> None:
    """`If-None-Match: *` refuses, and leaves the image as it is."""
    assert refused("-H", "If-None-Match: *", "-T", source, image) == "412"
    assert attempt(*CURL, image).stdout == data


def test_upload_goes_on(open_service: Service, folder: str, source: Path, data: bytes) -> None:
    """An upload that was cut off says how far it came; curl sends the rest."""
    url = f"{open_service.url}{folder}/resumed.img"
    limits = ("--limit-rate", "50k", "--max-time", "1")
    assert attempt("curl", "-sS", "-C", "-", *limits, "-T", source, url).returncode == 28
    arrived = has_arrived(open_service, f"{folder}/resumed.img")
    assert 0 < arrived < len(data)
    assert open_service.status(f"{folder}/resumed.img") == "saving"
    run(*CURL, "-C", arrived, "-T", source, url)
    assert open_service.status(f"{folder}/resumed.img") == "active"
    assert attempt(*CURL, url).stdout == data


def test_upload_starts_anew(open_service: Service, folder: str, source: Path, data: bytes) -> None:
    """Who does not ask how far it came sends all of it again."""
    url = f"{open_service.url}{folder}/restarted.img"
    limits = ("--limit-rate", "50k", "--max-time", "1")
    assert attempt("curl", "-sS", "-C", "-", *limits, "-T", source, url).returncode == 28
    assert has_arrived(open_service, f"{folder}/restarted.img")
    # Until the server has done with the request that was cut off, it refuses another.
    again = (*CURL, "-C", "-", "-T", source, url)
    wait_until(lambda: attempt(*again).returncode == 0, "the upload starts anew")
    assert attempt(*CURL, url).stdout == data


def test_download_goes_on(image: str, tmp_path: Path, data: bytes) -> None:
    """`-C -` fetches only what is missing."""
    part = tmp_path / "part.img"
    part.write_bytes(data[:100_000])
    sent = run(*CURL, "-C", "-", "-o", part, "-w", "%{http_code} %{size_download}", image)
    assert sent == f"206 {len(data) - 100_000}"
    assert part.read_bytes() == data


def test_ranges(image: str, data: bytes) -> None:
    """One range alone, a suffix, several as multipart/byteranges."""
    assert attempt(*CURL, "-r", "100-199", image).stdout == data[100:200]
    assert attempt(*CURL, "-r", "-77", image).stdout == data[-77:]
    several = attempt(*CURL, "-r", "0-9,1000-1999", image).stdout
    assert data[:10] in several
    assert data[1000:2000] in several
    assert refused("-r", f"{len(data)}-", image) == "416"


def test_the_digest_is_the_datas(image: str, data: bytes) -> None:
    """The header is there to check the download with."""
    headers = run(*CURL, "-I", image).lower()
    value = base64.b64encode(hashlib.sha256(data).digest()).decode()
    assert f"repr-digest: sha-256=:{value}:".lower() in headers


@pytest.mark.parametrize("name", ["Repr-Digest", "Content-Digest", "OC-Checksum"])
def test_what_came_damaged_is_refused(
    open_service: Service, folder: str, source: Path, data: bytes, name: str
) -> None:
    """A digest that the data does not have refuses the upload; the right one lets it in."""
    url = f"{open_service.url}{folder}/{name}.img"
    for content, status in ((b"another", "400"), (data, "201")):
        digest = hashlib.sha256(content)
        value = f"sha-256=:{base64.b64encode(digest.digest()).decode()}:"
        if name == "OC-Checksum":
            value = f"SHA256:{digest.hexdigest()}"
        assert refused("-H", f"{name}: {value}", "-T", source, url) == status
    assert open_service.status(f"{folder}/{name}.img") == "active"


def test_unchanged_is_not_sent_again(image: str, tmp_path: Path) -> None:
    """With the ETag saved, the second download brings nothing."""
    tag, out = tmp_path / "etag", tmp_path / "out"
    options = ("--etag-save", tag, "--etag-compare", tag, "-o", out, "-w", "%{http_code}")
    assert run(*CURL, *options, image) == "200"
    assert run(*CURL, *options, image) == "304"


def test_a_listing_is_compressed(open_service: Service, folder: str, image: str) -> None:
    """PROPFIND with --compressed is smaller on the wire and the same to read."""
    command = (*CURL, "-X", "PROPFIND", "-H", "Depth: 1")
    url = f"{open_service.url}{folder}/"
    plain = attempt(*command, url).stdout
    assert attempt(*command, "--compressed", url).stdout == plain
    packed = attempt(*command, "-H", "Accept-Encoding: gzip", url).stdout
    assert gzip.decompress(packed) == plain
    assert len(packed) < len(plain)


def test_tls_and_a_user(secure_service: Service, source: Path, data: bytes) -> None:
    """The certificate is checked; without name and password nothing is told or taken."""
    assert secure_service.tls
    host = f"images.test:{secure_service.port}"
    address = f"{host}:127.0.0.1:{secure_service.port}"
    checked = ("--cacert", secure_service.tls.certificate, "--connect-to", address)
    url = f"https://{host}/file/curl.img"
    assert refused(*checked, "-T", source, url) == "401"
    assert refused(*checked, "-u", f"{USER}:wrong", "-T", source, url) == "401"
    run(*CURL, *checked, "-u", f"{USER}:{PASSWORD}", "-T", source, url)
    assert attempt(*CURL, *checked, "-u", f"{USER}:{PASSWORD}", url).stdout == data
    assert refused(*checked, url) == "401"
