"""Who is let in over HTTP, and what the section [dav] refuses."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, NoReturn

import pytest

from catalog.catalog import Catalog
from catalog.errors import InvalidSettings, TooManyAttempts
from catalog.model.access import Principal, Role
from catalog.rules.authentication import Authenticator
from catalog.rules.users import add_user, remove_user
from catalog.service.configuration import load
from dav.app import render_error
from tests.kit.catalog import new_catalog, settings_at
from web.exchange.environ import principal_of
from web.exchange.forwarded import Forwarding, Proxies
from web.login.basic import CHALLENGE, Authentication
from web.settings import DavSettings


class Unread(BytesIO):
    """A body nobody may look at."""

    def read(self, *_: Any) -> NoReturn:
        raise AssertionError("the body was read before the request was let in")

    readinto = readline = read


class Client:
    """Sends requests to an application behind the authentication."""

    def __init__(self, catalog: Catalog, anonymous: str) -> None:
        settings = DavSettings.model_validate({"anonymous": anonymous})
        self._app = Authentication(self._behind, catalog, settings, render_error)
        self.let_in: Principal | None = None
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""

    def _behind(self, environ: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
        self.let_in = principal_of(environ)
        assert environ["wsgidav.auth.user_name"] == self.let_in.name
        start("200 OK", [])
        return []

    def __call__(
        self,
        authorization: str = "",
        method: str = "GET",
        address: str = "192.0.2.1",
        query: str = "",
    ) -> int:
        environ = {
            "REQUEST_METHOD": method,
            "PATH_INFO": "/file/a",
            "QUERY_STRING": query,
            "REMOTE_ADDR": address,
            "wsgi.input": Unread(),
        }
        if authorization:
            environ["HTTP_AUTHORIZATION"] = authorization
        self.let_in = None

        def start(status: str, headers: list[tuple[str, str]], _exc: Any = None) -> None:
            self.status, self.headers = int(status.split()[0]), dict(headers)

        self.body = b"".join(self._app(environ, start))
        return self.status


def basic(name: str, password: str) -> str:
    """The header of RFC 7617."""
    return "Basic " + b64encode(f"{name}:{password}".encode()).decode()


RIGHT, WRONG = basic("alice", "pa:ss wörd"), basic("alice", "wrong")


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    """A catalog with the user alice."""
    catalog = new_catalog(settings_at(tmp_path))
    add_user(catalog, "alice", "pa:ss wörd", project="web")
    yield catalog
    catalog.close()


@pytest.fixture
def client(catalog: Catalog) -> Client:
    """A server that lets in nobody without a name."""
    return Client(catalog, "none")


def test_a_user_is_let_in(client: Client) -> None:
    """In UTF-8, with a colon in the password, whatever the case of the scheme."""
    assert client(RIGHT) == 200
    assert client.let_in == Principal("alice", Role.MEMBER, "web")
    assert client(RIGHT.replace("Basic", "bAsIc")) == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "OPTIONS", "PROPFIND"])
def test_nobody_else_is(client: Client, method: str) -> None:
    """They are asked for a name, and their body is not looked at."""
    for authorization in ("", WRONG):
        assert client(authorization, method) == 401
        assert client.headers["WWW-Authenticate"] == CHALLENGE
        assert int(client.headers["Content-Length"]) == len(client.body)
        assert client.let_in is None


@pytest.mark.parametrize(
    "authorization",
    [
        "Basic",
        "Basic !!!!",
        "Basic " + b64encode(b"alice").decode(),
        "Basic " + b64encode(b"alic\xe9:x").decode(),
        "Basic " + b64encode(b"ali\x00ce:x").decode(),
        "Bearer " + b64encode(b"alice:pa").decode(),
        RIGHT.replace("Basic", "Digest"),
        RIGHT + ", " + RIGHT,
    ],
)
def test_what_is_not_basic_authentication(client: Client, authorization: str) -> None:
    """It is refused, and is nobody's failure."""
    assert client(authorization) == 401
    assert client(RIGHT) == 200


def test_wrong_passwords_lock_nobody_out(client: Client, catalog: Catalog) -> None:
    """Neither who has the right one, nor others at the same address."""
    add_user(catalog, "bob", "secret")
    assert {client(basic("alice", f"wrong {number}")) for number in range(10)} == {401}
    assert client(RIGHT) == 200
    assert client(basic("bob", "secret")) == 200


def test_too_many_at_once_are_told_when_to_come_back(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """429 asks for no other password."""

    def refused(_self: Authenticator, name: str, _password: str, _address: str) -> NoReturn:
        raise TooManyAttempts(name, 1)

    monkeypatch.setattr(Authenticator, "authenticate", refused)
    assert client(RIGHT) == 429
    assert client.headers["Retry-After"] == "1"
    assert "WWW-Authenticate" not in client.headers


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "address"),
    [
        ((), "192.0.2.1", "203.0.113.9", "192.0.2.1"),
        (("192.0.2.0/24",), "192.0.2.1", "203.0.113.9", "203.0.113.9"),
        (("192.0.2.0/24",), "198.51.100.1", "203.0.113.9", "198.51.100.1"),
        (("192.0.2.0/24",), "192.0.2.1", "10.6.6.6, 203.0.113.9, 192.0.2.7", "203.0.113.9"),
        (("192.0.2.0/24",), "192.0.2.1", "2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
    ],
)
def test_guesses_count_for_who_sends_them(
    catalog: Catalog,
    monkeypatch: pytest.MonkeyPatch,
    trusted: tuple[str, ...],
    peer: str,
    forwarded: str,
    address: str,
) -> None:
    """The address that a proxy of ours saw; what anybody else says of himself is nothing."""
    seen: list[str] = []

    def noted(_self: Authenticator, name: str, _password: str, address: str) -> Principal:
        seen.append(address)
        return Principal(name)

    monkeypatch.setattr(Authenticator, "authenticate", noted)
    settings = DavSettings.model_validate({"trusted_proxies": trusted})
    app = Forwarding(
        Authentication(lambda *_: [], catalog, settings, render_error),
        Proxies(settings.trusted_proxies),
    )
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/",
        "REMOTE_ADDR": peer,
        "SERVER_NAME": "a",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
        "HTTP_AUTHORIZATION": RIGHT,
        "HTTP_X_FORWARDED_FOR": forwarded,
    }
    list(app(environ, lambda *_: None))
    assert seen == [address]


def test_a_removed_user_is_out_with_the_next_request(client: Client, catalog: Catalog) -> None:
    """Nothing that is remembered keeps somebody in."""
    assert client(RIGHT) == 200
    remove_user(catalog, "alice")
    assert client(RIGHT) == 401


@pytest.mark.parametrize(
    ("anonymous", "method", "status", "role"),
    [
        ("none", "GET", 401, None),
        ("read", "GET", 200, Role.READER),
        ("read", "PROPFIND", 200, Role.READER),
        ("read", "OPTIONS", 200, Role.READER),
        ("read", "PUT", 401, None),
        ("read", "LOCK", 401, None),
        ("read", "POST", 401, None),
        ("write", "GET", 200, Role.MEMBER),
        ("write", "PUT", 200, Role.MEMBER),
    ],
)
def test_without_a_name(
    catalog: Catalog, anonymous: str, method: str, status: int, role: Role | None
) -> None:
    """Who may only read is asked for a name before a change."""
    client = Client(catalog, anonymous)
    assert client(method=method) == status
    assert client.let_in == (Principal("anonymous", role) if role else None)


@pytest.mark.parametrize("anonymous", ["read", "write"])
def test_a_wrong_name_is_not_no_name(catalog: Catalog, anonymous: str) -> None:
    """Else a mistyped password would go on as somebody else."""
    client = Client(catalog, anonymous)
    assert client(WRONG) == 401
    assert client(RIGHT) == 200
    assert client.let_in is not None
    assert client.let_in.name == "alice"


@pytest.mark.parametrize("anonymous", ["read", "write"])
def test_who_wants_to_log_in_is_asked(catalog: Catalog, anonymous: str) -> None:
    """A browser asks for a name only when it is told to, though a reader needs none."""
    client = Client(catalog, anonymous)
    assert client(query="login") == 401
    assert dict(client.headers)["WWW-Authenticate"].startswith("Basic")
    assert client(RIGHT, query="login") == 200


# -- settings --------------------------------------------------------------------------


def dav_section(tmp_path: Path, text: str) -> DavSettings:
    """The section [dav] of a file with these lines in it."""
    path = tmp_path / "imagefs.toml"
    path.write_text(f"[dav]\n{text}\n")
    found = load(path).section("dav")
    assert isinstance(found, DavSettings)
    return found


TLS = 'tls_certificate = "/c.pem"\ntls_key = "/k.pem"\n'


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("", ("127.0.0.1", 8080)),
        ('listen = "[::1]:0"\nanonymous = "write"', ("::1", 0)),
        ('listen = "localhost:80"\nanonymous = "write"', ("localhost", 80)),
        ('listen = "127.8.0.1:80"', ("127.8.0.1", 80)),
        ('listen = "0.0.0.0:443"\nanonymous = "read"\n' + TLS, ("0.0.0.0", 443)),
        ('listen = "[::]:80"\nallow_plain_http = true', ("::", 80)),
        ('listen = "images.example.net:443"\n' + TLS, ("images.example.net", 443)),
    ],
)
def test_where_it_may_listen(tmp_path: Path, text: str, address: tuple[str, int]) -> None:
    """On this host as one likes, elsewhere with TLS or the operator's word."""
    assert dav_section(tmp_path, text).address == address


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('listen = "0.0.0.0:80"', "dav: on 0.0.0.0:80 passwords would cross the network"),
        ('listen = "[::]:80"', "dav: on [::]:80 passwords would cross the network"),
        ('listen = "localhost.example:80"', "dav: on localhost.example:80 passwords"),
        ('listen = "0.0.0.0:80"\nanonymous = "write"\n' + TLS, 'dav: anonymous = "write" needs'),
        ('tls_key = "/k.pem"', "dav: tls_certificate and tls_key should be set together"),
        ('tls_key = "k.pem"', "dav.tls_key: should be an absolute path"),
        ('listen = "8080"', "dav.listen: should be HOST:PORT"),
        ('listen = "::1:8080"', "dav.listen: should be HOST:PORT"),
        ('listen = "127.0.0.1:65536"', "dav.listen: should be HOST:PORT"),
        ('trusted_proxies = ["proxy"]', "dav.trusted_proxies.0: "),
        ('trusted_proxies = ["10.0.0.1/8"]', "dav.trusted_proxies.0: "),
        ('anonymous = "all"', "dav.anonymous: should be 'none', 'read' or 'write'"),
    ],
)
def test_what_is_not_safe_is_refused(tmp_path: Path, text: str, line: str) -> None:
    """In one line, before anything is served."""
    with pytest.raises(InvalidSettings) as caught:
        dav_section(tmp_path, text)
    assert str(caught.value).partition(": ")[2].startswith(line)
