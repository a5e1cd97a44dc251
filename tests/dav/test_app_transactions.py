"""How often a request asks the catalog: each question is a transaction, and each waits its turn."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import pytest

from catalog.catalog import Catalog
from catalog.model.status import Status
from tests.dav.server import Served, login
from tests.kit.wire import Answer

DATA = b"data"
PUT, MOVE, GET = 6, 5, 2
"""At most so many transactions, the look for who asks included."""

_numbers = count()


def digest_of(data: bytes) -> str:
    """The SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def alice(served: Served) -> str:
    """The header of a user whose password has just been found right."""
    header = login(served.vfs, "alice")
    assert served.ask("GET /file", header).status == 200
    return header


@pytest.fixture
def path(served: Served, alice: str) -> str:
    """A free name in a folder that is some way down."""
    folder = f"/file/{next(_numbers)}"
    assert served.ask(f"MKCOL {folder}", alice).status == 201
    return f"{folder}/a.img"


@pytest.fixture
def transactions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The transactions that have begun since, as `read` and `write`."""
    begun: list[str] = []

    def counted(kind: str) -> Callable[[Catalog], object]:
        original = getattr(Catalog, kind)

        @contextmanager
        def begin(catalog: Catalog) -> Iterator[object]:
            begun.append(kind)
            with original(catalog) as repository:
                yield repository

        return begin

    for kind in ("read", "write"):
        monkeypatch.setattr(Catalog, kind, counted(kind))
    return begun


class Asking:
    """Requests of a user, held to a number of transactions."""

    def __init__(self, served: Served, header: str, transactions: list[str]) -> None:
        self._served = served
        self._header = header
        self._transactions = transactions

    def __call__(
        self, request: str, *headers: str, body: bytes = b"", status: int, most: int
    ) -> Answer:
        """Send a request that is answered so, after at most so many transactions."""
        self._transactions.clear()
        answer = self._served.ask(request, self._header, *headers, body=body)
        begun = list(self._transactions)
        assert answer.status == status, answer
        assert len(begun) <= most, begun
        return answer


@pytest.fixture
def ask(served: Served, alice: str, transactions: list[str]) -> Asking:
    """Requests of Alice's."""
    return Asking(served, alice, transactions)


def test_put(ask: Asking, served: Served, path: str) -> None:
    """A new image, one that replaces it, and one more with all that can be announced."""
    ask(f"PUT {path}", body=DATA, status=201, most=PUT)
    first = served.image(path)
    ask(f"PUT {path}", body=DATA * 2, status=204, most=PUT)
    digest = f"OC-Checksum: SHA256:{digest_of(DATA * 3)}"
    answer = ask(
        f"PUT {path}", digest, "X-OC-Mtime: 1700000000", body=DATA * 3, status=204, most=PUT
    )
    image = served.image(path)
    assert (image.status, image.size, image.owner) == (Status.ACTIVE, 12, "alice")
    assert image.id != first.id
    assert answer.headers["etag"] == f'"{image.id}-{digest_of(DATA * 3)[:32]}"'


def test_put_of_something_announced(ask: Asking, served: Served, path: str) -> None:
    """Of a new name too."""
    digest = f"OC-Checksum: SHA256:{digest_of(DATA)}"
    ask(f"PUT {path}", digest, body=DATA, status=201, most=PUT)
    assert served.image(path).status is Status.ACTIVE
    ask(f"PUT {path}2", digest, body=DATA * 2, status=400, most=PUT + 4)


def test_put_with_conditions(ask: Asking, path: str) -> None:
    """Headers that ask for what is there."""
    tag = ask(f"PUT {path}", "If-None-Match: *", body=DATA, status=201, most=PUT).headers["etag"]
    ask(f"PUT {path}", f"If-Match: {tag}", body=DATA * 2, status=204, most=PUT)


def test_put_under_a_lock(ask: Asking, path: str) -> None:
    """With the token of the lock, which has made the image."""
    lock = (
        b'<lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope>'
        b"<locktype><write/></locktype></lockinfo>"
    )
    token = ask(f"LOCK {path}", body=lock, status=201, most=20).headers["lock-token"]
    ask(f"PUT {path}", f"If: ({token})", body=DATA, status=204, most=PUT)
    ask(f"PUT {path}", f"If: ({token})", body=DATA * 2, status=204, most=PUT)


def test_put_of_a_temporary_name(ask: Asking, served: Served, path: str) -> None:
    """And of the name that it gets then."""
    ask(f"PUT {path}.part", body=DATA, status=201, most=PUT)
    ask(f"MOVE {path}.part", f"Destination: {path}", status=201, most=MOVE)
    assert served.image(path).status is Status.ACTIVE


def test_move(ask: Asking, served: Served, path: str) -> None:
    """To a free name; onto an image, which goes to the trash; and of a folder."""
    ask(f"PUT {path}", body=DATA, status=201, most=PUT)
    image = served.image(path)
    ask(f"MOVE {path}", f"Destination: {path}.a", status=201, most=MOVE)
    ask(f"PUT {path}.c", body=DATA, status=201, most=PUT)
    ask(f"PUT {path}.d", body=DATA, status=201, most=PUT)
    new = served.image(f"{path}.c")
    ask(f"MOVE {path}.c", f"Destination: {path}.d", status=204, most=MOVE)
    assert served.image(f"{path}.d").id == new.id
    ask(f"MOVE {path}.a", f"Destination: http://images.test{path}.e", status=201, most=MOVE)
    assert served.image(f"{path}.e").id == image.id
    ask(f"MKCOL {path}.folder", status=201, most=20)
    ask(f"MOVE {path}.folder", f"Destination: {path}.moved", status=201, most=MOVE)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_get(ask: Asking, served: Served, path: str, method: str) -> None:
    """All of it, a part of it, and none when the client has it."""
    served.add(path, DATA)
    tag = ask(f"{method} {path}", status=200, most=GET).headers["etag"]
    part = 206 if method == "GET" else 200
    ask(f"{method} {path}", "Range: bytes=1-2", status=part, most=GET)
    ask(f"{method} {path}", f"If-None-Match: {tag}", status=304, most=GET)
    ask(f"{method} {path}.none", status=404, most=GET)
    ask(f"{method} /.by-id/{served.image(path).id}", status=200, most=GET)


def test_authentication(served: Served, ask: Asking, transactions: list[str], path: str) -> None:
    """Who asks is one of them; who is not let in costs no other."""
    served.add(path, DATA)
    ask(f"GET {path}", status=200, most=GET)
    transactions.clear()
    assert served.ask(f"GET {path}").status == 200
    assert len(transactions) <= GET - 1
    transactions.clear()
    assert served.ask(f"GET {path}", "Authorization: Basic Ym9iOnNlY3JldA==").status == 401
    assert transactions == ["read"]
