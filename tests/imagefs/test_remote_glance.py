"""What the real glance_store has stored, adopted by the command and read through the mount."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from catalog.errors import NotFound
from catalog.model.access import ADMIN
from catalog.model.image import CHUNK_SIZE, Visibility
from catalog.tree.adopt import Adoption, Terms
from catalog.tree.vfs import Vfs
from tests.kit.daemon import Daemon, wait_until
from tests.kit.remote_mount import Remote, rbd_section, remote, s3_section, share_section
from tests.kit.stores.rbd_pool import Pool
from tests.kit.stores.s3_account import Account
from tests.kit.tools import field, run, settled, some_bytes
from tests.servers import glance_rbd, glance_s3
from tests.servers.ceph import S3, Ceph
from tests.servers.glance import glance_add
from tests.servers.keystone import keystone
from tests.servers.swift import swift

DATA = some_bytes(2 * CHUNK_SIZE + 7, seed=7)
"""Three chunks; for Glance's Swift nine segments, for its S3 two parts."""
STORES = ("file", "s3", "swift", "rbd")
IDS = {store: str(uuid.UUID(int=number)) for number, store in enumerate(STORES, 11)}

_SWIFT = """\
[stores.{store}]
type = "swift"
auth_url = "{identity.auth_url}"
user = "{identity.user}"
project = "{identity.project}"
key = {{ file = "{key}" }}
container = "glance"
"""


@dataclass(frozen=True, slots=True)
class Glances:
    """A mount, and for each of its stores what Glance has stored in the same place."""

    remote: Remote
    add: dict[str, Callable[[], str]]
    """Stores DATA as the image of IDS by Glance's own driver; returns its database's location."""


@pytest.fixture(scope="module")
def glances(ceph: Ceph, rgw: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Glances]:
    """The same servers for Glance and for our mount."""
    folder = tmp_path_factory.mktemp("glance")
    for name in ("file", "keystone", "swift"):
        (folder / name).mkdir()
    account = Account(rgw.url, rgw.access_key, rgw.secret_key, folder)
    account.make_bucket("glance")
    with ExitStack() as stack:
        identity = stack.enter_context(keystone(folder / "keystone"))
        server = stack.enter_context(swift(folder / "swift", *identity.swift_filters()))
        identity.add_swift(server.url)
        key = folder / "swift-key"
        key.touch(mode=0o600)
        key.write_text(identity.key)
        sections = (
            share_section("glance-file", folder / "file"),
            s3_section("glance-s3", account, "glance", prefix=""),
            _SWIFT.format(store="glance-swift", identity=identity, key=key),
            rbd_section("glance-rbd", ceph),
        )
        for_swift = {
            "stores": "swift",
            "default_store": "swift",
            "swift_store_auth_version": "3",
            "swift_store_auth_address": identity.auth_url,
            "swift_store_user": f"{identity.project}:{identity.user}",
            "swift_store_key": identity.key,
            "swift_store_create_container_on_put": "true",
            "swift_store_large_object_size": "1",
            "swift_store_large_object_chunk_size": "1",
        }
        for_file = {
            "stores": "file",
            "default_store": "file",
            "filesystem_store_datadir": str(folder / "file"),
        }

        def add_to_s3() -> str:
            return glance_s3.glance(account, "add", IDS["s3"], DATA).decode().strip()

        def add_to_rbd() -> str:
            size = str(len(DATA))
            return glance_rbd.glance(ceph, "add", IDS["rbd"], size, data=DATA).decode().strip()

        add = {
            "file": lambda: glance_add(folder, "file", for_file, IDS["file"], DATA, 0),
            "s3": add_to_s3,
            "swift": lambda: glance_add(folder, "swift+http", for_swift, IDS["swift"], DATA, 0),
            "rbd": add_to_rbd,
        }
        yield Glances(stack.enter_context(remote(folder, *sections)), add)


@pytest.fixture(scope="module")
def mount(glances: Glances) -> Daemon:
    """The mount, whose log is looked at after each test."""
    return glances.remote.daemon


@pytest.mark.parametrize("store", STORES)
def test_an_image_of_glance_is_adopted_and_read(glances: Glances, store: str) -> None:
    """Byte for byte, in place; being read from end to end, it gets its digests.

    Removed from the trash, it is gone at the server: it has become ours.
    """
    location, name, daemon = glances.add[store](), f"glance-{store}", glances.remote.daemon
    (found,) = daemon.command("adopt", name, "--all", "--json")
    assert (found["id"], found["outcome"]) == (IDS[store], "adopted")
    (again,) = daemon.command("adopt", name, location, "--json")
    assert again == found | {"outcome": "present"}
    image = glances.remote.path / name / IDS[store]
    wait_until(image.exists, "the mount shows the image")
    assert (settled(image), image.stat().st_size) == ("active", len(DATA))
    assert image.read_bytes() == DATA
    (verified,) = daemon.command("verify", "--json", IDS[store])
    assert verified["verdict"] == "intact"
    assert run("sha256sum", image).split()[0] == field(image, "os_hash_value")
    assert glances.remote.read_cold(image) == DATA
    daemon.command("set", IDS[store], "visibility=public")
    assert glances.remote.service.ask(f"GET /{name}/{IDS[store]}").body == DATA
    assert daemon.command("fsck") == ""
    image.unlink()
    (image.parent / ".trash" / image.name).unlink()
    with pytest.raises(NotFound):
        glances.remote.catalog.store(name).stat(location)


def test_what_glance_has_not_finished_in_ceph_is_not_adopted(glances: Glances, ceph: Ceph) -> None:
    """It makes the snapshot when all of an image is written."""
    unfinished, pool = str(uuid.UUID(int=99)), Pool(ceph)
    pool.rbd("create", f"{ceph.pool}/{unfinished}", "--size", "8M")
    try:
        vfs, terms = Vfs(glances.remote.catalog), Terms(Visibility.PRIVATE, protected=False)
        adoption = Adoption(vfs, "glance-rbd", terms, ADMIN)
        assert list(adoption.unknown()) == [unfinished]
        with pytest.raises(NotFound, match="has no complete object"):
            adoption.adopt(unfinished, "a")
    finally:
        pool.rbd("rm", f"{ceph.pool}/{unfinished}")
