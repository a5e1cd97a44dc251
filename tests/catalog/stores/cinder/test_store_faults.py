"""The cinder store when servers refuse, fail and hang, and when processes die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.errors import (
    Conflict,
    ImageTooLarge,
    NotFound,
    NotSupported,
    StoreBusy,
    StoreFull,
    StoreUnavailable,
)
from catalog.stores.base import DataWriter
from catalog.stores.cinder.store import CinderStore
from catalog.stores.cinder.volumes import GIB
from tests.kit.stores.cinder_project import cinder_store, settings
from tests.kit.stores.contract import DATA, put_by_writer, read_all
from tests.servers.ceph import paused
from tests.servers.cinder import Cinder
from tests.servers.network.breaking_proxy import Fault, Proxy, Request, always, first, proxy
from tests.servers.programs import free_ports

MIB = 1 << 20


@pytest.fixture
def store(cinder: Cinder, tmp_path: Path) -> Iterator[CinderStore]:
    """A store in an empty project."""
    with cinder_store(cinder, tmp_path) as store:
        yield store


@pytest.fixture
def between(cinder: Cinder) -> Iterator[Proxy]:
    """A proxy before Cinder's API."""
    with proxy(cinder.port) as running:
        yield running


@pytest.fixture
def behind(between: Proxy, cinder: Cinder, tmp_path: Path) -> Iterator[CinderStore]:
    """A store that reaches the API through the proxy."""
    url = f"{between.url}/v3/{cinder.project_id}"
    with cinder_store(cinder, tmp_path, api_url=url) as store:
        yield store


def _put(store: CinderStore, key: str = "a") -> str:
    return put_by_writer(store)(key, DATA)


# Who we are


def test_token_is_renewed(behind: CinderStore, between: Proxy) -> None:
    """One that Cinder no longer takes costs one more request."""
    url = _put(behind)
    between.plan = first(1, Fault(asked={"x-auth-token": "expired"}))
    assert read_all(behind, url) == DATA
    assert behind.stat(url).size == len(DATA)


def test_token_that_is_never_taken(behind: CinderStore, between: Proxy) -> None:
    """Is no missing image, and asks for no third token."""
    asked = []

    def plan(request: Request) -> Fault:
        asked.append(request.target)
        return Fault(asked={"x-auth-token": "expired"})

    url = _put(behind)
    between.plan = plan
    with pytest.raises(StoreUnavailable, match="Cinder forbids it to this user"):
        behind.stat(url)
    assert len(asked) == 2


def test_wrong_key(cinder: Cinder, tmp_path: Path) -> None:
    """Is told, and not shown."""
    with cinder_store(cinder, tmp_path) as store:
        (tmp_path / "key").write_text("wrong-word")
        with pytest.raises(StoreUnavailable, match="refuses the user or the key") as caught:
            store.check()
    assert "wrong-word" not in str(caught.value)


def test_application_credential(cinder: Cinder, tmp_path: Path) -> None:
    """Its id and its secret are enough."""
    number, secret = cinder.identity.application_credential()
    mine = settings(cinder, tmp_path, user=None, project=None, application_credential=number)
    (tmp_path / "key").write_text(secret)
    store = CinderStore("block", mine)
    store.check()
    store.close()


# The API fails

GONE = b'{"itemNotFound": {"code": 404, "message": "Volume 1 could not be found."}}'
"""Of a listing: of the volume at which the last page ended."""


@pytest.mark.parametrize(
    ("fault", "error", "text"),
    [
        (Fault(status=500, body=b"oops"), StoreUnavailable, "answered 500"),
        (Fault(status=503, headers={"Retry-After": "7"}), StoreBusy, "answered 503"),
        (Fault(status=404, body=b"<html>no such page"), StoreUnavailable, "answered 404"),
        (Fault(status=404, body=GONE), StoreUnavailable, "Volume 1 could not be found"),
        (Fault(cut=-1), StoreUnavailable, "block: "),
        (Fault(cut=5), StoreUnavailable, "block: "),
        (Fault(status=200, body=b"<html>"), StoreUnavailable, "cannot be read"),
        (Fault(status=200, body=b"[1]"), StoreUnavailable, "cannot be read"),
        (Fault(status=200, body=b'{"volumes": [{"id": 1}]}'), StoreUnavailable, "cannot be read"),
    ],
)
def test_failing_api(
    behind: CinderStore, between: Proxy, fault: Fault, error: type[Exception], text: str
) -> None:
    """Whatever it answers, no image is missing."""
    between.plan = always(fault)
    url = behind.url_of("a")
    with pytest.raises(error, match=text) as caught:
        behind.stat(url)
    assert getattr(caught.value, "retry_after", 7) == 7
    for work in (behind.open, behind.delete, behind.writer):
        with pytest.raises(StoreUnavailable):
            work(url)


def test_api_is_away(cinder: Cinder, tmp_path: Path) -> None:
    """Nobody listens: unavailable at once."""
    url = f"http://127.0.0.1:{free_ports(1)[0]}/v3/{cinder.project_id}"
    with cinder_store(cinder, tmp_path, api_url=url) as store:
        with pytest.raises(StoreUnavailable, match="refused"):
            store.check()
        with pytest.raises(StoreUnavailable):
            store.open(store.url_of("a"))


def test_url_without_the_project(cinder: Cinder, tmp_path: Path) -> None:
    """A setting that is wrong loses no image."""
    with (
        cinder_store(cinder, tmp_path, api_url=f"http://127.0.0.1:{cinder.port}/v3/x") as store,
        pytest.raises(StoreUnavailable),
    ):
        store.stat(store.url_of("a"))


def test_filter_that_is_ignored(behind: CinderStore, between: Proxy, cinder: Cinder) -> None:
    """A Cinder that lists all volumes, whatever it was asked for, shows no other image."""
    _put(behind, "a")
    cinder.make_volume(size=1)
    everything = json.dumps({"volumes": cinder.volumes()}).encode()

    def plan(request: Request) -> Fault | None:
        is_listing = request.target.partition("?")[0].endswith("/detail")
        return Fault(status=200, body=everything) if is_listing else None

    between.plan = plan
    assert list(behind.keys()) == ["a"]
    with pytest.raises(NotFound):
        behind.stat(behind.url_of("b"))
    behind.delete(behind.url_of("b"))
    assert len(cinder.volumes()) == 2


def test_pages_of_a_listing(store: CinderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is asked for."""
    monkeypatch.setattr("catalog.stores.cinder.volumes._PAGE", 2)
    for key in "abcde":
        _put(store, key)
    assert sorted(store.keys()) == list("abcde")


# Committing


def test_failed_commit_leaves_nothing(behind: CinderStore, between: Proxy, cinder: Cinder) -> None:
    """Neither an object nor a volume."""
    writer = behind.writer("a")
    writer.write(DATA)

    def plan(request: Request) -> Fault | None:
        return Fault(status=500) if request.target.endswith("/metadata") else None

    between.plan = plan
    with pytest.raises(StoreUnavailable):
        writer.commit()
    assert cinder.volumes() == []
    with pytest.raises(NotFound):
        behind.stat(behind.url_of("a"))


def test_commit_whose_answer_is_lost(behind: CinderStore, between: Proxy, cinder: Cinder) -> None:
    """It failed, so that there is no object, although Cinder has made one."""
    url = _put(behind)
    writer = behind.writer("a")
    writer.write(DATA[::-1])

    def plan(request: Request) -> Fault | None:
        return Fault(cut=-1) if request.target.endswith("/metadata") else None

    between.plan = plan
    with pytest.raises(StoreUnavailable):
        writer.commit()
    between.plan = lambda _request: None
    assert read_all(behind, url) == DATA
    assert len(cinder.volumes()) == 1


# Room


def test_quota_of_the_project(store: CinderStore, cinder: Cinder) -> None:
    """Used up, the store is full: for a new volume, for a clone, and for one that grows."""
    url = _put(store)
    with cinder.quota(gigabytes=cinder.used("gigabytes") + 1):
        with pytest.raises(StoreFull, match="quota"):
            store.writer("b", 2 * GIB)
        writer = store.writer("b")
        with pytest.raises(StoreFull, match="quota"):
            store.copy(url, "c")
        for _ in range(1024 // 8):
            writer.write(bytes(8 * MIB))
        with pytest.raises(StoreFull):
            _write_all(writer, b"x")
        writer.cancel()
    with cinder.quota(volumes=cinder.used("volumes")), pytest.raises(StoreFull):
        store.writer("b")
    assert list(store.keys()) == ["a"]
    assert len(cinder.volumes()) == 1


def _write_all(writer: DataWriter, data: bytes) -> None:
    writer.write(data)
    writer.commit()


def test_limit_of_one_volume(store: CinderStore, cinder: Cinder) -> None:
    """An image that no volume may be large enough for is too large."""
    with cinder.quota(per_volume_gigabytes=1), pytest.raises(ImageTooLarge):
        store.writer("a", GIB + 1)
    assert cinder.volumes() == []


# Volumes in trouble


def test_volume_in_error(store: CinderStore, cinder: Cinder) -> None:
    """Is unavailable, not missing; and can be deleted."""
    url = _put(store)
    (volume,) = cinder.volumes()
    cinder.act(volume["id"], "os-reset_status", status="error")
    for work in (store.open, store.stat):
        with pytest.raises(StoreUnavailable, match="the volume's state is error"):
            work(url)
    with pytest.raises(StoreUnavailable):
        store.copy(url, "b")
    store.delete(url)
    assert cinder.volumes() == []


def test_volume_that_cannot_be_made(cinder: Cinder, tmp_path: Path) -> None:
    """What Cinder says is passed on, and nothing stays."""
    kind = cinder.volume_type(volume_backend_name="elsewhere")
    with (
        cinder_store(cinder, tmp_path, volume_type=kind) as store,
        pytest.raises(StoreUnavailable, match=r"state is error: .*available weighted backend"),
    ):
        store.writer("a")
    assert cinder.volumes() == []


def test_leftover_that_was_never_made(store: CinderStore, cinder: Cinder) -> None:
    """A volume without a place, whose writer died, is told and goes with its key."""
    kind = cinder.volume_type(volume_backend_name="elsewhere")
    url = store.url_of("a")
    marks = {"imagefs_store": "block", "imagefs_object": url.rpartition("/")[2]}
    made = cinder.make_volume("error", size=1, volume_type=kind, metadata=marks)
    assert list(store.leftovers(0)) == [made]
    store.delete(url)
    assert cinder.volumes() == []


def test_unknown_volume_type(cinder: Cinder, tmp_path: Path) -> None:
    """Is told by its name, and is no missing image."""
    with (
        cinder_store(cinder, tmp_path, volume_type="gold") as store,
        pytest.raises(StoreUnavailable, match=r"Cinder makes no volume: .*gold"),
    ):
        store.writer("a")


ISCSI = {"driver_volume_type": "iscsi", "data": {"target_portal": "192.0.2.1:3260"}}


def test_volume_of_another_backend_is_not_written(
    behind: CinderStore, between: Proxy, cinder: Cinder
) -> None:
    """One line says so, before any data came, and the volume goes again."""
    told = {"attachment": {"id": str(uuid.uuid4()), "connection_info": ISCSI}}

    def plan(request: Request) -> Fault | None:
        is_attaching = request.method == "POST" and request.target.endswith("/attachments")
        return Fault(status=200, body=json.dumps(told).encode()) if is_attaching else None

    between.plan = plan
    with pytest.raises(NotSupported, match="is a volume of iscsi: only those of RBD"):
        behind.writer("a")
    assert cinder.volumes() == []


def test_volume_of_another_backend_is_not_read(
    behind: CinderStore, between: Proxy, cinder: Cinder
) -> None:
    """What Cinder has prepared for this host is taken back."""
    actions = []

    def plan(request: Request) -> Fault | None:
        if not request.target.endswith("/action"):
            return None
        actions.append(request)
        body = json.dumps({"connection_info": ISCSI}).encode()
        return Fault(status=200, body=body) if len(actions) == 1 else None

    made = cinder.make_volume(size=1)
    between.plan = plan
    with pytest.raises(NotSupported, match="is a volume of iscsi"):
        behind.open(f"cinder://{made}")
    assert len(actions) == 2


def test_volume_deleted_behind_our_back(store: CinderStore, cinder: Cinder) -> None:
    """By Cinder it is not found; by Ceph alone it is unavailable, as Cinder has it yet."""
    url = _put(store)
    (volume,) = cinder.volumes()
    cinder.ceph.run("rbd", "rm", f"volumes/volume-{volume['id']}", "--no-progress")
    with pytest.raises(StoreUnavailable, match="Ceph has no image"):
        store.open(url)
    cinder.act(volume["id"], "os-force_delete")
    cinder.gone(volume["id"])
    for work in (store.open, store.stat):
        with pytest.raises(NotFound):
            work(url)
    store.delete(url)


def test_volume_shorter_than_its_data(store: CinderStore, cinder: Cinder) -> None:
    """What is left is not passed off as the image."""
    url = _put(store)
    (volume,) = cinder.volumes()
    image = f"volumes/volume-{volume['id']}"
    cinder.ceph.run("rbd", "resize", image, "--size", "100K", "--allow-shrink", "--no-progress")
    with pytest.raises(StoreUnavailable, match="shorter than its data"):
        store.open(url)


# Servers that hang, and processes that die


def test_volume_service_hangs(store: CinderStore, cinder: Cinder, tmp_path: Path) -> None:
    """What needs it is given up after a while; what only asks the API is answered."""
    url = _put(store)
    with cinder_store(cinder, tmp_path, timeout=8, state_timeout=2) as hasty:
        hasty.check()
        with paused(*cinder.volume_pids()):
            with pytest.raises(StoreUnavailable, match="the volume is creating for 2 s"):
                hasty.writer("b")
            with pytest.raises(StoreUnavailable):
                hasty.open(url)
            assert hasty.stat(url).size == len(DATA)
        assert read_all(hasty, url) == DATA


WRITE = """
import os, sys
from catalog.stores.cinder.store import CinderStore
from catalog.stores.cinder.settings import CinderStoreSettings
store = CinderStore("block", CinderStoreSettings.model_validate_json(sys.argv[1]))
writer = store.writer("a", 100 << 20)
for _ in range(20):
    writer.write(os.urandom(1 << 20))
print("written", flush=True)
sys.stdin.read()
"""


def test_killed_writer_leaves_nothing_visible(
    store: CinderStore, cinder: Cinder, tmp_path: Path
) -> None:
    """Its volume, attached yet, is told as a leftover, and goes with a deletion of its key."""
    section = settings(cinder, tmp_path).model_dump_json(exclude_none=True)
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE, section],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    assert list(store.leftovers(0)) == []
    process.send_signal(signal.SIGKILL)
    process.communicate()
    url = store.url_of("a")
    assert list(store.keys()) == []
    with pytest.raises(NotFound):
        store.open(url)
    with pytest.raises(Conflict, match="in use"):
        store.delete(url)
    (volume,) = cinder.volumes()
    assert volume["status"] == "in-use"
    deadline = time.monotonic() + 30
    while list(store.leftovers(0)) != [volume["id"]]:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    store.delete(url)
    assert cinder.volumes() == []
