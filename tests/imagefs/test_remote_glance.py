"""What the real glance_store has stored, registered in the catalog and read through the mount."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from catalog.access import ADMIN
from catalog.errors import NotFound
from catalog.external import examine
from catalog.image import CHUNK_SIZE
from catalog.vfs import Vfs
from tests.catalog.stores import test_rbd, test_s3_glance
from tests.catalog.stores.s3_account import Account
from tests.imagefs.daemon import Daemon, wait_until
from tests.imagefs.remote import Remote, rbd_section, remote, s3_section, share_section
from tests.imagefs.tools import field, run, some_bytes, status
from tests.servers.ceph import S3, Ceph
from tests.servers.glance import glance_add
from tests.servers.keystone import keystone
from tests.servers.swift import swift

DATA = some_bytes(2 * CHUNK_SIZE + 7, seed=7)
"""Three chunks; for Glance's Swift nine segments, for its S3 two parts."""
STORES = ("file", "s3", "swift", "rbd")
IMAGE = str(uuid.UUID(int=11))

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
    """Stores DATA by Glance's own driver; returns the location as its database has it."""


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
            s3_section("glance-s3", account, "glance"),
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
            return test_s3_glance.glance(account, "add", IMAGE, DATA).decode().strip()

        def add_to_rbd() -> str:
            size = str(len(DATA))
            return test_rbd.glance(ceph, "add", IMAGE, size, data=DATA).decode().strip()

        add = {
            "file": lambda: glance_add(folder, "file", for_file, IMAGE, DATA, 0),
            "s3": add_to_s3,
            "swift": lambda: glance_add(folder, "swift+http", for_swift, IMAGE, DATA, 0),
            "rbd": add_to_rbd,
        }
        yield Glances(stack.enter_context(remote(folder, *sections)), add)


@pytest.fixture(scope="module")
def mount(glances: Glances) -> Daemon:
    """The mount, whose log is looked at after each test."""
    return glances.remote.daemon


@pytest.mark.parametrize("store", STORES)
def test_an_image_of_glance_is_registered_and_read(glances: Glances, store: str) -> None:
    """By its location: byte for byte, in place at first, verified once digests are recorded.

    Removed from the trash, it is gone at the server: it has become ours.
    """
    location, name = glances.add[store](), f"glance-{store}"
    catalog, image = glances.remote.catalog, glances.remote.path / name / "image.img"
    # As `ln -s` does for a URL: there is no command that does it for these.
    place = Vfs(catalog).place(f"/{name}/image.img")
    catalog.register(place, examine(catalog.store(name), location), ADMIN)
    wait_until(image.exists, "the mount shows the image")
    assert (status(image), image.stat().st_size) == ("active", len(DATA))
    assert image.read_bytes() == DATA
    (verified,) = glances.remote.daemon.command("verify", "--json", f"/{name}/image.img")
    assert verified["verdict"] == "recorded"
    assert run("sha256sum", image).split()[0] == field(image, "os_hash_value")
    assert glances.remote.read_cold(image) == DATA
    assert glances.remote.service.ask(f"GET /{name}/image.img").body == DATA
    image.unlink()
    (image.parent / ".trash" / image.name).unlink()
    with pytest.raises(NotFound):
        catalog.store(name).stat(location)
