"""Where a url leads: redirects, refused addresses, names."""

from __future__ import annotations

import pytest

from catalog.errors import Forbidden, InvalidValue, StoreUnavailable
from catalog.stores.http.settings import HttpStoreSettings
from catalog.stores.http.store import HttpStore
from tests.kit.stores.contract import DATA, read_all
from tests.servers.programs import free_ports
from tests.servers.scripted import WebServer, respond, scripted


def test_redirect_is_followed(store: HttpStore, web: WebServer) -> None:
    """The object is the one where redirects lead."""
    (web.root / "a").write_bytes(DATA)
    assert read_all(store, f"{web.url}/moved/moved/a") == DATA


def test_endless_redirects(store: HttpStore) -> None:
    """A server that always redirects is given up."""
    with (
        scripted(lambda handler: respond(handler, 302, {"Location": "/again"})) as server,
        pytest.raises(StoreUnavailable, match="redirects more than 5 times"),
    ):
        store.stat(server.url)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "2130706433", "0"])
def test_this_host_is_refused(web: WebServer, host: str) -> None:
    """Without the settings' permission no request reaches loopback, whatever its name."""
    port = web.url.rpartition(":")[2]
    store = HttpStore("web", HttpStoreSettings())
    with pytest.raises(Forbidden, match="allow_hosts"):
        store.open(f"http://{host}:{port}/a")


@pytest.mark.parametrize("host", ["127.0.0.2", "localhost", "169.254.169.254", "[::1]"])
def test_redirect_is_filtered(host: str) -> None:
    """A permitted server cannot send us to one that is not."""
    with scripted(lambda handler: respond(handler, 302, {"Location": f"http://{host}/"})) as server:
        allowed = f"127.0.0.1:{server.server_port}"
        store = HttpStore("web", HttpStoreSettings(allow_hosts=(allowed,)))
        with pytest.raises(Forbidden):
            store.open(server.url)
        store.close()


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://a/b", "http://u:p@127.0.0.1/"])
def test_redirect_to_no_http_url(store: HttpStore, target: str) -> None:
    """A redirect leads to http URLs without credentials, or nowhere."""
    with (
        scripted(lambda handler: respond(handler, 301, {"Location": target})) as server,
        pytest.raises(InvalidValue),
    ):
        store.open(server.url)


def test_name_is_resolved_once_per_connection(web: WebServer) -> None:
    """The address that was checked is connected to; a name that changes is checked again."""
    (web.root / "a").write_bytes(DATA)
    answers = [["127.0.0.1"], ["127.0.0.2"]]
    settings = HttpStoreSettings(allow_hosts=("127.0.0.1",))
    store = HttpStore("web", settings, look_up=lambda _host, _port: answers.pop(0))
    url = f"http://rebound.test:{web.url.rpartition(':')[2]}/a"
    assert read_all(store, url) == DATA
    assert answers == [["127.0.0.2"]]
    store.close()
    with pytest.raises(Forbidden, match=r"127\.0\.0\.2"):
        store.open(url)


def test_checked_address_is_connected_to(web: WebServer) -> None:
    """Not the name, which the system may resolve to another server, is connected to."""
    settings = HttpStoreSettings(allow_hosts=("127.0.0.9",))
    store = HttpStore("web", settings, look_up=lambda _host, _port: ["127.0.0.9"])
    with pytest.raises(StoreUnavailable, match="refused"):
        store.open(f"http://localhost:{web.url.rpartition(':')[2]}/a")


def test_next_address_is_tried(web: WebServer) -> None:
    """A name of several addresses is reached at the one that answers."""
    (web.root / "a").write_bytes(DATA)
    settings = HttpStoreSettings(allow_hosts=("127.0.0.0/8",))
    store = HttpStore("web", settings, look_up=lambda _host, _port: ["127.0.0.9", "127.0.0.1"])
    assert read_all(store, f"http://many.test:{web.url.rpartition(':')[2]}/a") == DATA
    store.close()


def test_proxy_of_the_environment_is_not_used(
    store: HttpStore, web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy would connect for us, past the filter."""
    (web.root / "a").write_bytes(DATA)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_ports(1)[0]}")
    assert read_all(store, f"{web.url}/a") == DATA


@pytest.mark.parametrize(
    "url",
    [
        *("", "a", "/a", "ftp://a/b", "file:///etc/passwd"),
        *("http://", "http:///a", "http://a:x/b", "http://[::1/b", "http://a b/c"),
        *("http://user@a/b", "http://user:word@a/b", "http://:word@a/b"),
        *("http://user:word@a:x/b", "http://user:word@[::1/b", "ftp://user:word@a/b"),
        "http://a b/c?sig=word",
    ],
)
def test_no_url_of_this_store(store: HttpStore, url: str) -> None:
    """What is no http URL, or holds a credential, is a bad value; the credential is not told."""
    with pytest.raises(InvalidValue) as caught:
        store.open(url)
    assert "word" not in str(caught.value)


@pytest.mark.parametrize("url", ["sheepdog://10.0.0.1:7000:a", "gridfs://a"])
def test_location_glance_has_dropped(store: HttpStore, url: str) -> None:
    """One line says what became of it, and how to get the image out."""
    with pytest.raises(InvalidValue, match="then: imagefs add FILE"):
        store.open(url)
