"""One suite for every store that takes data, through the mount and WebDAV, at real servers."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from catalog.model.image import CHUNK_SIZE
from tests.kit.daemon import Daemon, wait_until
from tests.kit.remote_mount import (
    Remote,
    make_cold,
    rbd_section,
    remote,
    s3_section,
    share_section,
    swift_section,
    vmware_section,
)
from tests.kit.stores.s3_account import Account
from tests.kit.tools import MIB, assert_active, attempt, field, run, settled, some_bytes, status
from tests.kit.wire import Answer
from tests.servers.ceph import S3, Ceph
from tests.servers.certificates import make_certificates
from tests.servers.network.breaking_proxy import proxy
from tests.servers.swift import Swift
from tests.servers.vcsim import vcsim

STORES = ("s3", "swift", "rgw", "rbd", "vmware", "share", "file")
"""Swift by S3's API and by its own, radosgw, RBD, vcsim, a folder that may hang, one that not."""
RAW_ONLY = "rbd"
OTHER = {**dict(itertools.pairwise(STORES)), STORES[-1]: STORES[0]}
"""For each store one to copy to: each is copied from and to."""

SMALL = some_bytes(300_001, seed=1)
DATA = some_bytes(2 * CHUNK_SIZE + 5, seed=2)
"""Three chunks."""
SIZES = [1, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, 3 * CHUNK_SIZE]


@pytest.fixture(scope="module")
def everything(
    swift_server: Swift, ceph: Ceph, rgw: S3, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Remote]:
    """A mount, and a WebDAV server, with all these stores."""
    folder = tmp_path_factory.mktemp("remote")
    make_certificates(folder)
    (folder / "share").mkdir()
    accounts = {
        "s3": Account(swift_server.s3_endpoint, swift_server.user, swift_server.key, folder),
        "rgw": Account(rgw.url, rgw.access_key, rgw.secret_key, folder),
    }
    for account in accounts.values():
        account.make_bucket()
    with ExitStack() as servers:
        port = servers.enter_context(vcsim(folder))
        certificate = (folder / "server.pem", folder / "server.key")
        between = servers.enter_context(proxy(port, certificate))
        sections = (
            *(s3_section(name, account) for name, account in accounts.items()),
            swift_section("swift", swift_server, folder),
            rbd_section("rbd", ceph),
            vmware_section("vmware", between.url, folder),
            share_section("share", folder / "share"),
        )
        yield servers.enter_context(remote(folder, *sections))
    ceph.empty()


@pytest.fixture(scope="module")
def mount(everything: Remote) -> Daemon:
    """The mount, whose log is looked at after each test."""
    return everything.daemon


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> str:
    """Each store in turn."""
    return str(request.param)


@pytest.fixture
def here(mount: Daemon, store: str, request: pytest.FixtureRequest) -> Path:
    """A folder of the test's own in the store."""
    return _folder(mount, store, request)


@pytest.fixture
def there(mount: Daemon, store: str, request: pytest.FixtureRequest) -> Path:
    """The same in another store."""
    return _folder(mount, OTHER[store], request)


def _folder(mount: Daemon, store: str, request: pytest.FixtureRequest) -> Path:
    path = mount.path / store / request.node.name.replace("[", "-").rstrip("]")
    path.mkdir(exist_ok=True)
    return path


def _copied(folder: Path, path: Path, data: bytes, name: str = "image.img") -> Path:
    """An image of these bytes, made by cp(1)."""
    source = folder / "source.img"
    source.write_bytes(data)
    run("cp", source, path / name)
    return path / name


# -- through the mount -------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_what_is_copied_in_is_read_back(
    everything: Remote, here: Path, tmp_path: Path, size: int
) -> None:
    """Every byte comes back from the server, its digest is sha256sum's, its id the key."""
    data = some_bytes(size, seed=3)
    image = _copied(tmp_path, here, data)
    assert_active(image, data)
    assert run("sha256sum", image).split()[0] == field(image, "os_hash_value")
    assert field(image, "id") in everything.keys(field(image, "stores"))
    assert everything.read_cold(image) == data


def test_nothing_is_no_image_yet(everything: Remote, here: Path, store: str) -> None:
    """A file without a byte stays queued, and the server never hears of it."""
    (here / "empty.img").touch()
    run("cp", "/dev/null", here / "nothing.img")
    for image in here.iterdir():
        assert (status(image), image.stat().st_size) == ("queued", 0)
        assert field(image, "id") not in everything.keys(store)
        image.unlink()


def test_holes_are_zeros(everything: Remote, here: Path, tmp_path: Path) -> None:
    """A sparse file comes back with zeros where it had holes."""
    source = tmp_path / "sparse.img"
    with source.open("wb") as file:
        for offset in (CHUNK_SIZE - 7, 3 * CHUNK_SIZE):
            file.seek(offset)
            file.write(SMALL)
        file.truncate(4 * CHUNK_SIZE + 4096)
    run("cp", "--sparse=always", source, here / "sparse.img")
    assert everything.read_cold(here / "sparse.img") == source.read_bytes()


@pytest.mark.parametrize("store", [store for store in STORES if store != "file"])
def test_only_what_is_read_is_fetched(everything: Remote, here: Path, tmp_path: Path) -> None:
    """A read in the last chunk brings that one to this host, and no other."""
    image = _copied(tmp_path, here, DATA)
    make_cold(everything.daemon, image)
    with image.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        assert os.pread(file.fileno(), 5, 2 * CHUNK_SIZE) == DATA[-5:]
    number = field(image, "id")

    def cached() -> list[tuple[int, int]]:
        found = [each for each in everything.cache.images() if each.image == number]
        return [(each.chunks, each.claimed) for each in found]

    wait_until(lambda: cached() == [(3, 1)], "the chunk, and that one alone, is in the cache")


def test_mv_takes_the_data_along(
    everything: Remote, here: Path, there: Path, store: str, tmp_path: Path
) -> None:
    """To another store: the same image, its data there and no longer here."""
    image = _copied(tmp_path, here, DATA)
    number = field(image, "id")
    run("mv", image, there / "moved.img")
    assert (field(there / "moved.img", "id"), field(there / "moved.img", "stores")) == (
        number,
        OTHER[store],
    )
    assert number in everything.keys(OTHER[store])
    assert number not in everything.keys(store)
    assert everything.read_cold(there / "moved.img") == DATA


def test_ln_makes_a_copy_and_rm_drops_one(
    everything: Remote, here: Path, there: Path, store: str, tmp_path: Path
) -> None:
    """One image in two stores; without the first copy the second is read."""
    image = _copied(tmp_path, here, DATA)
    number = field(image, "id")
    run("ln", image, there / "linked.img")
    assert field(there / "linked.img", "id") == number
    assert set(field(image, "stores").split(",")) == {store, OTHER[store]}
    assert number in everything.keys(store) & everything.keys(OTHER[store])
    image.unlink()
    assert number not in everything.keys(store)
    assert everything.read_cold(there / "linked.img") == DATA


def test_rm_and_restore(everything: Remote, here: Path, store: str, tmp_path: Path) -> None:
    """What is in the trash is still at the server; `mv` takes it out again."""
    image = _copied(tmp_path, here, SMALL, f"{store}-restored.img")
    number = field(image, "id")
    image.unlink()
    trashed = everything.path / store / ".trash" / image.name
    assert (status(trashed), number in everything.keys(store)) == ("pending_delete", True)
    run("mv", trashed, here)
    assert (settled(image), field(image, "id")) == ("active", number)
    assert everything.read_cold(image) == SMALL


def test_scrubbed_data_is_gone(everything: Remote, here: Path, store: str, tmp_path: Path) -> None:
    """rm in the trash deletes the object, and all it was made of, at the server."""
    image = _copied(tmp_path, here, DATA, f"{store}-scrubbed.img")
    number = field(image, "id")
    image.unlink()
    (everything.path / store / ".trash" / image.name).unlink()
    assert number not in everything.keys(store)
    assert everything.leftovers(store) == []


def test_cp_f_replaces(everything: Remote, here: Path, store: str, tmp_path: Path) -> None:
    """A new image takes the name; the old one is in the trash, and still at the server."""
    image = _copied(tmp_path, here, SMALL, f"{store}-replaced.img")
    number = field(image, "id")
    (tmp_path / "new.img").write_bytes(DATA)
    run("cp", "-f", "--remove-destination", tmp_path / "new.img", image)
    assert_active(image, DATA)
    trashed = everything.path / store / ".trash" / image.name
    assert (field(trashed, "id"), trashed.read_bytes()) == (number, SMALL)
    assert {number, field(image, "id")} <= everything.keys(store)


_WRITER = """
import os, sys, time
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
for _ in range(int(sys.argv[2])):
    os.write(fd, os.urandom(1 << 20))
print("written", flush=True)
time.sleep(60)
"""


@pytest.mark.mount_says("was killed by signal 9")
def test_a_killed_writer_leaves_nothing(everything: Remote, here: Path, store: str) -> None:
    """Neither an object nor a part of one: what was written is on no server."""
    image = here / "killed.img"
    command = [sys.executable, "-c", _WRITER, str(image), "40"]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"written\n"
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    wait_until(lambda: status(image) == "killed", "the upload ends")
    assert field(image, "id") not in everything.keys(store)
    assert everything.leftovers(store) == []
    image.unlink()


def test_statfs(here: Path) -> None:
    """df(1) has an answer for every store."""
    found = os.statvfs(here)
    assert 0 < found.f_bavail <= found.f_blocks


# -- qemu-img ----------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A raw disk with holes."""
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        for offset in (0, 5 * MIB, 9 * MIB):
            file.seek(offset)
            file.write(some_bytes(MIB, offset))
        file.truncate(12 * MIB)
    return path


@pytest.mark.parametrize(
    ("store", "format_"),
    [*((store, "raw") for store in STORES), *((s, "qcow2") for s in STORES if s != RAW_ONLY)],
)
def test_qemu_img(everything: Remote, here: Path, disk: Path, format_: str, tmp_path: Path) -> None:
    """convert onto the mount, info, compare, and convert back from it."""
    image = here / f"disk.{format_}"
    run("qemu-img", "convert", "-f", "raw", "-O", format_, disk, image)
    assert (settled(image), field(image, "disk_format")) == ("active", format_)
    info = json.loads(run("qemu-img", "info", "-f", format_, "--output=json", image))
    assert info["virtual-size"] == 12 * MIB
    make_cold(everything.daemon, image)
    run("qemu-img", "compare", "-f", "raw", "-F", format_, disk, image)
    run("qemu-img", "convert", "-f", format_, "-O", "raw", image, tmp_path / "back.raw")
    assert (tmp_path / "back.raw").read_bytes() == disk.read_bytes()


@pytest.mark.mount_says("raw")
def test_a_store_for_raw_images(everything: Remote, tmp_path: Path) -> None:
    """RBD takes no qcow2: EINVAL, the reason and the remedy in the image's message."""
    source = tmp_path / "disk.qcow2"
    run("qemu-img", "create", "-f", "qcow2", source, "64M")
    image = everything.path / RAW_ONLY / "disk.qcow2"
    result = attempt("cp", source, image)
    assert os.strerror(errno.EINVAL) in result.stderr.decode()
    assert status(image) == "killed"
    assert "raw" in field(image, "message")
    assert field(image, "id") not in everything.keys(RAW_ONLY)
    image.unlink()


# -- through WebDAV ----------------------------------------------------------------------


def _ask(everything: Remote, request: str, *headers: str, body: bytes = b"") -> Answer:
    return everything.service.ask(request, *headers, body=body)


def test_webdav_puts_and_gets(everything: Remote, store: str) -> None:
    """A whole image in; a range of it, all of it, and its digest out; the same on the mount."""
    path = f"/{store}/put.img"
    assert _ask(everything, f"PUT {path}", body=DATA).status == 201
    first, last = CHUNK_SIZE - 10, CHUNK_SIZE + 9
    answer = _ask(everything, f"GET {path}", f"Range: bytes={first}-{last}")
    assert (answer.status, answer.body) == (206, DATA[first : last + 1])
    answer = _ask(everything, f"GET {path}")
    assert (answer.status, answer.body) == (200, DATA)
    found = everything.service.fields(path)
    assert (found["status"], found["size"]) == ("active", str(len(DATA)))
    assert found["os_hash_value"] == hashlib.sha256(DATA).hexdigest()
    assert everything.read_cold(everything.path / path[1:]) == DATA


@pytest.mark.parametrize(("method", "stays"), [("COPY", True), ("MOVE", False)])
def test_webdav_copies_and_moves(everything: Remote, store: str, method: str, stays: bool) -> None:
    """To another store: by COPY the image is in both, by MOVE in the other one alone."""
    source, target = f"/{store}/{method}.img", f"/{OTHER[store]}/{method}-{store}.img"
    assert _ask(everything, f"PUT {source}", body=SMALL).status == 201
    number = everything.service.fields(source)["id"]
    assert _ask(everything, f"{method} {source}", f"Destination: {target}").status == 201
    assert _ask(everything, f"GET {target}").body == SMALL
    assert everything.service.fields(target)["id"] == number
    assert number in everything.keys(OTHER[store])
    assert _ask(everything, f"GET {source}").status == (200 if stays else 404)
    assert (number in everything.keys(store)) is stays


def test_webdav_deletes(everything: Remote, store: str) -> None:
    """To the trash, and from there for good."""
    path, trashed = f"/{store}/dav-deleted.img", f"/{store}/.trash/dav-deleted.img"
    assert _ask(everything, f"PUT {path}", body=SMALL).status == 201
    number = everything.service.fields(path)["id"]
    assert _ask(everything, f"DELETE {path}").status == 204
    assert number in everything.keys(store)
    assert _ask(everything, f"DELETE {trashed}").status == 204
    assert number not in everything.keys(store)


# -- when all is done --------------------------------------------------------------------


def test_all_is_intact_in_the_end(everything: Remote) -> None:
    """`imagefs verify` and `imagefs fsck` find nothing wrong with what the tests have left."""
    verified = everything.daemon.command("verify", "--json")
    assert {each["verdict"] for each in verified} == {"intact"}
    assert {each["store"] for each in verified} == set(STORES)
    assert everything.daemon.command("fsck", "--json") == []
    assert everything.daemon.staged() == []
