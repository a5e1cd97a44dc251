"""The cinder store against a real Cinder over Ceph: the contract, the layout, use by others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from catalog.errors import Conflict, InvalidName, NotFound, NotSupported, StoreUnavailable
from catalog.model.access import ADMIN
from catalog.model.image import Visibility
from catalog.service.bootstrap import make_catalog
from catalog.settings import CatalogSettings, Settings
from catalog.stores.base import Usage
from catalog.stores.cinder.places import CinderPlace
from catalog.stores.cinder.settings import CinderStoreSettings
from catalog.stores.cinder.store import CinderStore
from catalog.stores.cinder.volumes import GIB, gigabytes_for
from catalog.tree.adopt import Adoption, Terms
from catalog.tree.vfs import Vfs
from catalog.upkeep.fsck import fsck
from tests.kit.catalog import read
from tests.kit.stores.cinder_project import cinder_store, settings
from tests.kit.stores.contract import DATA, Subject, WriteContract, put_by_writer, read_all
from tests.servers.cinder import Cinder

IMAGE = "3e2f8c8e-9b4c-4f3e-8d55-0f0f3f1f2a11"
MIB = 1 << 20


@pytest.fixture
def store(cinder: Cinder, tmp_path: Path) -> Iterator[CinderStore]:
    """A store in an empty project."""
    with cinder_store(cinder, tmp_path) as store:
        yield store


class TestContract(WriteContract):
    @pytest.fixture
    def subject(self, store: CinderStore) -> Subject:
        """An empty project."""
        return Subject(store, put_by_writer(store), store.url_of("missing"))


# Volumes as Glance makes them


def test_volume_is_laid_out_as_glances(store: CinderStore, cinder: Cinder) -> None:
    """Named by the image, whole GiB, the true size beside it, and read-only."""
    assert put_by_writer(store)(IMAGE, DATA) == f"cinder://block/{IMAGE}"
    (volume,) = cinder.volumes()
    assert (volume["name"], volume["size"], volume["status"]) == (f"image-{IMAGE}", 1, "available")
    assert volume["metadata"] == {
        "glance_image_id": IMAGE,
        "image_size": str(len(DATA)),
        "imagefs_store": "block",
        "imagefs_object": IMAGE,
        "imagefs_commit": "1",
        "readonly": "True",
    }
    assert store.stat(store.url_of(IMAGE)).size == len(DATA)


@pytest.mark.parametrize(
    ("size", "gigabytes"), [(0, 1), (1, 1), (GIB, 1), (GIB + 1, 2), (10 * GIB, 10)]
)
def test_size_is_rounded_up(size: int, gigabytes: int) -> None:
    """To GiB, and there is no empty volume."""
    assert gigabytes_for(size) == gigabytes


def test_volume_grows_with_what_is_written(store: CinderStore, cinder: Cinder) -> None:
    """An image of unknown size is as long as what was written."""
    writer = store.writer("a")
    writer.write(DATA)
    for _ in range(1024):
        writer.write(bytes(MIB))
    writer.write(b"end")
    reader = store.open(writer.commit())
    assert reader.size == len(DATA) + GIB + 3
    assert reader.read_at(0, len(DATA)) == DATA
    assert reader.read_at(len(DATA) + GIB - 5, 100) == bytes(5) + b"end"
    reader.close()
    assert [volume["size"] for volume in cinder.volumes()] == [2]


def test_volume_of_a_glance_is_read_and_deleted(store: CinderStore, cinder: Cinder) -> None:
    """By the volume's id, with and without the store's name; it is no key of ours."""
    put_by_writer(store)("a", DATA)
    (ours,) = cinder.volumes()
    asked = {"name": "image-g", "size": 1, "source_volid": ours["id"]}
    marks = {"glance_image_id": "g", "image_size": "5000"}
    made = cinder.make_volume(**asked, metadata=marks)
    for url in (f"cinder://{made}", f"cinder://block/{made}"):
        assert read_all(store, url) == DATA[:5000]
        assert store.stat(url).size == 5000
    assert list(store.keys()) == ["a"]
    assert list(store.leftovers(0)) == []
    store.delete(f"cinder://{made}")
    assert [volume["id"] for volume in cinder.volumes()] == [ours["id"]]


def test_only_objects_of_ours_are_adopted(
    store: CinderStore, cinder: Cinder, tmp_path: Path
) -> None:
    """Of a lost catalog; never a guest's disk, which a volume's own id leads to as well."""
    put_by_writer(store)(IMAGE, DATA)
    disk = cinder.make_volume(size=1)
    assert store.stat(store.url_of(disk)).size == GIB
    catalog = CatalogSettings(
        url=f"sqlite:///{tmp_path / 'catalog.db'}",
        staging=tmp_path / "staging",
        default_store="block",
    )
    vfs = Vfs(make_catalog(Settings("test", catalog, {"block": settings(cinder, tmp_path)})))
    adoption = Adoption(vfs, "block", Terms(Visibility.PRIVATE, protected=False), ADMIN)
    assert list(adoption.unknown()) == [IMAGE]
    with pytest.raises(NotFound, match="has no complete object"):
        adoption.adopt(disk, "disk")
    adoption.adopt(IMAGE, "image")
    assert read(vfs, "/block/image") == DATA
    assert list(fsck(vfs.catalog, repair=False)) == []
    vfs.close()


def test_volume_without_a_mark_is_read_whole(store: CinderStore, cinder: Cinder) -> None:
    """As glance_store does: all of the volume."""
    made = cinder.make_volume(size=1)
    assert store.stat(f"cinder://{made}").size == GIB


def test_url_of_another_store(store: CinderStore) -> None:
    """What is not of this store is unavailable: nobody may take it for lost."""
    for url in (f"cinder://other/{IMAGE}", "rbd://a", "cinder://block/a"):
        with pytest.raises(StoreUnavailable):
            store.open(url)
        with pytest.raises(StoreUnavailable):
            store.delete(url)


def test_stores_of_one_project_do_not_meet(
    store: CinderStore, cinder: Cinder, tmp_path: Path
) -> None:
    """Each has its own volume of an image, and lists its own."""
    with cinder_store(cinder, tmp_path, reference="fast") as other:
        here, there = (put_by_writer(each)(IMAGE, DATA) for each in (store, other))
        other.delete(there)
        assert (list(store.keys()), list(other.keys())) == ([IMAGE], [])
        assert read_all(store, here) == DATA


@pytest.mark.parametrize("key", ["", "a\nb", "a" * 201])
def test_key_that_is_no_name(store: CinderStore, key: str) -> None:
    """A key must fit into a volume's name."""
    with pytest.raises(InvalidName):
        store.writer(key)


# Use by others


def test_attached_volume_is_not_deleted(store: CinderStore, cinder: Cinder) -> None:
    """A server has it: the image stays whole, and can be read meanwhile."""
    url = put_by_writer(store)("a", DATA)
    (volume,) = cinder.volumes()
    attachment = cinder.attach(volume["id"], host="compute-1")
    with pytest.raises(Conflict, match="in use: it is attached"):
        store.delete(url)
    assert read_all(store, url) == DATA
    cinder.detach(attachment)
    store.delete(url)
    assert cinder.volumes() == []


def test_open_volume_is_not_deleted(store: CinderStore, cinder: Cinder, tmp_path: Path) -> None:
    """Neither by another host nor by Cinder itself; its reader sees its bytes."""
    url = put_by_writer(store)("a", DATA)
    reader = store.open(url)
    with cinder_store(cinder, tmp_path) as other:
        with pytest.raises(Conflict, match=r"in use: 1 have it open, on 127\.0\.0\.1"):
            other.delete(url)
        (volume,) = cinder.volumes()
        cinder.ask("DELETE", f"/volumes/{volume['id']}")
        assert cinder.settled(volume["id"]) == "available"
        assert reader.read_at(0, len(DATA)) == DATA
        reader.close()
        other.delete(url)
    assert cinder.volumes() == []


def test_replaced_volume_goes_when_its_reader_has(store: CinderStore, cinder: Cinder) -> None:
    """Until then it is a leftover, which does not stand in for the object."""
    put = put_by_writer(store)
    url = put("a", DATA)
    (old,) = cinder.volumes()
    reader = store.open(url)
    assert put("a", DATA[::-1]) == url
    assert len(cinder.volumes()) == 2
    assert reader.read_at(0, len(DATA)) == DATA
    assert list(store.leftovers(0)) == []
    with pytest.raises(Conflict):
        store.delete(url)
    assert read_all(store, url) == DATA[::-1]
    reader.close()
    assert list(store.leftovers(3600)) == []
    assert list(store.leftovers(0)) == [old["id"]]
    store.drop_leftover(old["id"])
    store.drop_leftover(old["id"])
    assert read_all(store, url) == DATA[::-1]
    (new,) = cinder.volumes()
    with pytest.raises(Conflict, match="no leftover"):
        store.drop_leftover(new["id"])


def test_clone_is_cinders(store: CinderStore, cinder: Cinder) -> None:
    """A copy shares the data of its source in Ceph, and takes no more of it."""
    url = put_by_writer(store)("a", DATA)
    (source,) = cinder.volumes()
    assert read_all(store, store.copy(url, "b")) == DATA
    (copied,) = (each for each in cinder.volumes() if each["id"] != source["id"])
    assert copied["source_volid"] == source["id"]
    assert (copied["metadata"]["image_size"], copied["metadata"]["glance_image_id"]) == (
        str(len(DATA)),
        "b",
    )


def test_quarantine_keeps_the_bytes(store: CinderStore) -> None:
    """A quarantined volume can be opened by the url that was told, and is no leftover."""
    put_by_writer(store)("a", DATA)
    url, _, name = store.quarantine("a").partition(" ")
    assert name == "(image-a)"
    assert read_all(store, url) == DATA
    assert list(store.leftovers(0)) == list(store.keys()) == []


def test_usage_is_the_projects_quota(store: CinderStore, cinder: Cinder) -> None:
    """In whole GiB of volumes; nothing is known without a quota."""
    put_by_writer(store)("a", DATA)
    # Cinder counts a deleted volume a while longer.
    with cinder.quota(gigabytes=cinder.used("gigabytes") + 7):
        usage = store.usage()
    assert (usage.total or 0) >= 8 * GIB
    assert 0 < (usage.free or 0) < (usage.total or 0)
    with cinder.quota(gigabytes=-1):
        assert store.usage() == Usage(None, None)


# What Cinder tells of a volume

RBD = {
    "driver_volume_type": "rbd",
    "data": {
        "name": "volumes/volume-1",
        "hosts": ["127.0.0.1"],
        "auth_username": "cinder",
        "encrypted": False,
    },
}


def test_place_of_a_volume() -> None:
    """As an action tells it, and flat, as an attachment does."""
    place = CinderPlace("volumes", "volume-1", "cinder")
    assert CinderPlace.of(RBD, "v") == place
    assert CinderPlace.of({"driver_volume_type": "rbd", **RBD["data"]}, "v") == place  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("info", "error", "text"),
    [
        (
            {"driver_volume_type": "iscsi", "data": {"target_lun": 1}},
            NotSupported,
            "v: is a volume of iscsi: only those of RBD can be used",
        ),
        ({**RBD, "data": {"name": "a/b", "encrypted": True}}, NotSupported, "an encrypted volume"),
        ({**RBD, "data": {}}, StoreUnavailable, "does not tell where"),
        ({}, NotSupported, "a volume of None"),
    ],
)
def test_place_that_cannot_be_used(
    info: dict[str, object], error: type[Exception], text: str
) -> None:
    """One line says what is the matter."""
    with pytest.raises(error, match=text) as caught:
        CinderPlace.of(info, "v")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "bad",
    [
        {"auth_url": "http://keystone.example.net/v3"},
        {"api_url": "http://cinder.example.net/v3"},
        {"project": None},
        {"user": None},
        {"ceph_conf": "ceph.conf"},
        {"reference": "a/b"},
        {"key": "secret"},
        {"state_timeout": 0},
    ],
)
def test_bad_setting(bad: dict[str, object]) -> None:
    """A setting that cannot work is refused when it is read."""
    good = {"auth_url": "https://k/v3", "user": "u", "project": "p", "key": {"env": "K"}}
    CinderStoreSettings.model_validate(good)
    with pytest.raises(ValidationError):
        CinderStoreSettings.model_validate(good | bad)
