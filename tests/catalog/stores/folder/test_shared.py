"""The filesystem store on a server that hangs."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from pydantic import ValidationError

from catalog.errors import StoreUnavailable
from catalog.stores.base import Capability, Store
from catalog.stores.folder.shared import SharedStore
from catalog.stores.folder.store import FilesystemStore, FilesystemStoreSettings
from catalog.stores.folder.time_limits import TimeLimits
from catalog.stores.registry import open_store
from tests.kit.stores.contract import DATA, Subject, WriteContract, put_by_writer, read_all
from tests.servers.network.hanging_mount import HangingMount, hanging_mount

THREADS = 4


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[HangingMount]:
    """A folder of a server, initialized as the store `nfs`."""
    with hanging_mount(tmp_path) as folder:
        FilesystemStore("nfs", FilesystemStoreSettings(path=folder.path)).initialize()
        yield folder


def folder_store(shared: HangingMount, seconds: float = 0.2) -> SharedStore:
    """A store of it, without policy."""
    driver = FilesystemStore("nfs", FilesystemStoreSettings(path=shared.path))
    return SharedStore(driver, TimeLimits("nfs", seconds, THREADS))


@pytest.fixture
def store(shared: HangingMount) -> Iterator[SharedStore]:
    """A store of it that soon loses patience."""
    store = folder_store(shared)
    yield store
    shared.resume()
    eventually(lambda: not threads_of("nfs-io"))
    store.close()


def threads_of(name: str) -> list[threading.Thread]:
    """The threads of a store that are there now."""
    return [thread for thread in threading.enumerate() if thread.name == name]


def eventually(is_so: Callable[[], bool]) -> None:
    """Wait until something is so."""
    while not is_so():
        time.sleep(0.01)


def put_behind(shared: HangingMount, key: str, data: bytes = DATA) -> str:
    """An object this host has cached nothing of; its url."""
    (shared.behind / key).write_bytes(data)
    return f"file://{shared.path}/{key}"


def open_files(shared: HangingMount) -> list[str]:
    """What this process has open in the folder."""
    links = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:  # listdir's own
            continue
    return [link for link in links if link.startswith(str(shared.path))]


class TestContract(WriteContract):
    @pytest.fixture
    def subject(self, shared: HangingMount) -> Iterator[Subject]:
        """An empty folder, with all its policy."""
        settings = FilesystemStoreSettings(path=shared.path, io_timeout=60)
        store = open_store("nfs", settings)
        store.initialize()
        yield Subject(store, put_by_writer(store), f"file://{shared.path}/missing")
        store.close()


USES: dict[str, Callable[[Store, str], object]] = {
    "check": lambda store, _url: store.check(),
    "open": lambda store, url: store.open(url),
    "stat": lambda store, url: store.stat(url),
    "writer": lambda store, _url: store.writer("b"),
    "delete": lambda store, url: store.delete(url),
    "copy": lambda store, url: store.copy(url, "b"),
    "usage": lambda store, _url: store.usage(),
    "keys": lambda store, _url: list(store.keys()),
    "quarantine": lambda store, _url: store.quarantine("a"),
}
"""All that needs the server."""


@pytest.mark.parametrize("use", USES)
def test_nobody_waits_for_a_server_that_hangs(
    store: SharedStore, shared: HangingMount, use: str
) -> None:
    """Each use fails in bounded time, and leaves nothing open when the server is back."""
    url = put_behind(shared, "a")
    shared.hang()
    with pytest.raises(StoreUnavailable, match="does not answer within"):
        USES[use](store, url)
    shared.resume()
    eventually(lambda: not threads_of("nfs-io"))
    eventually(lambda: not open_files(shared))
    store.check()


def test_read_that_hangs(store: SharedStore, shared: HangingMount) -> None:
    """The reader goes on reading when the server is back; closed meanwhile, its file is closed."""
    reader, closed = (store.open(put_behind(shared, key)) for key in ("a", "b"))
    shared.hang()
    for hung in (reader, closed):
        with pytest.raises(StoreUnavailable):
            hung.read_at(0, 1000)
    closed.close()
    closed.close()
    assert len(open_files(shared)) == 2
    shared.resume()
    assert reader.read_at(0, len(DATA)) == DATA
    eventually(lambda: len(open_files(shared)) == 1)
    reader.close()
    eventually(lambda: not open_files(shared))


@pytest.mark.parametrize("step", ["write", "take", "commit"])
def test_upload_that_hangs(
    store: SharedStore, shared: HangingMount, tmp_path: Path, step: str
) -> None:
    """It fails and stays so; when the server is back nothing of it is left."""
    staged = tmp_path / "staged"
    staged.write_bytes(DATA)
    writer = store.writer("a")
    steps: dict[str, Callable[[], object]] = {
        "write": lambda: writer.write(DATA * 100),
        "take": lambda: writer.take(staged),
        "commit": writer.commit,
    }
    if step == "commit":
        writer.write(DATA)
    shared.hang()
    # Written data may wait in this host's memory: it is the flush that then hangs.
    with suppress(StoreUnavailable):
        steps[step]()
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            writer.commit()
    writer.cancel()
    shared.resume()
    eventually(lambda: not threads_of("nfs-io"))
    assert list(store.keys()) == []
    assert list((shared.behind / ".staging").iterdir()) == []


def test_only_so_many_threads_hang(store: SharedStore, shared: HangingMount) -> None:
    """Past the limit a call fails at once; the server back, all is as before."""
    url = put_behind(shared, "a")
    shared.hang()
    for _ in range(THREADS):
        with pytest.raises(StoreUnavailable, match="does not answer"):
            store.stat(url)
    for _ in range(50):
        with pytest.raises(StoreUnavailable, match=f"{THREADS} calls hang"):
            store.stat(url)
    assert len(threads_of("nfs-io")) == THREADS
    shared.resume()
    eventually(lambda: not threads_of("nfs-io"))
    assert read_all(store, url) == DATA


def test_server_that_hangs_costs_one_time_out(shared: HangingMount) -> None:
    """With its policy, all further requests fail at once until the server is back."""
    url = put_behind(shared, "a")
    settings = {"path": str(shared.path), "io_timeout": 0.2, "policy": {"pause": 0.1}}
    store = open_store("nfs", FilesystemStoreSettings.model_validate(settings))
    shared.hang()
    for _ in range(100):
        with pytest.raises(StoreUnavailable):
            store.open(url)
    assert len(threads_of("nfs-io")) < 10
    shared.resume()

    def is_back() -> bool:
        try:
            return read_all(store, url) == DATA
        except StoreUnavailable:
            return False

    eventually(is_back)
    store.close()


def test_nothing_is_read_past_the_time_out(store: SharedStore, shared: HangingMount) -> None:
    """There is neither a descriptor to read from directly, nor a folder to stage in."""
    reader = store.open(put_behind(shared, "a"))
    assert reader.fileno() is None
    assert Capability.STAGING not in store.capabilities
    reader.close()


def test_local_folder_is_as_it_was(tmp_path: Path) -> None:
    """Without `io_timeout` the store is the plain one."""
    store = open_store("file", FilesystemStoreSettings(path=tmp_path))
    assert type(store) is FilesystemStore


@pytest.mark.parametrize("bad", [{"io_timeout": 0}, {"policy": {"weight": 1}}])
def test_bad_setting(tmp_path: Path, bad: dict[str, object]) -> None:
    """No time at all is no time-out; a local folder has no policy."""
    with pytest.raises(ValidationError):
        FilesystemStoreSettings.model_validate({"path": str(tmp_path), **bad})


def test_failure_is_raised_where_it_is_waited_for() -> None:
    """What a call raises is its caller's, of whatever kind."""
    patience = TimeLimits("nfs", 60, 1)
    for error in (ValueError("a"), KeyboardInterrupt()):

        def fail(error: BaseException = error) -> None:
            raise error

        with pytest.raises(type(error)):
            patience.run(fail)
    assert patience.run(lambda: 5) == 5


def test_late_result_is_told_to_whom_it_concerns() -> None:
    """Also when it is a failure, and whatever `late` makes of it."""
    patience = TimeLimits("nfs", 0.01, 2)
    go = threading.Event()
    told: list[object] = []

    def fail() -> int:
        go.wait()
        raise OSError

    def late(result: int | None) -> None:
        told.append(result)
        raise OSError

    for work in (lambda: 5 if go.wait() else 0, fail):
        with pytest.raises(StoreUnavailable):
            patience.run(work, on_abandon=lambda: told.append("left"), on_late_result=late)
    assert told == ["left", "left"]
    go.set()
    eventually(lambda: len(told) == 4)
    assert set(told) == {"left", 5, None}
    assert patience.run(lambda: 6) == 6
