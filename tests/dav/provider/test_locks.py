"""The catalog's locks behind wsgidav: what its own handlers make of them."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from defusedxml.ElementTree import fromstring
from wsgidav.dav_error import DAVError
from wsgidav.fs_dav_provider import FilesystemProvider
from wsgidav.lock_man import lock_manager
from wsgidav.wsgidav_app import WsgiDAVApp

from catalog.catalog import Catalog
from catalog.errors import InvalidTransition
from catalog.model.access import Role
from catalog.model.status import Status
from catalog.rules import entries, locks
from catalog.rules.users import add_user
from catalog.service.bootstrap import open_catalog
from dav.provider.locks import LockManager
from tests.dav.server import ANONYMOUS, Served, login, serving
from tests.kit.catalog import names_in, new_catalog, settings_at
from tests.kit.wire import basic

LOCKINFO = """<?xml version="1.0"?><lockinfo xmlns="DAV:"><lockscope><{}/></lockscope>
<locktype><write/></locktype><owner><href xmlns:x="urn:x" x:y="&lt;">häns</href></owner></lockinfo>
"""


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    """A new catalog."""
    catalog = new_catalog(settings_at(tmp_path))
    yield catalog
    catalog.close()


class Server:
    """wsgidav over a folder, with the catalog's locks."""

    def __init__(self, folder: Path, catalog: Catalog) -> None:
        folder.mkdir(exist_ok=True)
        provider = FilesystemProvider(str(folder), readonly=False)
        self._app = WsgiDAVApp(
            {
                "provider_mapping": {"/": provider},
                "middleware_stack": ["wsgidav.request_resolver.RequestResolver"],
                "lock_storage": None,
                "logging": {"enable": False},
                "verbose": 0,
            }
        )
        provider.set_lock_manager(LockManager(catalog))
        self.headers: dict[str, str] = {}
        self.body = ""

    def __call__(
        self, method: str, path: str, body: str = "", who: str = "alice", **headers: str
    ) -> int:
        status = 0

        def start(line: str, headers: list[tuple[str, str]], _exc: Any = None) -> None:
            nonlocal status
            status, self.headers = int(line.split()[0]), dict(headers)

        data = body.encode()
        environ = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "",
            "PATH_INFO": path.encode().decode("latin-1"),
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": "localhost",
            "wsgi.url_scheme": "http",
            "wsgi.input": BytesIO(data),
            "CONTENT_LENGTH": str(len(data)),
            "wsgidav.auth.user_name": who,
            **{f"HTTP_{name.upper()}": value for name, value in headers.items()},
        }
        try:
            self.body = b"".join(self._app(environ, start)).decode()
        except DAVError as error:
            status = error.value
            self.body = error.err_condition.as_string() if error.err_condition else ""
        return status

    def lock(self, path: str, scope: str = "exclusive", **options: str) -> str:
        """LOCK; returns the token."""
        assert self("LOCK", path, LOCKINFO.format(scope), **options) in (200, 201), self.body
        return self.headers["Lock-Token"].strip("<>")


@pytest.fixture
def server(tmp_path: Path, catalog: Catalog, caplog: pytest.LogCaptureFixture) -> Server:
    """One process that serves the folder."""
    # It warns of how this test uses it: without authentication and TLS.
    caplog.set_level(logging.ERROR, logger="wsgidav")
    return Server(tmp_path / "tree", catalog)


def test_the_interface_is_wsgidav_s() -> None:
    """What we have, it has with the same parameters: a new release may change them."""
    ours = {name: found for name, found in vars(LockManager).items() if name[0] != "_"}
    for own in ("check_request", "drop_tree"):
        ours.pop(own)
    for name, found in ours.items():
        theirs = getattr(lock_manager.LockManager, name)
        assert list(inspect.signature(found).parameters) == list(
            inspect.signature(theirs).parameters
        ), name


def test_every_method_wsgidav_calls_is_there() -> None:
    """Its handlers' calls on the lock manager, read from their source."""
    called: set[str] = set()
    for module in ("dav_provider", "request_server"):
        source = (Path(lock_manager.__file__).parents[1] / f"{module}.py").read_text()
        called |= set(re.findall(r"\b(?:lock_man|lm|lock_manager)\.(\w+)\(", source))
    assert {"acquire", "write_transaction", "get_url_lock_list"} <= called
    assert called <= set(vars(LockManager))


def test_a_lock_keeps_others_out_until_it_is_given_up(server: Server) -> None:
    """PUT with the token and by its holder only; UNLOCK only by its holder."""
    token = server.lock("/a %41ü.img")
    assert server("PUT", "/a %41ü.img", "data") == 423
    assert server("PUT", "/a %41ü.img", "data", "bob", If=f"(<{token}>)") in (412, 423)
    assert server("PUT", "/a %41ü.img", "data", If=f"(<{token}>)") in (200, 201, 204)
    assert server("UNLOCK", "/a %41ü.img", who="bob", Lock_Token=f"<{token}>") == 403
    assert server("UNLOCK", "/a %41ü.img", Lock_Token=f"<{token}>") == 204
    assert server("PUT", "/a %41ü.img", "data", "bob") in (200, 201, 204)


def test_a_conflict_names_the_lock(server: Server) -> None:
    """The body tells where it is (RFC 4918 §16), with the path quoted."""
    server("MKCOL", "/d ä")
    server.lock("/d ä")
    assert server("LOCK", "/d ä/a", LOCKINFO.format("shared"), who="bob") == 423
    assert "no-conflicting-lock" in server.body
    assert "/d%20%C3%A4<" in server.body
    assert server("PUT", "/d ä/a", "data", who="bob") == 423
    assert "lock-token-submitted" in server.body


def test_shared_locks_stand_together(server: Server) -> None:
    """As litmus has it: any number of shared ones, and no exclusive one beside them."""
    server("PUT", "/a", "data")
    first, second = server.lock("/a", "shared"), server.lock("/a", "shared", who="bob")
    assert first != second
    assert server("LOCK", "/a", LOCKINFO.format("exclusive"), who="carol") == 423
    assert server("PUT", "/a", "more", "bob", If=f"(<{second}>)") in (200, 204)


def test_what_is_told_of_a_lock(server: Server, catalog: Catalog) -> None:
    """Owner, depth and time-out as they were asked for, cut to what is granted."""
    token = server.lock("/a", Timeout="Infinite", Depth="0")
    held = locks.find(catalog, token)
    assert held is not None
    assert (held.timeout, held.deep, held.path) == (locks.MAX_TIMEOUT, False, "/a")
    assert fromstring(held.owner_xml).tag == "{DAV:}owner"
    assert "häns" in held.owner_xml
    assert "häns" in server.body
    assert "infinity" not in server.body
    assert server("LOCK", "/a", Timeout="Second-60", If=f"(<{token}>)") == 200
    refreshed = locks.find(catalog, token)
    assert refreshed is not None
    assert refreshed.timeout == 60


def test_a_lock_that_is_gone_is_not_refreshed(server: Server, catalog: Catalog) -> None:
    """412 tells the client to lock again."""
    token = server.lock("/a")
    locks.release(catalog, token)
    assert server("LOCK", "/a", If=f"(<{token}>)") == 412
    with pytest.raises(DAVError) as caught:
        LockManager(catalog).refresh(token)
    assert caught.value.value == 412


def test_another_process_obeys_and_a_restart_keeps(
    server: Server, catalog: Catalog, tmp_path: Path
) -> None:
    """The locks are in the database and nowhere else."""
    token = server.lock("/a")
    other = open_catalog(settings_at(tmp_path))
    second = Server(tmp_path / "tree", other)
    assert second("PUT", "/a", "data", "bob") == 423
    assert second("PUT", "/a", "data", If=f"(<{token}>)") in (200, 201, 204)
    assert second("UNLOCK", "/a", Lock_Token=f"<{token}>") == 204
    other.close()
    assert server("PUT", "/a", "data", "bob") in (200, 204)


def test_delete_drops_the_locks(server: Server, catalog: Catalog) -> None:
    """On the folder and on what was in it."""
    server("MKCOL", "/d")
    outer = server.lock("/d", Depth="0")
    inner = server.lock("/d/a", If=f"</d> (<{outer}>)")
    assert server("DELETE", "/d", If=f"</d> (<{outer}>) </d/a> (<{inner}>)") == 204, server.body
    assert locks.at(catalog, "/", below=True) == []


@pytest.mark.parametrize("owner", ["&hidden;", "x" * (locks.MAX_OWNER_XML + 1)])
def test_an_owner_that_cannot_be_told_is_refused(catalog: Catalog, owner: str) -> None:
    """It would break the answer to everybody who asks for the locks."""
    document = f'<?xml version="1.0"?>\n<owner xmlns="DAV:">{owner}</owner>'
    with pytest.raises(DAVError) as caught:
        LockManager(catalog).acquire(
            url="/a",
            lock_type="write",
            lock_scope="exclusive",
            lock_depth="0",
            lock_owner=document.encode(),
            timeout=None,
            principal="alice",
            token_list=[],
        )
    assert caught.value.value == 400
    assert locks.at(catalog, "/a") == []


# -- whose they are --------------------------------------------------------------------

WRITE_LOCK = LOCKINFO.format("exclusive").encode()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A server, with two users of one project and an administrator."""
    with serving(tmp_path) as served:
        for name, role in (("alice", "member"), ("bob", "member"), ("carol", "admin")):
            add_user(served.vfs.catalog, name, "secret", role=Role(role), project="lab")
        yield served


def _locked(served: Served) -> str:
    """The token of a lock of alice's on /file/a, which is the whole project's."""
    assert served.ask("PUT /file/a", basic("alice"), body=b"data").status == 201
    answer = served.ask("LOCK /file/a", basic("alice"), body=WRITE_LOCK)
    assert answer.status == 200
    return answer.headers["lock-token"].strip("<>")


@pytest.mark.parametrize("condition", ["(<{}>)", '(Not ["x"] <{}>)', "</file/b> (Not <{}>)"])
def test_only_its_holder_refreshes_a_lock(served: Served, condition: str) -> None:
    """A token is no secret: every PROPFIND tells it (RFC 4918 §6.5)."""
    token = _locked(served)
    held = locks.find(served.vfs.catalog, token)
    header = f"If: {condition.format(token)}"
    refused = served.ask("LOCK /file/a", basic("bob"), header, "Timeout: Second-9")
    assert refused.status == 403
    assert locks.find(served.vfs.catalog, token) == held
    assert served.ask("LOCK /file/a", basic("alice"), header).status == 200


def test_an_administrator_ends_any_lock(served: Served) -> None:
    """As of a client that has vanished; others end only their own (RFC 4918 §6.4)."""
    token = f"Lock-Token: <{_locked(served)}>"
    assert served.ask("UNLOCK /file/a", basic("bob"), token).status == 403
    assert served.ask("PUT /file/a", basic("bob"), body=b"data").status == 423
    assert served.ask("UNLOCK /file/a", basic("carol"), token).status == 204
    assert served.ask("PUT /file/a", basic("bob"), body=b"data").status == 204


def test_a_refused_lock_leaves_no_image(served: Served) -> None:
    """It was made for the lock alone: neither under the name nor in the trash is anything."""
    assert served.ask("MKCOL /file/folder").status == 201
    held = served.ask("LOCK /file/folder", body=LOCKINFO.format("exclusive").encode())
    assert held.status == 200
    other = login(served.vfs, "other")
    too_long = LOCKINFO.format("exclusive").replace("häns", "x" * locks.MAX_OWNER_XML)
    for path, body, status in (
        ("/file/folder/new", LOCKINFO.format("exclusive"), 423),
        ("/file/long", too_long, 400),
    ):
        for headers in ((), (other,)):
            assert served.ask(f"LOCK {path}", *headers, body=body.encode()).status == status
        assert served.ask(f"HEAD {path}").status == 404
    assert not names_in(served.vfs, "/file/folder") | names_in(served.vfs, "/file/.trash")


def test_what_is_written_already_is_not_taken_back(served: Served) -> None:
    """Somebody has found the image of a lock that is about to be refused."""
    place = served.vfs.place("/file/found")
    made = served.vfs.create(place, ANONYMOUS)
    served.vfs.uploads.start(made.image.number)
    with pytest.raises(InvalidTransition):
        entries.take_back(served.vfs.catalog, made)
    assert served.image("/file/found").status is Status.SAVING
