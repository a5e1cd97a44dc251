"""Behind nginx, which does TLS: as docs/webdav.md sets it up, and with nothing but `proxy_pass`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from catalog.model.status import Status
from tests.dav.server import Served, serving
from tests.kit.catalog import read
from tests.kit.tools import MIB, run, some_bytes
from tests.servers.certificates import NAME, make_certificates
from tests.servers.nginx import running_nginx
from tests.servers.programs import free_ports

pytestmark = pytest.mark.server

DOCS = Path(__file__).parents[2] / "docs" / "webdav.md"
LOCKINFO = (
    '<lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope><locktype><write/></locktype>'
    "<owner>ex</owner></lockinfo>"
)

PLAIN = """server {
    listen 443 ssl;
    ssl_certificate /etc/ssl/images.example.pem;
    ssl_certificate_key /etc/ssl/images.example.key;
    client_max_body_size 0;
    location / { proxy_pass http://127.0.0.1:8080; }
}
"""


def documented() -> str:
    """The block of docs/webdav.md."""
    found = re.search(r"```nginx\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert found
    return found[1]


@dataclass(frozen=True, slots=True)
class Site:
    """A server behind a proxy; `url` is what its clients call it."""

    served: Served
    url: str
    authority: Path

    def curl(self, method: str, path: str, *options: object) -> tuple[int, str]:
        """The status and the body of the answer to one request."""
        port = self.url.rpartition(":")[2]
        said = run(
            *("curl", "-sS", "--max-time", 60, "-X", method, "--cacert", self.authority),
            *("--resolve", f"{NAME}:{port}:127.0.0.1", "-w", "\\n%{http_code}"),
            *(*options, self.url + path),
        )
        body, _, status = said.rpartition("\n")
        return int(status), body


@contextmanager
def site(folder: Path, block: str, trusted: tuple[str, ...]) -> Iterator[Site]:
    """A server behind nginx with this block, for other ports and certificates."""
    make_certificates(folder)
    (tls_port,) = free_ports(1)
    with serving(folder / "catalog", trusted_proxies=trusted) as served:
        for old, new in (
            ("443", f"127.0.0.1:{tls_port}"),
            ("images.example;", f"{NAME};"),
            ("/etc/ssl/images.example.pem", f"{folder}/server.pem"),
            ("/etc/ssl/images.example.key", f"{folder}/server.key"),
            ("127.0.0.1:8080", f"127.0.0.1:{served.port}"),
        ):
            block = block.replace(old, new)
        with running_nginx(folder, tls_port, block):
            yield Site(served, f"https://{NAME}:{tls_port}", folder / "authority.pem")


@pytest.fixture(scope="module", params=["documented", "plain"])
def proxied(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """Either of the two."""
    folder = tmp_path_factory.mktemp("nginx")
    (folder / "catalog").mkdir()
    trusted = ("127.0.0.1",) if request.param == "documented" else ()
    with site(folder, documented() if trusted else PLAIN, trusted) as running:
        yield running


@pytest.mark.parametrize("method", ["MOVE", "COPY"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_move_and_copy(proxied: Site, method: str, overwrite: bool) -> None:
    """With the Destination that clients send: the public URL."""
    old = proxied.served.add("/file/a")
    if overwrite:
        proxied.served.add("/file/b", b"other")
    status, body = proxied.curl(method, "/file/a", "-H", f"Destination: {proxied.url}/file/b")
    assert (status, body) == (204 if overwrite else 201, "")
    assert proxied.served.image("/file/b").os_hash_value == old.os_hash_value
    for name in ("a", "b"):
        proxied.served.ask(f"DELETE /file/{name}")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_body(proxied: Site, tmp_path: Path, chunked: bool) -> None:
    """Of known length or not, into a new image and onto it."""
    data = some_bytes(40 * MIB + 1)
    (tmp_path / "large").write_bytes(data)
    options = ["-H", "Transfer-Encoding: chunked"] if chunked else []
    path = f"/file/large{chunked}"
    for expected in (201, 204):
        status, body = proxied.curl("PUT", path, *options, "-T", tmp_path / "large")
        assert (status, body) == (expected, "")
        assert read(proxied.served.vfs, path) == data


def test_a_refused_body(proxied: Site, tmp_path: Path) -> None:
    """The reason reaches the client through the proxy, and the old image stays."""
    old = proxied.served.add("/file/kept")
    (tmp_path / "large").write_bytes(some_bytes(20 * MIB))
    wrong = f"OC-Checksum: SHA256:{'0' * 64}"
    status, body = proxied.curl("PUT", "/file/kept", "-H", wrong, "-T", tmp_path / "large")
    assert status == 400
    assert "kept: the sha256 is" in body
    assert proxied.curl("DELETE", "/file/kept")[0] == 409
    assert proxied.served.image("/file/kept") == old


def test_lock_and_unlock(proxied: Site) -> None:
    """With the token in `If` tagged by the public URL, as cadaver and davfs2 send it."""
    proxied.served.add("/file/locked")
    status, body = proxied.curl("LOCK", "/file/locked", "-d", LOCKINFO)
    assert status == 200
    token = re.search(r"opaquelocktoken:[-0-9a-f]+", body)
    assert token
    assert proxied.curl("PUT", "/file/locked", "-d", "more")[0] == 423
    condition = f"If: <{proxied.url}/file/locked> (<{token[0]}>)"
    assert proxied.curl("PUT", "/file/locked", "-H", condition, "-d", "more")[0] == 204
    unlock = f"Lock-Token: <{token[0]}>"
    assert proxied.curl("UNLOCK", "/file/locked", "-H", unlock)[0] == 204
    assert proxied.served.image("/file/locked").status is Status.ACTIVE


def test_the_pages_own_requests(proxied: Site) -> None:
    """A form of the page, as a browser sends it over TLS; and another site's is refused."""
    proxied.served.add("/file/paged")
    options: list[object] = [
        *("-H", "X-Imagefs: 1", "-H", "Content-Type: application/json"),
        *("-d", json.dumps({"image.tags": "stable"}), "-H", f"Origin: {proxied.url}"),
    ]
    own = [*options, "-H", "Sec-Fetch-Site: same-origin"]
    assert proxied.curl("POST", "/file/paged?properties", *own)[0] == 200
    foreign = [*options, "-H", "Sec-Fetch-Site: cross-site"]
    assert proxied.curl("POST", "/file/paged?properties", *foreign)[0] == 403


def test_who_asks_is_told_apart(proxied: Site, caplog: pytest.LogCaptureFixture) -> None:
    """The log has the client's address and the page the public URL, where the proxy is trusted."""
    proxied.served.add("/file/logged")
    # From here, where the trusted proxy is, it comes from a proxy further out.
    header = ("-H", "X-Forwarded-For: 203.0.113.66")
    with caplog.at_level("INFO", "dav.access"):
        _, page = proxied.curl("GET", "/file/logged?page", "-H", "Accept: text/html", *header)
    (line,) = [entry for entry in caplog.messages if "/file/logged" in entry]
    is_trusted = "X-Forwarded" in documented_if(proxied)
    assert (" 203.0.113.66 " in line, " 127.0.0.1 " in line) == (is_trusted, not is_trusted)
    assert (f"{proxied.url}/file/logged" in page) is is_trusted


def documented_if(proxied: Site) -> str:
    """The block that is in use."""
    return (proxied.authority.parent / "nginx.conf").read_text()


def test_another_host_is_refused(proxied: Site) -> None:
    """Where the proxy tells what was asked; else nobody can know."""
    proxied.served.add("/file/stays")
    is_told = "X-Forwarded" in documented_if(proxied)
    to = "Destination: https://other.example/file/moved"
    status, body = proxied.curl("MOVE", "/file/stays", "-H", to)
    assert status == (502 if is_told else 201)
    assert ("other.example is another server than" in body) is is_told
