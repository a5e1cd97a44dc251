"""The vmware store against the contract on vcsim, and against faults in between."""

from __future__ import annotations

import itertools
import re
import sys
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from catalog.errors import (
    DataChanged,
    InvalidName,
    InvalidSettings,
    NotFound,
    StoreRefused,
    StoreUnavailable,
)
from catalog.stores.vmware.location import VmwareLocation
from catalog.stores.vmware.settings import VmwareStoreSettings
from catalog.stores.vmware.store import VmwareStore
from tests.kit.stores.contract import DATA, Subject, WriteContract, put_by_writer, read_all
from tests.servers.certificates import make_certificates
from tests.servers.network.breaking_proxy import Fault, Proxy, always, first, proxy
from tests.servers.vcsim import DATACENTER, DATASTORE, PASSWORD, USER, vcsim

pytestmark = pytest.mark.server

FOLDERS = itertools.count()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The servers' files, with certificates."""
    folder = tmp_path_factory.mktemp("vcsim")
    make_certificates(folder)
    return folder


@pytest.fixture(scope="module")
def between(folder: Path) -> Iterator[Proxy]:
    """A TLS proxy in front of a vcsim."""
    certificate = (folder / "server.pem", folder / "server.key")
    with vcsim(folder) as port, proxy(port, certificate) as between:
        yield between


@pytest.fixture
def settings(between: Proxy, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A section for a folder of its own."""
    monkeypatch.setenv("VMWARE_PASSWORD", PASSWORD)
    return {
        "server": between.url,
        "user": USER,
        "password": {"env": "VMWARE_PASSWORD"},
        "datacenter": DATACENTER,
        "datastore": DATASTORE,
        "folder": f"images of/test {next(FOLDERS)}",
        "ca_bundle": str(folder / "authority.pem"),
        "timeout": 5,
    }


def store_of(settings: dict[str, Any]) -> VmwareStore:
    """A store without policy."""
    return VmwareStore("vmware", VmwareStoreSettings.model_validate(settings))


@pytest.fixture
def store(settings: dict[str, Any], between: Proxy) -> Iterator[VmwareStore]:
    """A store of that folder."""
    store = store_of(settings)
    store.initialize()
    store.initialize()
    yield store
    between.set_plan(lambda _request: None)
    store.close()


class TestContract(WriteContract):
    @pytest.fixture
    def subject(self, store: VmwareStore) -> Subject:
        """An empty folder."""
        return Subject(store, put_by_writer(store), store.url_of("missing"))


def put(store: VmwareStore, key: str = "a", data: bytes = DATA) -> str:
    """An object that can be opened without waiting."""
    url = put_by_writer(store)(key, data)
    store.stat(url)
    return url


def test_url_is_as_glance_writes_it(store: VmwareStore, settings: dict[str, Any]) -> None:
    """It holds no credential, and parses back."""
    location = VmwareLocation.parse(store.url_of("a"))
    assert location.path == f"{settings['folder']}/a"
    assert (location.datastore, location.datacenter) == (DATASTORE, DATACENTER)
    assert USER not in store.url_of("a")


def test_object_of_a_glance_is_read(settings: dict[str, Any], store: VmwareStore) -> None:
    """A location in another folder of the same datastore is read as it is."""
    url = put(store)
    other = store_of(settings | {"folder": "elsewhere"})
    assert read_all(other, url) == DATA
    assert list(other.keys()) == []
    other.close()


def test_who_we_are_is_told_at_each_request(store: VmwareStore, between: Proxy) -> None:
    """By Basic authentication over TLS."""
    url = put(store)
    between.set_plan(lambda _request: None)
    read_all(store, url)
    wanted = b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    told = {request.headers["authorization"] for request in between.requests}
    assert told == {f"Basic {wanted}"}


def test_wrong_password(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's refusal is told, the password is not."""
    monkeypatch.setenv("VMWARE_PASSWORD", "hUnter2")
    store = store_of(settings)
    with pytest.raises(StoreRefused, match="refuses the user's name or password") as caught:
        store.check()
    assert "hUnter2" not in repr(caught.value)


def test_library_is_missing(store: VmwareStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says what to install."""
    monkeypatch.setitem(sys.modules, "pyVmomi", None)
    with pytest.raises(InvalidSettings, match=r"pip install 'imagefs\[vmware\]'"):
        store.check()


@pytest.mark.parametrize("which", ["datastore", "datacenter"])
def test_nothing_is_lost_because_of_the_settings(settings: dict[str, Any], which: str) -> None:
    """Where the datastore is not there, no object is reported missing."""
    store = store_of(settings | {which: "other"})
    for attempt in (store.check, lambda: store.stat(store.url_of("a"))):
        with pytest.raises(StoreUnavailable, match=f"no {which} other"):
            attempt()
    store.close()


def test_url_of_another_store_is_unavailable(store: VmwareStore) -> None:
    """It can only mean that the settings were changed."""
    for url in ("file:///a", store.url_of("a").replace(DATASTORE, "other")):
        with pytest.raises(StoreUnavailable):
            store.open(url)


def test_session_that_ended_is_begun_anew(store: VmwareStore) -> None:
    """A server forgets who logged in."""
    store.check()
    session = store._files._session
    session.content.sessionManager.Logout()
    store.check()
    assert store._files._session is not session


@pytest.mark.parametrize("known", [True, False])
def test_upload_that_is_cut_off(store: VmwareStore, between: Proxy, known: bool) -> None:
    """Nothing of it becomes visible, whether the server notices or not."""
    between.set_plan(first(1, Fault(cut_request=100_000), "PUT"))
    writer = store.writer("a", len(DATA) if known else None)
    with pytest.raises(StoreUnavailable):  # noqa: PT012  sooner or later
        for start in range(0, len(DATA), 10_000):
            writer.write(DATA[start : start + 10_000])
        writer.commit()
    writer.cancel()
    assert list(store.keys()) == []
    assert list(store.leftovers(-60)) == []


def test_upload_shorter_than_announced(store: VmwareStore) -> None:
    """The server waits for the rest in vain."""
    writer = store.writer("a", len(DATA) + 1)
    writer.write(DATA)
    writer._upload._connection.timeout = 0.5
    assert writer._upload._connection.sock is not None
    writer._upload._connection.sock.settimeout(0.5)
    with pytest.raises(StoreUnavailable):
        writer.commit()
    assert list(store.keys()) == []


def test_refused_upload(store: VmwareStore, between: Proxy) -> None:
    """Why the server refuses is told."""
    between.set_plan(always(Fault(status=403), "PUT"))
    writer = store.writer("a", 4)
    writer.write(b"data")
    with pytest.raises(StoreUnavailable, match="answered 403"):
        writer.commit()


_SOAP_FAULT = """<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"
 xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body><soapenv:Fault>
<faultcode>ServerFaultCode</faultcode><faultstring>said by the server</faultstring>
<detail><{0}Fault xmlns="urn:vim25" xsi:type="{0}"/></detail>
</soapenv:Fault></soapenv:Body></soapenv:Envelope>"""


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("NoPermission", "the server forbids it to this user"),
        ("CannotDeleteFile", "the server refuses it: said by the server"),
        ("RestrictedVersion", "the server refuses it: said by the server"),
    ],
)
def test_refused_deletion(store: VmwareStore, between: Proxy, fault: str, told: str) -> None:
    """It is told as that and not as an outage, and the file stays."""
    url = put(store)
    body = _SOAP_FAULT.format(fault).encode()
    between.set_plan(
        always(Fault(status=500, body=body, headers={"Content-Type": "text/xml"}), "POST")
    )
    with pytest.raises(StoreRefused, match=told):
        store.delete(url)
    between.set_plan(lambda _request: None)
    assert read_all(store, url) == DATA


def test_dead_writer_leaves_what_can_be_found(store: VmwareStore) -> None:
    """Its unfinished file is no object, is listed for fsck, and goes with its key."""
    for key in ("a", "b"):
        writer = store.writer(key, len(DATA))
        writer.write(DATA)
        writer._upload.end()
        writer._upload.close()  # The process dies.
    assert list(store.keys()) == []
    assert list(store.leftovers(60)) == []
    left = list(store.leftovers(-60))
    assert sorted(re.sub(r"[0-9a-f]{16}", "X", name)[-8:] for name in left) == [
        "a.X.part",
        "b.X.part",
    ]
    store.delete(store.url_of("a"))
    (name,) = store.leftovers(-60)
    store.drop_leftover(name)
    store.drop_leftover(name)
    assert list(store.leftovers(-60)) == []


FAULTS = {
    "cut off": Fault(cut=500),
    "another range": Fault(asked={"range": "bytes=1001-3000"}),
    "the whole file": Fault(asked={"range": ""}),
    "silence": Fault(stall=500),
    "500": Fault(status=500),
    "401": Fault(status=401),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_an_error_and_the_next_read_is_right(
    settings: dict[str, Any], between: Proxy, name: str
) -> None:
    """No other byte is ever taken for the object's."""
    store = store_of(settings | {"timeout": 0.5})
    reader = store.open(put(store))
    between.set_plan(first(1, FAULTS[name]))
    with pytest.raises(StoreUnavailable):
        reader.read_at(1000, 2000)
    assert reader.read_at(1000, 2000) == DATA[1000:3000]
    between.set_plan(lambda _request: None)
    store.close()


def test_missing_after_it_was_opened(store: VmwareStore) -> None:
    """What was deleted meanwhile is not found."""
    url = put(store)
    reader = store.open(url)
    store.delete(url)
    with pytest.raises((NotFound, DataChanged)):
        reader.read_at(0, 10)


@pytest.mark.parametrize("key", ["", ".a", "a/b", "a]b", "a*", "a.part", "a" * 201, "a\nb"])
def test_key_stays_in_the_folder(store: VmwareStore, key: str) -> None:
    """A key that means something else to the server is refused."""
    with pytest.raises(InvalidName):
        store.url_of(key)


@pytest.mark.parametrize(
    "bad",
    [
        {"server": "http://vc.example.net"},
        {"server": "vc.example.net"},
        {"server": "https://user:word@vc.example.net"},
        {"password": "word"},
        {"folder": "/a"},
        {"folder": "a/"},
        {"folder": "[a]"},
        {"datastore": ""},
        {"ca_bundle": "/nowhere"},
    ],
)
def test_bad_setting(settings: dict[str, Any], bad: dict[str, Any]) -> None:
    """What cannot work, or would hold a secret itself, is refused when it is read."""
    with pytest.raises(ValidationError):
        VmwareStoreSettings.model_validate(settings | bad)
