"""What somebody may not see is not to be told from what is not there, whatever is asked.

Each request is sent twice by the same principal: for an image that it may not see, and for a name
that nobody has.  Both answers have to be the same, but for the name itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from catalog.errors import CatalogUnavailable, StoreUnavailable
from catalog.model.access import Principal, Role
from catalog.rules.users import add_user
from catalog.tree.vfs import Vfs
from dav.app import App, render_error
from tests.kit.catalog import make_folder, new_catalog, put, remove, set_fields, settings_at
from tests.kit.wire import Answer, Wire, basic
from web.login.basic import Authentication
from web.server.server import Server
from web.settings import DavSettings

OWNER = Principal("owner")
OTHER = Principal("other")
STRANGERS = ("anonymous", "reader", "other")
LOCK = (
    b'<lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope>'
    b"<locktype><write/></locktype></lockinfo>"
)
PATCH = (
    b'<propertyupdate xmlns="DAV:"><set><prop>'
    b'<i:min_disk xmlns:i="urn:imagefs:image">7</i:min_disk></prop></set></propertyupdate>'
)
TOKEN = "<opaquelocktoken:11111111-2222-3333-4444-555555555555>"

_numbers = count()


@dataclass(frozen=True, slots=True)
class Served:
    """A server in this process that lets everybody read."""

    vfs: Vfs
    port: int

    def ask(self, who: str, request: str, *headers: str, body: bytes = b"") -> Answer:
        """Send a request."""
        if who != "anonymous":
            headers = (basic(who), *headers)
        with Wire(self.port) as wire:
            return wire.ask(request, *headers, body=body)

    def private(self, path: str) -> str:
        """Make an image of the owner's alone."""
        put(self.vfs, path, b"data", OWNER)
        set_fields(self.vfs, path, OWNER, visibility="private")
        return path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for all requests."""
    catalog = new_catalog(settings_at(tmp_path_factory.mktemp("hidden")))
    for name, role in (
        ("owner", Role.MEMBER),
        ("other", Role.MEMBER),
        ("reader", Role.READER),
        ("admin", Role.ADMIN),
    ):
        add_user(catalog, name, "secret", role=role)
    vfs = Vfs(catalog)
    settings = DavSettings.model_validate({"anonymous": "read"})
    server = Server(Authentication(App(vfs), catalog, settings, render_error), ("127.0.0.1", 0))
    server.start()
    put(vfs, "/file/mine", b"mine", OTHER)
    yield Served(vfs, server.port)
    server.stop()
    vfs.close()


Ask = tuple[str, tuple[str, ...], bytes]

# PATH is the image's, NEW a name that is free, TAG the image's own ETag.
REQUESTS: list[Ask] = [
    *((f"{method} PATH{end}", (), b"") for method in ("GET", "HEAD") for end in ("", "/", "/x")),
    *((f"GET PATH{end}", (), b"") for end in ("/SHA256SUMS", "/x/y", "/x?page", "/.trash/x")),
    *(("GET PATH?page", (f"Accept: {kind}",), b"") for kind in ("text/html", "application/json")),
    ("GET PATH", ("If-None-Match: *",), b""),
    ("GET PATH", ("If-Match: *",), b""),
    ("GET PATH", ("Range: bytes=100-",), b""),
    ("GET PATH", ("If-Modified-Since: Mon, 01 Jan 2035 00:00:00 GMT",), b""),
    *(
        (f"POST PATH{end}?properties", ("Content-Type: application/json",), b"{}")
        for end in ("", "/x")
    ),
    ("POST PATH", (), b"{}"),
    *(
        (f"PROPFIND PATH{end}", (f"Depth: {depth}",), b"")
        for end in ("", "/", "/x")
        for depth in ("0", "1", "infinity")
    ),
    *((f"PROPPATCH PATH{end}", (), PATCH) for end in ("", "/x")),
    ("PROPPATCH PATH", ("If-Match: *",), PATCH),
    *((f"OPTIONS PATH{end}", (), b"") for end in ("", "/x")),
    *((f"DELETE PATH{end}", (), b"") for end in ("", "/", "/x")),
    ("DELETE PATH", ("If-Match: *",), b""),
    ("DELETE PATH", ("If-None-Match: *",), b""),
    *((f"UNLOCK PATH{end}", (f"Lock-Token: {TOKEN}",), b"") for end in ("", "/x")),
    ("LOCK PATH", (f"If: ({TOKEN})",), b""),
    *(
        (f"{method} PATH{end}", ("Destination: NEW",), b"")
        for method in ("COPY", "MOVE")
        for end in ("", "/x")
    ),
    *((f"{method} /file/mine", ("Destination: PATH/x",), b"") for method in ("COPY", "MOVE")),
    ("MKCOL PATH/x", (), b""),
    ("LOCK PATH/x", (), LOCK),
    *((f"PUT PATH{end}", (), b"data") for end in ("/", "/x", "/x/y")),
    ("PUT PATH/x", ("If-None-Match: *",), b"data"),
    ("PUT PATH", ("If-Match: *",), b"data"),
    ("PUT PATH", ("If-Match: TAG",), b"data"),
    ("PUT PATH", ("Content-Range: bytes 4-7/8", "If-Match: TAG"), b"data"),
    ("PROPPATCH /file/mine", ("If: <PATH> ([TAG])",), PATCH),
    ("PROPPATCH /file/mine", ("If: <PATH> (Not [TAG])",), PATCH),
    ("BREW PATH", (), b""),
]

# A reader's request is refused as such before anything is looked at.
CREATING: list[Ask] = [
    ("PUT PATH", (), b"data"),
    ("PUT PATH", (), b""),
    ("PUT PATH", ("If-None-Match: *",), b"data"),
    ("PUT PATH", ("Content-Range: bytes 0-3/8",), b"data"),
    ("LOCK PATH", (), LOCK),
    ("MKCOL PATH", (), b""),
    ("COPY /file/mine", ("Destination: PATH",), b""),
]


def normal(answer: Answer, path: str) -> tuple[int, dict[str, str], bytes]:
    """An answer without what differs from one request to the next."""
    request_id = answer.headers.get("x-request-id", "-")
    headers = {
        name: value
        for name, value in answer.headers.items()
        if name not in ("date", "x-request-id", "content-length")
    }
    name = path.rpartition("/")[2].encode()
    body = answer.body.replace(request_id.encode(), b"ID").replace(name, b"NAME")
    return answer.status, headers, re.sub(rb"new\d+", b"NEW", body)


def answered(served: Served, who: str, ask: Ask, path: str, tag: str) -> object:
    """The answer to a request for that path."""
    new = f"/file/new{next(_numbers)}"

    def filled(text: str) -> str:
        return text.replace("PATH", path).replace("NEW", new).replace("TAG", tag)

    request, headers, body = ask
    return normal(served.ask(who, filled(request), *map(filled, headers), body=body), path)


def described(ask: Ask) -> str:
    """A request in a word, for what a failing test says."""
    return " ".join((ask[0], *ask[1]))


@pytest.fixture(scope="module", params=["plain", "locked", "in a folder", "by id", "deactivated"])
def hidden(request: pytest.FixtureRequest, served: Served) -> str:
    """The path of an image that its owner alone sees."""
    path = served.private(f"/file/hidden{next(_numbers)}")
    match request.param:
        case "locked":
            assert served.ask("owner", f"LOCK {path}", body=LOCK).status == 200
        case "in a folder":
            folder = f"/file/folder{next(_numbers)}"
            make_folder(served.vfs, folder, OTHER)
            return served.private(f"{folder}/hidden")
        case "by id":
            number = served.vfs.find(path, OWNER).image.id  # type: ignore[union-attr]
            return f"/.by-id/{number}"
        case "deactivated":
            set_fields(served.vfs, path, Principal("root", Role.ADMIN), status="deactivated")
    return path


@pytest.mark.parametrize("who", STRANGERS)
def test_a_hidden_image_is_as_one_that_is_not_there(served: Served, hidden: str, who: str) -> None:
    """Status, headers and body are the same for every method, below the name too."""
    tag = served.ask("admin", f"HEAD {hidden}").headers["etag"]
    above, _, _ = hidden.rpartition("/")
    requests = REQUESTS if who == "other" else REQUESTS + CREATING
    differ = []
    for ask in requests:
        absent = f"{above}/absent{next(_numbers)}"
        found = answered(served, who, ask, hidden, tag)
        if found != answered(served, who, ask, absent, tag):
            differ.append((described(ask), found))
    assert differ == []


@pytest.mark.parametrize("locked", [False, True])
def test_a_name_that_is_taken_tells_no_more_than_that(served: Served, locked: bool) -> None:
    """Names are unique, so that a new image under it is refused: not whose it is, nor a lock."""
    path = served.private(f"/file/taken{next(_numbers)}")
    if locked:
        assert served.ask("owner", f"LOCK {path}", body=LOCK).status == 200
    for ask, status in zip(CREATING, (403, 403, 403, 403, 409, 405, 403), strict=True):
        found = answered(served, "other", ask, path, '"x"')
        assert isinstance(found, tuple)
        assert found[0] == status, described(ask)
        assert b"owner" not in found[2], described(ask)
        assert b"lock" not in found[2].lower(), described(ask)


@pytest.mark.parametrize("locked", [False, True])
def test_a_folder_that_cannot_go_names_nothing_hidden_in_it(served: Served, locked: bool) -> None:
    """It is the stranger's own folder; that something is in it cannot be kept from him."""
    folder = f"/file/mine{next(_numbers)}"
    make_folder(served.vfs, folder, OTHER)
    path = served.private(f"{folder}/secret")
    if locked:
        assert served.ask("owner", f"LOCK {path}", body=LOCK).status == 200
    for request, headers, body in (
        (f"DELETE {folder}", (), b""),
        (f"MOVE {folder}", (f"Destination: {folder}x",), b""),
        ("COPY /file/mine", (f"Destination: {folder}",), b""),
        (f"LOCK {folder}", (), LOCK),
        (f"PROPFIND {folder}", ("Depth: 1",), b""),
        (f"GET {folder}/SHA256SUMS", (), b""),
        (f"GET {folder}/", ("Accept: application/json",), b""),
        (f"GET {folder}/", ("Accept: text/html",), b""),
    ):
        answer = served.ask("other", request, *headers, body=body)
        assert b"secret" not in answer.body, request
        assert b"owner" not in answer.body.replace(b"lockowner", b""), request
        if request.startswith("MOVE") and answer.status == 201:
            folder += "x"


# -- the trash and the overview -----------------------------------------------------------


def test_the_trash_lists_what_one_could_restore(served: Served) -> None:
    """To nobody else, in no listing, also of ids; by its name it opens to who could read it."""
    image = put(served.vfs, "/file/gone", b"data", OWNER)
    remove(served.vfs, "/file/gone", OWNER)
    listings = (
        ("PROPFIND /file/.trash", "Depth: 1"),
        ("GET /file/.trash/", "Accept: application/json"),
        ("GET /file/.trash/", "Accept: text/html"),
        ("PROPFIND /.by-id", "Depth: 1"),
        ("GET /.by-id/", "Accept: application/json"),
    )
    for request, header in listings:
        for who in (*STRANGERS, "owner", "admin"):
            shown = served.ask(who, request, header).body
            listed = b"gone" in shown or image.id.encode() in shown
            assert listed is (who in ("owner", "admin")), (request, who)


def test_totals_count_what_one_sees(served: Served) -> None:
    """Else one could watch others' images come and go."""

    def totals(who: str) -> object:
        answer = served.ask(who, "GET /", "Accept: application/json")
        (card,) = (card for card in json.loads(answer.body)["stores"] if card["name"] == "memory")
        return {name: value for name, value in card.items() if "free" not in name}

    before = {who: totals(who) for who in (*STRANGERS, "admin")}
    served.private("/memory/hidden")
    for who in STRANGERS:
        assert totals(who) == before[who]
    assert totals("admin") != before["admin"]


# -- faults of the server -----------------------------------------------------------------

SECRETS = (b"/srv", b"sqlite", b"SELECT", b"10.1.2.3", b"s3.internal")


@pytest.mark.parametrize(
    "error",
    [
        CatalogUnavailable("/srv/imagefs/catalog.db", "unable to open database file: SELECT 1"),
        StoreUnavailable("s3.internal", "http://10.1.2.3:9000/bucket: connection refused"),
    ],
)
@pytest.mark.parametrize(
    "request_line",
    [
        "GET /file/mine",
        "PUT /file/new",
        "PROPFIND /file",
        "DELETE /file/mine",
        "LOCK /file/mine",
        "MKCOL /file/made",
        "GET /",
    ],
)
def test_a_fault_tells_strangers_no_paths(
    served: Served,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    request_line: str,
    error: CatalogUnavailable | StoreUnavailable,
) -> None:
    """Nor statements or hosts; an administrator reads them, and they are in the log."""
    caplog.set_level("INFO")

    def fail(*_: object, **__: object) -> None:
        raise error

    for name in ("find", "look", "lookup", "resolve", "usage"):
        monkeypatch.setattr(served.vfs, name, fail)
    for store in served.vfs.catalog.stores.values():
        monkeypatch.setattr(type(store), "usage", fail)
    for who in (*STRANGERS, "admin"):
        caplog.clear()
        body = LOCK if request_line.startswith("LOCK") else b""
        answer = served.ask(who, request_line, "Accept: application/json", body=body)
        told = [secret for secret in SECRETS if secret in answer.body]
        if who != "admin":
            assert told == []
        if answer.status == 503:
            assert bool(told) is (who == "admin")
            assert error.subject in caplog.text


def test_a_database_that_is_gone_is_not_told_to_who_is_not_in(tmp_path: Path) -> None:
    """Before anybody is let in."""
    catalog = new_catalog(settings_at(tmp_path))
    vfs = Vfs(catalog)
    app = Authentication(
        App(vfs), catalog, DavSettings.model_validate({"anonymous": "none"}), render_error
    )
    server = Server(app, ("127.0.0.1", 0))
    server.start()
    (tmp_path / "catalog.db").rename(tmp_path / "elsewhere.db")
    (tmp_path / "catalog.db").mkdir()
    catalog._database.close()
    try:
        answer = Served(vfs, server.port).ask("owner", "GET /file/x")
    finally:
        server.stop()
    assert answer.status == 503
    assert str(tmp_path).encode() not in answer.body
    assert b"database" in answer.body
