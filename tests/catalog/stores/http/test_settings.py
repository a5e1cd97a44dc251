"""Who the http store says it is, and to whom: `[stores.NAME.servers]`, on nginx."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from catalog.errors import CatalogError, StoreRefused, StoreUnavailable
from catalog.stores.http.settings import HttpStoreSettings
from catalog.stores.http.store import HttpStore
from tests.kit.stores.contract import DATA, read_all
from tests.servers.nginx import PASSWORD, TOKEN, USER, WebServer, nginx
from tests.servers.scripted import asked_range, respond, scripted

LOOPBACK = ("127.0.0.1",)


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    """One nginx for all tests of this file."""
    with nginx(tmp_path_factory.mktemp("nginx")) as server:
        (server.root / "a").write_bytes(DATA)
        yield server


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """What may be said of a server."""
    monkeypatch.setenv("PASSWORD", PASSWORD)
    monkeypatch.setenv("TOKEN", TOKEN)
    return {
        "basic": {"user": USER, "password": {"env": "PASSWORD"}},
        "bearer": {"token": {"env": "TOKEN"}},
    }


def store_with(servers: dict[str, dict[str, Any]], web: WebServer | None = None) -> HttpStore:
    """A store that finds every name on this host, and trusts nginx's authority."""
    table = {
        "allow_hosts": LOOPBACK,
        "servers": servers,
        "ca_bundle": str(web.authority) if web else None,
    }
    settings = HttpStoreSettings.model_validate(table)
    return HttpStore("web", settings, look_up=lambda _host, _port: ["127.0.0.1"])


@pytest.mark.parametrize("kind", ["basic", "bearer"])
def test_server_that_asks_who_we_are(
    web: WebServer, secrets: dict[str, dict[str, Any]], kind: str
) -> None:
    """With its credential it is read, without it refuses; over HTTP and HTTPS."""
    for url in (web.url, web.tls_url):
        store = store_with({url: secrets[kind]}, web)
        assert read_all(store, f"{url}/{kind}/a") == DATA
        store.close()
        stranger = store_with({}, web)
        with pytest.raises(StoreUnavailable, match="answered 401"):
            stranger.open(f"{url}/{kind}/a")
        stranger.close()


def test_server_is_a_scheme_a_host_and_a_port(
    web: WebServer, secrets: dict[str, dict[str, Any]]
) -> None:
    """Letters' case and a final dot make no other server; scheme and port do."""
    store = store_with({web.tls_url.upper().replace("HTTPS:", "https:"): secrets["bearer"]}, web)
    assert read_all(store, f"{web.tls_url}/bearer/a") == DATA
    for url in (web.url, web.url.replace("127.0.0.1", "images.test")):
        with pytest.raises(StoreUnavailable, match="answered 401"):
            store.open(f"{url}/bearer/a")
    store.close()


def test_redirect_takes_no_credential_along(secrets: dict[str, dict[str, Any]]) -> None:
    """Each server is told its own credential, and no other server is."""
    seen: dict[str, list[str | None]] = {"first": [], "second": []}

    def part(handler: BaseHTTPRequestHandler) -> None:
        seen["second"].append(handler.headers["Authorization"])
        begin, last = asked_range(handler)
        content_range = f"bytes {begin}-{last}/{len(DATA)}"
        respond(
            handler, 206, {"Content-Range": content_range, "ETag": '"1"'}, DATA[begin : last + 1]
        )

    with scripted(part) as second:

        def redirect(handler: BaseHTTPRequestHandler) -> None:
            seen["first"].append(handler.headers["Authorization"])
            respond(handler, 302, {"Location": second.url})

        with scripted(redirect) as first:
            store = store_with({first.url.removesuffix("/image"): secrets["bearer"]})
            assert read_all(store, first.url) == DATA
            store.close()
    assert seen == {"first": [f"Bearer {TOKEN}"], "second": [None, None]}


def test_changed_secret_is_used_at_once(web: WebServer, tmp_path: Path) -> None:
    """A reader that is open goes on with the new token."""
    token = tmp_path / "token"
    token.touch(0o600)
    token.write_text(TOKEN)
    store = store_with({web.url: {"token": {"file": str(token)}}})
    reader = store.open(f"{web.url}/bearer/a")
    token.write_text("expired")
    with pytest.raises(StoreUnavailable, match="answered 401"):
        reader.read_at(0, 10)
    token.write_text(TOKEN)
    assert reader.read_at(0, 10) == DATA[:10]
    store.close()


@pytest.mark.parametrize("secret", ["", "two words", "schlüssel", "a\nb"])
def test_no_error_shows_a_secret(
    web: WebServer, monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    """A secret that cannot be sent is named by where it is."""
    monkeypatch.setenv("TOKEN", secret)
    store = store_with({web.url: {"token": {"env": "TOKEN"}}})
    with pytest.raises(StoreUnavailable, match=r"^\$TOKEN: ") as caught:
        store.open(f"{web.url}/bearer/a")
    assert not secret or secret not in str(caught.value)


def test_signature_in_a_url_is_not_shown() -> None:
    """Neither of the URL registered nor of one it redirects to."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.path.startswith("/image"):
            respond(handler, 302, {"Location": "/signed?sig=S3cret"})
        else:
            respond(handler, 500, {})

    with scripted(answer) as server:
        store = store_with({})
        for url in (server.url, f"{server.url}?sig=S3cret", f"{server.url}/x?sig=S3cret#a"):
            with pytest.raises(StoreUnavailable) as caught:
                store.open(url)
            assert "S3cret" not in str(caught.value)
        store.close()


def test_client_certificate(web: WebServer) -> None:
    """A server that demands a certificate gets ours, if its settings say so."""
    certificate, key = map(str, web.certificate("client"))
    known = {"client_certificate": certificate, "client_key": key}
    store = store_with({web.tls_url: known}, web)
    assert read_all(store, f"{web.tls_url}/client/a") == DATA
    stranger = store_with({"https://other.test": known}, web)
    with pytest.raises(StoreRefused, match="answered 403"):
        stranger.open(f"{web.tls_url}/client/a")
    store.close()
    stranger.close()


def test_client_certificate_of_a_stranger(web: WebServer) -> None:
    """A certificate of an authority the server does not know opens nothing."""
    certificate, key = map(str, web.certificate("stranger"))
    stranger = {"client_certificate": certificate, "client_key": key}
    store = store_with({web.tls_url: stranger}, web)
    with pytest.raises(StoreUnavailable):
        store.open(f"{web.tls_url}/client/a")
    store.close()


def test_key_of_another_certificate(web: WebServer) -> None:
    """A key that does not fit is said to be that, in one line."""
    certificate, key = str(web.certificate("client")[0]), str(web.certificate("server")[1])
    store = store_with({web.tls_url: {"client_certificate": certificate, "client_key": key}}, web)
    with pytest.raises(StoreUnavailable, match="KEY_VALUES_MISMATCH") as caught:
        store.open(f"{web.tls_url}/client/a")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "servers",
    [
        {"images.test": {}},
        {"ftp://images.test": {}},
        {"https://": {}},
        {"https://user@images.test": {}},
        {"https://images.test/folder": {}},
        {"https://images.test:x": {}},
        {"https://images.test": {"user": "a"}},
        {"https://images.test": {"password": {"env": "A"}}},
        {"https://images.test": {"user": "a:b", "password": {"env": "A"}}},
        {"https://images.test": {"password": "hUnter"}},
        {"https://images.test": {"user": "a", "password": {"env": "A"}, "token": {"env": "A"}}},
        {"https://images.test": {"client_certificate": "/etc/hostname"}},
        {"https://images.test": {"client_key": "/etc/hostname"}},
        {"http://images.test": {"client_certificate": "/etc/fstab", "client_key": "/etc/fstab"}},
    ],
)
def test_bad_setting_of_a_server(servers: dict[str, Any]) -> None:
    """What cannot work, or would hold a secret itself, is refused when it is read."""
    with pytest.raises(ValidationError):
        HttpStoreSettings.model_validate({"servers": servers})


def test_settings_show_no_secret(secrets: dict[str, dict[str, Any]]) -> None:
    """They hold where a secret is, not what it is."""
    settings = HttpStoreSettings.model_validate({"servers": {"https://a": secrets["basic"]}})
    assert PASSWORD not in f"{settings!r} {settings.model_dump_json()}"


def test_no_url(web: WebServer) -> None:
    """What is no URL is refused before its server is looked for."""
    with pytest.raises(CatalogError):
        store_with({web.url: {}}).open("http://[::1/a")
