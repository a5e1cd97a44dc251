"""The rbd store against a real Ceph: the contract, Glance's layout, clones."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from catalog.errors import (
    Conflict,
    InvalidImage,
    InvalidName,
    InvalidSettings,
    InvalidValue,
    NotSupported,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
)
from catalog.stores.base import DataWriter, Usage
from catalog.stores.rbd import bindings
from catalog.stores.rbd.connection import RbdStoreSettings
from catalog.stores.rbd.location import RbdLocation
from catalog.stores.rbd.store import RbdStore
from catalog.stores.rbd.writer import format_of, nonzero_ranges
from tests.kit.stores.contract import (
    DATA,
    GrowingContract,
    Subject,
    WriteContract,
    put_by_writer,
    read_all,
)
from tests.kit.stores.rbd_pool import Pool
from tests.servers.ceph import Ceph
from tests.servers.glance_rbd import glance

MIB = 1 << 20


@pytest.fixture
def store(pool: Pool) -> Iterator[RbdStore]:
    """A store in an empty pool."""
    store = pool.store()
    yield store
    store.close()


class TestContract(WriteContract, GrowingContract):
    @pytest.fixture
    def subject(self, store: RbdStore) -> Subject:
        """An empty pool."""
        return Subject(store, put_by_writer(store), store.url_of("missing"))


# Locations


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("rbd://f/images/i/snap", RbdLocation("i", "snap", "images", "f")),
        ("rbd://f/a%2Fb/i%20j/s%40", RbdLocation("i j", "s@", "a/b", "f")),
        ("rbd://i", RbdLocation("i")),
        ("rbd://i%20j", RbdLocation("i%20j")),
    ],
)
def test_location_is_read_and_printed(url: str, location: RbdLocation) -> None:
    """Both forms, as glance_store has them: only the long one is percent-encoded."""
    assert RbdLocation.parse(url) == location
    assert str(location) == url


@pytest.mark.parametrize(
    "url",
    ["rbd://", "rbd:i", "file://i", "rbd://f/images/i", "rbd://f//i/snap", "rbd://f/p/i/s/", ""],
)
def test_no_location(url: str) -> None:
    """One part or four, none of them empty."""
    with pytest.raises(InvalidValue, match="rbd://"):
        RbdLocation.parse(url)


def test_url_of_another_cluster_or_pool(store: RbdStore, ceph: Ceph) -> None:
    """What is not in this pool is unavailable: nobody may take it for lost."""
    for url in (f"rbd://other/{ceph.pool}/a/snap", f"rbd://{ceph.fsid}/other/a/snap", "file:///a"):
        with pytest.raises(StoreUnavailable):
            store.open(url)
        with pytest.raises(StoreUnavailable):
            store.delete(url)


# The layout


def test_layout_is_glances(store: RbdStore, pool: Pool) -> None:
    """Called by its id, objects of 8 MiB, layering, a protected snapshot `snap`."""
    url = pool.put("3e2f8c8e-9b4c-4f3e-8d55-0f0f3f1f2a11", DATA)
    assert url == f"rbd://{pool.ceph.fsid}/images/3e2f8c8e-9b4c-4f3e-8d55-0f0f3f1f2a11/snap"
    (name,) = pool.names()
    info = pool.rbd_json("info", name)
    assert (info["size"], info["order"], info["features"]) == (len(DATA), 23, ["layering"])
    (snapshot,) = pool.rbd_json("snap", "ls", name)
    assert (snapshot["name"], snapshot["protected"]) == ("snap", "true")


def test_clone_keeps_an_image_from_being_deleted(
    store: RbdStore, pool: Pool, tmp_path: Path
) -> None:
    """As Nova and Cinder do: `rbd clone`.  A refused deletion leaves the image whole."""
    url = pool.put("a", DATA)
    pool.rbd("clone", "images/a@snap", "images/volume")
    assert pool.export("volume", tmp_path) == DATA
    with pytest.raises(Conflict, match="has 1 clone: images/volume"):
        store.delete(url)
    assert read_all(store, url) == DATA
    pool.rbd("rm", "images/volume")
    store.delete(url)
    assert pool.names() == []


def test_other_snapshots_keep_an_image_from_being_deleted(store: RbdStore, pool: Pool) -> None:
    """Somebody's backup is in use as well."""
    url = pool.put("a", DATA)
    pool.rbd("snap", "create", "images/a@backup")
    with pytest.raises(Conflict, match="has the snapshots backup"):
        store.delete(url)
    assert read_all(store, url) == DATA


def test_open_image_is_not_deleted(store: RbdStore, pool: Pool) -> None:
    """Neither by another host nor by Ceph's own tools; its reader sees its bytes."""
    url = pool.put("a", DATA)
    reader = store.open(url)
    other = pool.store()
    with pytest.raises(Conflict, match=r"1 have it open, on 127\.0\.0\.1"):
        other.delete(url)
    assert not pool.try_rbd("rm", "images/a")
    assert reader.read_at(0, len(DATA)) == DATA
    assert read_all(other, url) == DATA
    reader.close()
    other.delete(url)
    other.close()
    assert pool.names() == []


def test_replaced_image_goes_when_its_reader_has(store: RbdStore, pool: Pool) -> None:
    """Until then it has another name, and deletion must wait, lest it come back."""
    url = pool.put("a", DATA)
    reader = store.open(url)
    pool.put("a", DATA[::-1])
    assert len(pool.names()) == 2
    with pytest.raises(Conflict):
        store.delete(url)
    assert read_all(store, url) == DATA[::-1]
    assert reader.read_at(0, len(DATA)) == DATA
    reader.close()
    assert list(store.leftovers(0)) == [name for name in pool.names() if name != "a"]
    store.delete(url)
    assert pool.names() == []


def test_zeros_take_no_room(store: RbdStore, pool: Pool, tmp_path: Path) -> None:
    """Neither zeros that are written nor the holes of a staged file."""
    data = bytes(20 * MIB) + b"x" * 100_000 + bytes(30 * MIB + 17)
    staged = tmp_path / "staged"
    with staged.open("wb") as file:
        file.seek(20 * MIB)
        file.write(b"x" * 100_000)
        file.truncate(len(data))
    writer = store.writer("b")
    writer.take(staged)
    assert read_all(store, writer.commit()) == data
    assert read_all(store, pool.put("a", data)) == data
    store.copy(store.url_of("a"), "c")
    assert [pool.used(name) for name in "abc"] == [1, 1, 1]


def test_nonzero_ranges() -> None:
    """Grains of 64 KiB, joined; also a shorter one at the end."""
    grain = 1 << 16
    one, none = b"\0" * 100 + b"x" + b"\0" * (grain - 101), bytes(grain)
    assert list(nonzero_ranges(b"")) == []
    assert list(nonzero_ranges(none + none)) == []
    assert list(nonzero_ranges(none + one + one + none + b"x")) == [
        (grain, 3 * grain),
        (4 * grain, 4 * grain + 1),
    ]
    assert list(nonzero_ranges(one + bytes(5))) == [(0, grain)]


@pytest.mark.parametrize("announced", [None, 5, 40 * MIB])
def test_size_need_not_be_known(store: RbdStore, announced: int | None) -> None:
    """An image is as long as what was written, whatever was announced."""
    data = random.Random(1).randbytes(19 * MIB + 5)
    writer = store.writer("a", announced)
    for offset in range(0, len(data), 1_000_001):
        writer.write(data[offset : offset + 1_000_001])
    url = writer.commit()
    assert store.stat(url).size == len(data)
    assert read_all(store, url) == data


def test_ended_writer_takes_nothing(store: RbdStore, pool: Pool) -> None:
    """After `cancel` there is no way to publish what was written."""
    writer = store.writer("a")
    writer.write(DATA)
    writer.cancel()
    writer.write(DATA)
    with pytest.raises(StoreUnavailable, match="has ended"):
        writer.commit()
    assert pool.names() == []


@pytest.mark.parametrize("key", ["", "a/b", "a@b", "imagefs.a", "ä", "a" * 61])
def test_key_that_is_no_name(store: RbdStore, key: str) -> None:
    """A key must be a name of RBD's, and none of our own."""
    with pytest.raises(InvalidName):
        store.writer(key)


# Formats


def test_only_raw_images_unless_told(pool: Pool, tmp_path: Path) -> None:
    """A qcow2 in RBD cannot be cloned: one line says what to do."""
    image = tmp_path / "a.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "10M"], check=True)
    strict, lenient = pool.store(), pool.store(raw_only=False)
    for feed in ("take", "write"):
        writer = strict.writer("a")
        with pytest.raises(InvalidImage, match="is qcow2, and the store ceph takes raw images"):
            writer.take(image) if feed == "take" else _write_all(writer, image.read_bytes())
        writer.cancel()
    assert pool.names() == []
    writer = lenient.writer("a")
    writer.take(image)
    assert read_all(lenient, writer.commit()) == image.read_bytes()
    strict.close()
    lenient.close()


def _write_all(writer: DataWriter, data: bytes) -> None:
    writer.write(data)
    writer.commit()


@pytest.mark.parametrize("name", "qcow2 qed vmdk vhdx vpc vdi raw".split())
def test_format_is_told_by_its_first_bytes(name: str, tmp_path: Path) -> None:
    """As qemu-img writes them."""
    image = tmp_path / "image"
    subprocess.run(["qemu-img", "create", "-q", "-f", name, image, "10M"], check=True)
    assert format_of(image.read_bytes()[:4096]) == name


# A pool that is shared with Glance


@pytest.mark.parametrize("thin", [False, True])
@pytest.mark.parametrize("known", [True, False])
def test_reads_what_glance_stored(store: RbdStore, pool: Pool, thin: bool, known: bool) -> None:
    """Byte for byte, by the location that Glance keeps; and deletes it."""
    data = DATA + bytes(9 * MIB) + DATA
    size = str(len(data) if known else 0)
    url = glance(pool.ceph, "add", "of-glance", size, data=data, thin=thin).decode().strip()
    assert url == store.url_of("of-glance")
    assert read_all(store, url) == data
    assert read_all(store, "rbd://of-glance") == data
    assert store.stat(url).size == len(data)
    assert list(store.keys()) == ["of-glance"]
    with pytest.raises(NotSupported, match="was not stored by imagefs"):
        store.quarantine("of-glance")
    store.delete(url)
    assert pool.names() == []


def test_glance_reads_what_we_stored(pool: Pool, store: RbdStore) -> None:
    """And deletes it."""
    url = pool.put("ours", DATA)
    assert glance(pool.ceph, "get", url) == DATA
    glance(pool.ceph, "delete", url)
    assert pool.names() == []


def test_quarantine_keeps_the_bytes(store: RbdStore, pool: Pool) -> None:
    """A quarantined image can be opened by the url that was told, and is no leftover."""
    pool.put("a", DATA)
    assert read_all(store, store.quarantine("a")) == DATA
    assert list(store.leftovers(0)) == list(store.keys()) == []


# Room


def test_full_pool(store: RbdStore, pool: Pool) -> None:
    """A pool past its quota takes no more, and what is in it can be deleted."""
    # RBD makes an object for its trash at the first removal, which would fail later.
    store.delete(pool.put("a", b""))
    url = pool.put("a", os.urandom(12 * MIB))
    pool.ceph.run("ceph", "osd", "pool", "set-quota", "images", "max_bytes", str(8 * MIB))
    try:
        _wait_until(lambda: "full_quota" in pool.ceph.run("ceph", "osd", "pool", "ls", "detail"))
        with pytest.raises(StoreFull):
            pool.put("b", os.urandom(12 * MIB))
        store.delete(url)
        assert list(store.keys()) == []
    finally:
        pool.ceph.run("ceph", "osd", "pool", "set-quota", "images", "max_bytes", "0")
        _wait_until(lambda: "full" not in pool.ceph.run("ceph", "osd", "pool", "ls", "detail"))


def test_usage_is_of_the_pool(store: RbdStore) -> None:
    """As soon as the manager has counted; nothing is known before."""
    _wait_until(lambda: store.usage() != Usage(None, None))
    usage = store.usage()
    assert 3 << 30 < (usage.free or 0) <= (usage.total or 0) <= 4 << 30


def _wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.2)


# What is missing


def test_missing_configuration(ceph: Ceph, tmp_path: Path) -> None:
    """No file, no pool, no such user: one line each."""
    for error, match, settings in (
        (InvalidSettings, "cannot read", {"conf": tmp_path / "none"}),
        (StoreRefused, "no pool 'other'", {"pool": "other"}),
        (StoreUnavailable, "error connecting", {"user": "nobody"}),
    ):
        store = Pool(ceph).store(**settings)
        with pytest.raises(error, match=match) as caught:
            store.check()
        assert "\n" not in str(caught.value)
        store.close()


def test_key_by_reference(ceph: Ceph, tmp_path: Path) -> None:
    """The key itself may come from a file; a wrong one is refused, and not shown."""
    secret = tmp_path / "key"
    secret.touch(mode=0o600)
    right = ceph.run("ceph", "auth", "get-key", f"client.{ceph.user}")
    wrong = ceph.run("ceph", "auth", "get-key", "client.admin")
    empty = tmp_path / "keyring"
    empty.touch()
    for key in (right, wrong):
        secret.write_text(key)
        store = Pool(ceph).store(keyring=empty, key={"file": secret})
        if key == right:
            store.check()
        else:
            with pytest.raises(StoreUnavailable) as caught:
                store.check()
            assert wrong not in str(caught.value)
        store.close()


def test_user_without_capabilities(ceph: Ceph) -> None:
    """What the user needs is said."""
    ceph.run("ceph", "auth", "get-or-create", "client.poor", "mon", "allow r")
    (ceph.folder / "poor").write_text(ceph.run("ceph", "auth", "get", "client.poor"))
    store = Pool(ceph).store(user="poor", keyring=ceph.folder / "poor")
    with pytest.raises(StoreUnavailable, match="needs the capabilities 'profile rbd'"):
        list(store.keys())
    store.close()


def test_bindings_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says what to install."""
    monkeypatch.setattr(bindings, "_SYSTEM", [])
    for name in ("rados", "rbd"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    store = RbdStore("ceph", RbdStoreSettings(pool="images", conf=Path("/dev/null")))
    with pytest.raises(InvalidSettings, match="apt install python3-rbd"):
        store.check()


def test_bindings_bring_nothing_else_of_the_system(store: RbdStore) -> None:
    """Two modules are loaded from the system's folder, which is not on the path."""
    store.check()
    assert not [path for path in sys.path if "dist-packages" in path]


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"pool": ""},
        {"pool": "a/b"},
        {"pool": "a", "conf": "ceph.conf"},
        {"pool": "a", "timeout": 0},
        {"pool": "a", "key": "secret"},
    ],
)
def test_bad_setting(bad: dict[str, object]) -> None:
    """A setting that cannot work is refused when it is read."""
    with pytest.raises(ValidationError):
        RbdStoreSettings.model_validate(bad)
