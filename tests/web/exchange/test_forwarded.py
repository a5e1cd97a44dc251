"""What is believed of a request that a proxy has passed on, and what is not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.dav.server import Served, serving
from web.exchange.environ import PEER, Environ
from web.exchange.forwarded import Client, Forwarding, Proxies, host_name
from web.settings import DavSettings

PROXY, OTHER_PROXY, CLIENT, STRANGER = "192.0.2.1", "198.51.100.7", "203.0.113.9", "203.0.113.66"


def proxies(*networks: str) -> Proxies:
    """Proxies as the configuration names them."""
    return Proxies(DavSettings.model_validate({"trusted_proxies": networks}).trusted_proxies)


def environ(peer: str, **forwarded: str) -> Environ:
    """A request that came over a connection from `peer`."""
    return {
        "REMOTE_ADDR": peer,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "8080",
        "HTTP_HOST": "inner:8080",
        "wsgi.url_scheme": "http",
        **{f"HTTP_X_FORWARDED_{name.upper()}": value for name, value in forwarded.items()},
    }


@pytest.mark.parametrize(
    ("peer", "sent", "address"),
    [
        (PROXY, CLIENT, CLIENT),
        (PROXY, f"{STRANGER}, {CLIENT}", CLIENT),
        (PROXY, f"{CLIENT}, {OTHER_PROXY}", CLIENT),
        (PROXY, f"{STRANGER}, {CLIENT}, {OTHER_PROXY}", CLIENT),
        (PROXY, f"{CLIENT}:4711", CLIENT),
        (PROXY, "[2001:db8::5]:4711", "2001:db8::5"),
        (PROXY, f"::ffff:{CLIENT}", CLIENT),
        (f"::ffff:{PROXY}", CLIENT, CLIENT),
        (PROXY, "", PROXY),
        (PROXY, "unknown", PROXY),
        (PROXY, f"{CLIENT}, nonsense", PROXY),
        (PROXY, f"{OTHER_PROXY}", OTHER_PROXY),
        (CLIENT, STRANGER, CLIENT),
        (CLIENT, PROXY, CLIENT),
    ],
)
def test_the_address_of_the_client(peer: str, sent: str, address: str) -> None:
    """It is the last one that no proxy of ours has; what a stranger puts before it is nothing."""
    trusted = proxies(f"{PROXY}/32", "198.51.100.0/24")
    assert trusted.client(environ(peer, **({"for": sent} if sent else {}))).address == address


def test_nobody_is_trusted_unless_named() -> None:
    """Without `trusted_proxies` whatever is sent is a stranger's word."""
    sent = {"for": STRANGER, "proto": "https", "host": "evil.test"}
    for peer in ("127.0.0.1", "::1", CLIENT):
        client = proxies().client(environ(peer, **sent))
        assert client == Client(peer, "http", "inner:8080", None)


def test_scheme_and_host_of_a_trusted_proxy() -> None:
    """They are those of the client's request."""
    sent = {"for": CLIENT, "proto": "https", "host": "images.test"}
    client = proxies(PROXY).client(environ(PROXY, **sent))
    assert client == Client(CLIENT, "https", "images.test", "images.test")


def test_scheme_and_host_behind_two_proxies() -> None:
    """What the outer one says counts, not what its client said before it nor the inner name."""
    sent = {
        "for": f"{STRANGER}, {CLIENT}, {OTHER_PROXY}",
        "proto": "gopher, https, http",
        "host": "evil.test, images.test, middle:81",
    }
    client = proxies(PROXY, OTHER_PROXY).client(environ(PROXY, **sent))
    assert client == Client(CLIENT, "https", "images.test", "images.test")


def test_a_scheme_that_is_none() -> None:
    """What is neither http nor https is not taken."""
    assert proxies(PROXY).client(environ(PROXY, proto="javascript")).scheme == "http"


def test_a_client_beside_the_proxy_says_the_host_itself() -> None:
    """Where proxies are named, who is none of them is no proxy."""
    assert proxies(PROXY).client(environ(CLIENT)).public_host == "inner:8080"


@pytest.mark.parametrize(
    ("authority", "name"),
    [
        ("Images.Test", "images.test"),
        ("images.test.:443", "images.test"),
        ("[2001:DB8::1]:8443", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("192.0.2.1:80", "192.0.2.1"),
    ],
)
def test_host_name(authority: str, name: str) -> None:
    """Neither the port nor the case makes another host."""
    assert host_name(authority) == name


@pytest.mark.parametrize("peer", [PROXY, CLIENT])
def test_the_application_sees_no_forwarded_header(peer: str) -> None:
    """Whoever reads one later would believe a stranger."""
    seen: list[Environ] = []

    def app(environ: Environ, _start: Any) -> list[bytes]:
        seen.append(environ)
        return []

    sent = {"for": CLIENT, "proto": "https", "host": "images.test"}
    Forwarding(app, proxies(PROXY))(environ(peer, **sent), lambda *_: None)
    assert not [name for name in seen[0] if name.startswith("HTTP_X_FORWARDED")]
    assert (seen[0][PEER], seen[0]["REMOTE_ADDR"]) == (peer, CLIENT)


# -- where a Destination leads -----------------------------------------------------------


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that knows of no proxy."""
    with serving(tmp_path_factory.mktemp("plain")) as running:
        yield running


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that believes this host's proxy."""
    with serving(tmp_path_factory.mktemp("behind"), trusted_proxies=("127.0.0.1",)) as running:
        yield running


@pytest.mark.parametrize("method", ["MOVE", "COPY"])
@pytest.mark.parametrize(
    "destination",
    [
        "https://images.example/file/b",
        "https://images.example:8443/file/b",
        "HTTP://IMAGES.EXAMPLE/file/b",
        "//images.example/file/b",
        "http://images.example//file//b",
        "/file/b",
    ],
)
@pytest.mark.parametrize(
    "headers",
    [(), ("X-Forwarded-Proto: https", "X-Forwarded-Host: evil.test")],
)
def test_the_path_of_a_destination_decides(
    plain: Served, method: str, destination: str, headers: tuple[str, ...]
) -> None:
    """Behind a proxy that does TLS scheme, host and port are not ours, and it need not say so."""
    image = plain.add("/file/a")
    asked = plain.ask(f"{method} /file/a", f"Destination: {destination}", *headers)
    assert asked.status == 201
    assert plain.image("/file/b").os_hash_value == image.os_hash_value
    for name in ("a", "b"):
        plain.ask(f"DELETE /file/{name}")


@pytest.mark.parametrize("method", ["MOVE", "COPY"])
def test_another_server_is_refused_where_ours_is_known(behind: Served, method: str) -> None:
    """The proxy has said what the client calls us: then another name is another server."""
    behind.add("/file/a")
    host = "X-Forwarded-Host: images.example"
    refused = behind.ask(f"{method} /file/a", host, "Destination: https://other.example/file/b")
    assert refused.status == 502
    assert "other.example is another server than images.example" in refused.body.decode()
    asked = behind.ask(f"{method} /file/a", host, "Destination: https://images.example:444/file/b")
    assert asked.status == 201
    for name in ("a", "b"):
        behind.ask(f"DELETE /file/{name}")


def test_a_trusted_proxy_that_names_no_host(behind: Served) -> None:
    """What is not told cannot be compared: the path decides."""
    behind.add("/file/a")
    asked = behind.ask("MOVE /file/a", "Destination: https://images.example/file/b")
    assert asked.status == 201
