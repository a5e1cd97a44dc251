"""What clients that do not run on Linux send, request by request, as recorded from them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from tests.kit.service import Service
from tests.kit.wire import Answer, Wire, head

EXPLORER = (
    "User-Agent: Microsoft-WebDAV-MiniRedir/10.0.19045",
    "Translate: f",
    "Cache-Control: no-cache",
    "Pragma: no-cache",
)
FINDER = ("User-Agent: WebDAVFS/3.0.0 (03008000) Darwin/23.6.0 (x86_64)", "Accept: */*")
DAVFS2 = ("User-Agent: davfs2/1.6.1 neon/0.32.2",)

LOCK = (
    b'<?xml version="1.0" encoding="utf-8" ?><D:lockinfo xmlns:D="DAV:"><D:lockscope>'
    b"<D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype><D:owner>"
    b"<D:href>DESKTOP\\user</D:href></D:owner></D:lockinfo>"
)
WIN32 = (
    b'<?xml version="1.0" encoding="utf-8" ?><D:propertyupdate xmlns:D="DAV:" '
    b'xmlns:Z="urn:schemas-microsoft-com:"><D:set><D:prop>'
    b"<Z:Win32CreationTime>Tue, 05 Mar 2024 10:00:00 GMT</Z:Win32CreationTime>"
    b"<Z:Win32LastAccessTime>Tue, 05 Mar 2024 10:00:00 GMT</Z:Win32LastAccessTime>"
    b"<Z:Win32LastModifiedTime>Tue, 05 Mar 2024 10:00:00 GMT</Z:Win32LastModifiedTime>"
    b"<Z:Win32FileAttributes>00000020</Z:Win32FileAttributes></D:prop></D:set></D:propertyupdate>"
)
FINDER_QUOTA = (
    b'<?xml version="1.0" encoding="utf-8"?><D:propfind xmlns:D="DAV:"><D:prop>'
    b"<D:quota-available-bytes/><D:quota-used-bytes/><D:quota/><D:quotaused/>"
    b"</D:prop></D:propfind>"
)
APPLE_DOUBLE = b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(4072)


class Client:
    """One client on one connection, with the headers it always sends."""

    def __init__(self, service: Service, folder: str, headers: tuple[str, ...]) -> None:
        self.service = service
        self.wire: Wire = service.connect()
        self.folder = folder
        self.headers = headers

    def __call__(self, method: str, name: str, *headers: str, body: bytes = b"") -> Answer:
        """Ask about a member of the folder."""
        target = f"{self.folder}/{name}" if name else self.folder
        return self.wire.ask(f"{method} {target}", *self.headers, *headers, body=body)

    def at(self, name: str) -> str:
        """A member's URL, by the name of the server that requests go to."""
        return f"http://images.test{self.folder}/{name}"

    def put_nothing(self, name: str) -> Answer:
        """A PUT of zero bytes that says so."""
        return self("PUT", name, "Content-Length: 0")

    def lock(self, name: str, *headers: str) -> str:
        """Lock, and return the `If` header with the token."""
        answer = self("LOCK", name, "Timeout: Second-3600", "Depth: 0", *headers, body=LOCK)
        assert answer.status in (200, 201), answer
        return f"If: ({answer.headers['lock-token']})"

    def unlock(self, name: str, condition: str) -> int:
        """Give the lock up."""
        token = condition.removeprefix("If: (").removesuffix(")")
        return self("UNLOCK", name, f"Lock-Token: {token}").status

    def put_chunked(self, name: str, data: bytes, *headers: str) -> Answer:
        """Send the data in chunks of 10,000 bytes."""
        lines = (*self.headers, *headers, "Transfer-Encoding: Chunked")
        self.wire.send(head(f"PUT {self.folder}/{name}", *lines))
        for start in range(0, len(data), 10_000):
            chunk = data[start : start + 10_000]
            self.wire.send(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        self.wire.send(b"0\r\n\r\n")
        return self.wire.read()

    def reconnect(self) -> None:
        """After a refusal: the server does not wait for a body that it does not want."""
        self.wire.close()
        self.wire = self.service.connect()

    def status(self, name: str) -> str:
        """An image's status."""
        return self.service.status(f"{self.folder}/{name}")


@pytest.fixture
def client(open_service: Service, folder: str, request: pytest.FixtureRequest) -> Iterator[Client]:
    """The client that the test names as its parameter."""
    client = Client(open_service, folder, request.param)
    yield client
    client.wire.close()


explorer = pytest.mark.parametrize("client", [EXPLORER], indirect=True, ids=["explorer"])
finder = pytest.mark.parametrize("client", [FINDER], indirect=True, ids=["finder"])
davfs2 = pytest.mark.parametrize("client", [DAVFS2], indirect=True, ids=["davfs2"])


@explorer
def test_explorer_uploads(client: Client, data: bytes) -> None:
    """PUT of nothing, LOCK, PROPPATCH Win32*, PUT, PROPPATCH, UNLOCK."""
    options = client("OPTIONS", "")
    assert "1" in options.headers["dav"]
    assert "2" in options.headers["dav"]
    # Without it Explorer does not take the server for a WebDAV server.
    assert options.headers["ms-author-via"] == "DAV"
    assert client("PROPFIND", "a.img", "Depth: 0").status == 404
    assert client.put_nothing("a.img").status == 201
    assert client.status("a.img") == "queued"
    condition = client.lock("a.img")
    assert client("PROPPATCH", "a.img", condition, body=WIN32).status == 207
    assert client("HEAD", "a.img").headers["content-length"] == "0"
    assert client("PUT", "a.img", condition, body=data).status == 204
    answer = client("PROPPATCH", "a.img", condition, body=WIN32)
    assert b"200 OK" in answer.body
    assert b" 403 " not in answer.body
    assert client.unlock("a.img", condition) == 204
    assert client.status("a.img") == "active"
    assert client("GET", "a.img").body == data


@explorer
def test_explorer_uploads_onto_an_image(client: Client, data: bytes) -> None:
    """The same onto an image that is there: the PUT of nothing must not cost it."""
    assert client("PUT", "a.img", body=b"old").status == 201
    before = client.service.fields(f"{client.folder}/a.img")["id"]
    condition = client.lock("a.img")
    assert client("PUT", "a.img", condition, "Content-Length: 0").status == 204
    assert client("PROPPATCH", "a.img", condition, body=WIN32).status == 207
    assert client("PUT", "a.img", condition, body=data).status == 204
    assert client.unlock("a.img", condition) == 204
    assert client.status("a.img") == "active"
    assert client("GET", "a.img").body == data
    trashed = client.service.ask("PROPFIND /file/.trash/", "Depth: 1").body.decode()
    assert before in trashed


@explorer
def test_explorer_makes_a_folder_and_renames(client: Client) -> None:
    """`New folder`, attributes, MOVE that must not overwrite, DELETE."""
    assert client("MKCOL", "New%20folder").status == 201
    assert client("PROPPATCH", "New%20folder", body=WIN32).status == 207
    moved = f"Destination: {client.at('images')}"
    assert client("MOVE", "New%20folder", moved, "Overwrite: F").status == 201
    assert client("MKCOL", "New%20folder").status == 201
    assert client("MOVE", "New%20folder", moved, "Overwrite: F").status == 412
    assert client("DELETE", "images").status == 204


@explorer
def test_explorer_lists(client: Client, data: bytes) -> None:
    """PROPFIND without a body, and the properties that its columns show."""
    client("PUT", "a.img", body=data)
    answer = client("PROPFIND", "", "Depth: 1")
    assert answer.status == 207
    for name in ("getcontentlength", "getlastmodified", "creationdate", "resourcetype"):
        assert name in answer.body.decode()


@finder
def test_finder_uploads(client: Client, data: bytes) -> None:
    """PUT of nothing, LOCK, chunked PUT; its `._` file beside is never an image."""
    assert client("PROPFIND", "", "Depth: 0", body=FINDER_QUOTA).status == 207
    assert client("PROPFIND", "._a.img", "Depth: 0").status == 404
    assert client.put_nothing("a.img").status == 201
    condition = client.lock("a.img")
    assert client("PROPFIND", "a.img", "Depth: 0").status == 207
    size = f"X-Expected-Entity-Length: {len(data)}"
    assert client.put_chunked("a.img", data, size, condition).status == 204
    assert client.unlock("a.img", condition) == 204

    assert client.put_nothing("._a.img").status == 201
    condition = client.lock("._a.img")
    size = f"X-Expected-Entity-Length: {len(APPLE_DOUBLE)}"
    assert client.put_chunked("._a.img", APPLE_DOUBLE, size, condition).status in (201, 204)
    assert client("GET", "._a.img").body == APPLE_DOUBLE
    assert client.unlock("._a.img", condition) == 204

    fields = client.service.fields(f"{client.folder}/a.img")
    assert fields["status"] == "active"
    assert fields["os_hash_value"] == hashlib.sha256(data).hexdigest()
    assert client.status("._a.img") != "active"


@finder
def test_finder_keeps_its_folders_state(client: Client) -> None:
    """`.DS_Store` is written, read, and written again, all without becoming an image."""
    for state in (b"first", b"the second state"):
        if client("PROPFIND", ".DS_Store", "Depth: 0").status == 404:
            assert client.put_nothing(".DS_Store").status == 201
        condition = client.lock(".DS_Store")
        assert client.put_chunked(".DS_Store", state, condition).status in (201, 204)
        assert client.unlock(".DS_Store", condition) == 204
        assert client("GET", ".DS_Store").body == state
        assert client.status(".DS_Store") != "active"


@finder
def test_finders_upload_is_cut_off(client: Client, data: bytes) -> None:
    """A chunked body that ends well but is shorter than announced never becomes active."""
    client.put_nothing("a.img")
    condition = client.lock("a.img")
    size = f"X-Expected-Entity-Length: {len(data) + 1}"
    assert client.put_chunked("a.img", data, size, condition).status == 400
    client.reconnect()
    assert client.status("a.img") == "killed"
    size = f"X-Expected-Entity-Length: {len(data)}"
    assert client.put_chunked("a.img", data, size, condition).status == 201
    assert client.unlock("a.img", condition) == 204
    assert client.status("a.img") == "active"


@finder
def test_finder_renames_and_deletes(client: Client, data: bytes) -> None:
    """The `._` file goes with its image."""
    client("PUT", "a.img", body=data)
    client("PUT", "._a.img", body=APPLE_DOUBLE)
    assert client("MOVE", "a.img", f"Destination: {client.at('b.img')}").status == 201
    assert client("MOVE", "._a.img", f"Destination: {client.at('._b.img')}").status == 201
    assert client.status("b.img") == "active"
    assert client.status("._b.img") != "active"
    assert client("DELETE", "._b.img").status == 204
    assert client("DELETE", "b.img").status == 204


@davfs2
def test_davfs2_uploads(client: Client, data: bytes) -> None:
    """LOCK that creates, HEAD, PUT only if it is still that empty file, UNLOCK."""
    condition = client.lock("a.img")
    assert client.status("a.img") == "queued"
    found = client("HEAD", "a.img")
    assert found.headers["content-length"] == "0"
    unchanged = f"If-Match: {found.headers['etag']}"
    answer = client("PUT", "a.img", unchanged, condition, body=data)
    assert answer.status in (201, 204)
    assert client.unlock("a.img", condition) == 204
    assert client.status("a.img") == "active"
    # It remembers the tag: what it has in its cache is valid while it stays.
    assert client("HEAD", "a.img").headers["etag"] == answer.headers["etag"]


@davfs2
def test_davfs2_does_not_overwrite_what_changed(client: Client, data: bytes) -> None:
    """With the tag of an image that is no more the PUT is refused."""
    tag = client("PUT", "a.img", body=data).headers["etag"]
    assert client("PUT", "a.img", body=b"another").status == 204
    condition = client.lock("a.img")
    assert client("PUT", "a.img", f"If-Match: {tag}", condition, body=data).status == 412
    client.reconnect()
    assert client.unlock("a.img", condition) == 204
    assert client("GET", "a.img").body == b"another"


def test_a_move_replaces_no_store(open_service: Service, folder: str) -> None:
    """Neither a store nor the folder that the image is in makes way for it; nothing is lost."""
    for name in ("a.img", "b.img"):
        assert open_service.ask(f"PUT {folder}/{name}", body=b"data").status == 201
    for method in ("MOVE", "COPY"):
        for target in ("/file", "/file/", "/file/.trash", folder, f"{folder}/"):
            to = f"Destination: http://images.test{target}"
            assert open_service.ask(f"{method} {folder}/a.img", to).status == 403, (method, target)
    assert open_service.ask("DELETE /file/").status == 403
    assert open_service.status(f"{folder}/a.img") == "active"
    assert open_service.status(f"{folder}/b.img") == "active"


@pytest.mark.parametrize("name", ["a%3Bv=1.img", "a;v=1.img", "a%3Fb.img"])
def test_a_destination_is_not_shortened(open_service: Service, folder: str, name: str) -> None:
    """wsgidav takes these for the name `a`, and would replace that image."""
    for present in ("a", "source.img"):
        assert open_service.ask(f"PUT {folder}/{present}", body=b"data").status == 201
    before = open_service.fields(f"{folder}/a")["id"]
    to = f"Destination: http://images.test{folder}/{name}"
    assert open_service.ask(f"MOVE {folder}/source.img", to).status == 201
    assert open_service.fields(f"{folder}/a")["id"] == before
    assert open_service.status(f"{folder}/{name}") == "active"
