"""Whose objects the swift store finds, and by which tokens: locations, settings, Keystone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from pydantic import ValidationError

from catalog.errors import InvalidValue, StoreRefused, StoreUnavailable
from catalog.stores.swift.location import SwiftLocation
from catalog.stores.swift.store import SwiftStore
from tests.kit.stores.contract import DATA, put_by_writer, read_all
from tests.kit.stores.swift_account import container_of, settings, swift_store
from tests.servers.keystone import Keystone, keystone
from tests.servers.network.breaking_proxy import Fault, Proxy, Request
from tests.servers.swift import Swift, swift


@pytest.fixture
def store(swift_server: Swift, tmp_path: Path) -> Iterator[SwiftStore]:
    """A store of small segments."""
    with swift_store(swift_server, tmp_path) as store:
        yield store


# Locations


def test_locations_in_every_form_of_glance() -> None:
    """Each form of a URL is read, and printed as it was but for a credential."""
    forms = {
        "swift+config://ref1/glance/7f3a": ("swift+config", "ref1", None),
        "swift+https://h.test:8080/v1/AUTH_x/glance/7f3a": (
            "swift+https",
            "h.test:8080/v1/AUTH_x",
            None,
        ),
        "swift+http://service%3Aglance:p%40ss/w%3Aord@ks.test:5000/v3/glance/7f3a": (
            "swift+http",
            "ks.test:5000/v3",
            "service:glance",
        ),
        "swift://service:glance:secret@ks.test/v3/glance/7f3a": (
            "swift",
            "ks.test/v3",
            "service:glance",
        ),
    }
    for url, (scheme, address, user) in forms.items():
        location = SwiftLocation.parse(url)
        assert location == SwiftLocation(scheme, address, "glance", "7f3a", user)
        assert str(location) == f"{scheme}://{address}/glance/7f3a"
        assert user is not None or str(location) == url


@pytest.mark.parametrize(
    "url",
    [
        "s3://h/b/k",
        "swift://user:secret@http://h/c/o",
        "swift://user:secret@h/o",
        "swift://user:secret@/c/o",
        "swift+config://ref/o",
        "swift+http://h/c/",
        "swift",
    ],
)
def test_other_urls_are_refused_without_their_credential(url: str) -> None:
    """What is no URL of an object is said to be none, and no key is shown."""
    with pytest.raises(InvalidValue) as error:
        SwiftLocation.parse(url)
    assert "secret" not in str(error.value)


def test_own_objects_are_read_by_each_form(store: SwiftStore, swift_server: Swift) -> None:
    """An object is the same by reference, by storage URL, and by Glance's credentials."""
    name = f"{container_of(store)}/a"
    put_by_writer(store)("a", DATA)
    address = f"127.0.0.1:{swift_server.port}"
    for url in (
        f"swift+config://sw/{name}",
        f"swift+http://{address}/v1/AUTH_test/{name}",
        f"swift+http://test%3Atester:testing@{address}/auth/v1.0/{name}",
    ):
        assert read_all(store, url) == DATA


def test_objects_of_others_are_not_lost_but_elsewhere(
    store: SwiftStore, swift_server: Swift
) -> None:
    """A url of another account, server or scheme is StoreUnavailable, and shows no key."""
    address = f"127.0.0.1:{swift_server.port}"
    for url in (
        "swift+config://other/c/a",
        f"swift+http://{address}/v1/AUTH_other/c/a",
        f"swift+http://other%3Atester:hidden@{address}/auth/v1.0/c/a",
        "swift+http://test%3Atester:hidden@127.0.0.1:1/auth/v1.0/c/a",
        "file:///a",
    ):
        with pytest.raises(StoreUnavailable) as error:
            store.open(url)
        assert "hidden" not in str(error.value)


# Tokens


def authentications(between: Proxy) -> int:
    """How often a token was asked for."""
    return sum(request.target == "/auth/v1.0" for request in between.requests)


def test_many_readers_renew_an_expired_token_once(
    behind: SwiftStore, between: Proxy, swift_server: Swift
) -> None:
    """Sixteen threads go on reading; one of them authenticates."""
    reader = behind.open(put_by_writer(behind)("a", DATA))
    between.set_plan(lambda _: None)
    swift_server.expire_tokens()
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda at: reader.read_at(at, 5000), range(0, 160_000, 5000)))
    assert b"".join(found) == DATA[:160_000]
    assert authentications(between) == 1


def test_token_that_expires_in_the_middle_of_an_upload(
    behind: SwiftStore, swift_server: Swift
) -> None:
    """Segments the server refused are sent again with a new token."""
    writer = behind.writer("a")
    for at in range(0, len(DATA), 50_000):
        writer.write(DATA[at : at + 50_000])
        swift_server.expire_tokens()
    assert read_all(behind, writer.commit()) == DATA


def test_token_is_renewed_before_its_end(behind: SwiftStore, between: Proxy) -> None:
    """A token is used for nine tenths of the life the server gave it."""
    between.set_plan(lambda request: lived(request, "0.3"))
    behind._client._auth._session = None
    behind.check()
    time.sleep(0.3)
    behind.check()
    assert authentications(between) == 2


def lived(request: Request, seconds: str) -> Fault | None:
    """The plan that gives tokens a life."""
    is_login = request.target == "/auth/v1.0"
    return Fault(headers={"X-Auth-Token-Expires": seconds}) if is_login else None


def test_wrong_key_is_told_and_not_shown(swift_server: Swift, tmp_path: Path) -> None:
    """Neither the key nor a token is in the error, nor in what it came from."""
    (tmp_path / "wrong").write_text("hunter2")
    (tmp_path / "wrong").chmod(0o400)
    wrong = settings(swift_server, tmp_path, key={"file": str(tmp_path / "wrong")})
    store = SwiftStore("sw", wrong)
    with pytest.raises(StoreRefused, match="refuses the user or the key") as error:
        store.check()
    assert "hunter2" not in repr((error.value, error.value.__cause__, error.value.__context__))
    assert "hunter2" not in repr(wrong)
    store.close()


def test_server_that_refuses_new_tokens(behind: SwiftStore, between: Proxy) -> None:
    """401 to a token just given ends the request."""
    between.set_plan(lambda r: None if "/auth/" in r.target else Fault(status=401))
    with pytest.raises(StoreRefused, match="refuses a new token"):
        behind.check()
    assert len(between.requests) == 3


@pytest.mark.parametrize(
    "values",
    [
        {"auth_url": "http://swift.test/auth/v1.0"},
        {"auth_url": "https://user:key@swift.test/auth/v1.0"},
        {"user": None},
        {"application_credential": "x"},
        {"auth_version": 3},
        {"container": "a/b"},
        {"storage_url": "http://swift.test/v1/AUTH_x"},
        {"key": "testing"},
    ],
)
def test_settings_that_cannot_be(
    swift_server: Swift, tmp_path: Path, values: dict[str, object]
) -> None:
    """What would not work, or not privately, is refused when the settings are read."""
    with pytest.raises(ValidationError):
        settings(swift_server, tmp_path, **values)


# Keystone


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keystone]:
    """A Keystone."""
    with keystone(tmp_path_factory.mktemp("keystone")) as running:
        yield running


@pytest.fixture(scope="module")
def tenants(identity: Keystone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swift]:
    """A Swift that asks Keystone who is who, and is in its catalog."""
    with swift(tmp_path_factory.mktemp("swift"), *identity.swift_filters()) as server:
        identity.add_swift(server.url)
        yield server


def by_keystone(
    identity: Keystone, tenants: Swift, folder: Path, **values: object
) -> AbstractContextManager[SwiftStore]:
    """A store of Keystone's user."""
    (folder / "password").write_text(identity.key)
    (folder / "password").chmod(0o400)
    given: dict[str, object] = {
        "auth_url": identity.auth_url,
        "auth_version": 3,
        "user": identity.user,
        "project": identity.project,
        "key": {"file": str(folder / "password")},
    }
    return swift_store(tenants, folder, **given | values)


def test_password_of_keystone(identity: Keystone, tenants: Swift, tmp_path: Path) -> None:
    """A user of a project stores and reads segments; each way to write the URL is the same."""
    for auth_url in (
        identity.auth_url,
        identity.auth_url.removesuffix("/v3"),
        identity.auth_url + "/",
    ):
        with by_keystone(identity, tenants, tmp_path, auth_url=auth_url, region="R1") as store:
            assert read_all(store, put_by_writer(store)("a", DATA)) == DATA


def test_application_credential(identity: Keystone, tenants: Swift, tmp_path: Path) -> None:
    """It needs neither a user's name nor a project's."""
    name, secret = identity.application_credential()
    (tmp_path / "secret").write_text(secret)
    (tmp_path / "secret").chmod(0o400)
    values = {"user": None, "project": None, "application_credential": name}
    key = {"file": str(tmp_path / "secret")}
    with by_keystone(identity, tenants, tmp_path, key=key, **values) as store:
        assert read_all(store, put_by_writer(store)("a", DATA)) == DATA


def test_location_of_a_project(identity: Keystone, tenants: Swift, tmp_path: Path) -> None:
    """Glance's locations of this project are read, those of another are not."""
    with by_keystone(identity, tenants, tmp_path) as store:
        put_by_writer(store)("a", DATA)
        rest = f"127.0.0.1:{identity.port}/v3/{container_of(store)}/a"
        assert read_all(store, f"swift+http://admin%3Aadmin:x@{rest}") == DATA
        with pytest.raises(StoreUnavailable, match="another account"):
            store.open(f"swift+http://other%3Aadmin:x@{rest}")


def test_revoked_token_of_keystone(identity: Keystone, tenants: Swift, tmp_path: Path) -> None:
    """A reader whose token was revoked goes on with a new one."""
    with by_keystone(identity, tenants, tmp_path) as store:
        reader = store.open(put_by_writer(store)("a", DATA))
        before = store._client._auth.session()
        identity.revoke(before.token)
        tenants.expire_tokens()
        assert reader.read_at(1000, 100) == DATA[1000:1100]
        assert store._client._auth.session() is not before


def test_what_keystone_does_not_know(identity: Keystone, tenants: Swift, tmp_path: Path) -> None:
    """A wrong password and a region without Swift are told as such."""
    wrong = {"env": "SWIFT_PASSWORD_OF_NOBODY"}
    for values, told in (
        ({"region": "R2"}, "no public object-store in region R2"),
        ({"interface": "internal"}, "no internal object-store"),
        ({"project": "nowhere"}, "refuses the user or the key"),
        ({"key": wrong}, "SWIFT_PASSWORD_OF_NOBODY"),
    ):
        with (
            pytest.raises(StoreRefused, match=told),
            by_keystone(identity, tenants, tmp_path, **values),
        ):
            pass
