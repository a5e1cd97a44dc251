"""Images of web servers through the mount and WebDAV: read-only, over HTTP and HTTPS."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.model.image import CHUNK_SIZE
from tests.kit.daemon import Daemon
from tests.kit.remote_mount import Remote, make_cold, remote, web_section
from tests.kit.tools import MIB, attempt, field, run, settled, some_bytes, status
from tests.servers.nginx import WebServer, nginx

DATA = some_bytes(2 * CHUNK_SIZE + 5, seed=4)
"""Three chunks."""
STORE = "mirror"


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    """An nginx."""
    with nginx(tmp_path_factory.mktemp("nginx")) as server:
        yield server


@pytest.fixture(scope="module")
def everything(web: WebServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    """A mount, and a WebDAV server, with a store of links."""
    folder = tmp_path_factory.mktemp("web")
    with remote(folder, web_section(STORE, web.authority)) as everything:
        yield everything


@pytest.fixture(scope="module")
def mount(everything: Remote) -> Daemon:
    """The mount, whose log is looked at after each test."""
    return everything.daemon


@pytest.fixture(params=["http", "https"])
def url(request: pytest.FixtureRequest, web: WebServer) -> str:
    """Where the test's image lies at the server."""
    name = f"{request.node.originalname}-{request.param}.img"
    (web.root / name).write_bytes(DATA)
    # The certificate is for this address as well as for a name.
    tls_port = web.tls_url.rpartition(":")[2]
    return f"{web.url if request.param == 'http' else f'https://127.0.0.1:{tls_port}'}/{name}"


@pytest.fixture
def image(everything: Remote, url: str) -> Path:
    """The same as an image on the mount."""
    path = everything.path / STORE / url.rpartition("/")[2]
    run("ln", "-s", url, path)
    return path


def test_a_link_is_read_and_verified(everything: Remote, image: Path) -> None:
    """In place at first; by way of the cache once a first full read has recorded its digests."""
    assert (settled(image), image.stat().st_size) == ("active", len(DATA))
    assert image.read_bytes() == DATA
    (verified,) = everything.daemon.command("verify", "--json", f"/{STORE}/{image.name}")
    assert verified["verdict"] == "intact"
    assert run("sha256sum", image).split()[0] == field(image, "os_hash_value")
    assert everything.read_cold(image) == DATA
    assert field(image, "id") in {each.image for each in everything.cache.images()}


def test_qemu_img_reads_a_link(everything: Remote, image: Path, web: WebServer) -> None:
    """info, compare and convert of a disk that lies at the server."""
    disk = web.root / "disk.raw"
    disk.write_bytes(some_bytes(MIB) + bytes(3 * MIB))
    qcow2 = image.with_name(f"{image.stem}.qcow2")
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, web.root / qcow2.name)
    run("ln", "-s", f"{web.url}/{qcow2.name}", qcow2)
    info = json.loads(run("qemu-img", "info", "--output=json", qcow2))
    assert (info["format"], info["virtual-size"]) == ("qcow2", 4 * MIB)
    run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", disk, qcow2)
    run("qemu-img", "convert", "-O", "raw", qcow2, everything.path / "file" / f"{image.stem}.raw")
    assert (everything.path / "file" / f"{image.stem}.raw").read_bytes() == disk.read_bytes()


def test_a_link_is_replicated_and_moved(everything: Remote, image: Path, web: WebServer) -> None:
    """`ln` copies it to a store of ours; without the link, or its server's file, that is read."""
    copy = everything.path / "file" / image.name
    everything.daemon.command("verify", f"/{STORE}/{image.name}")
    run("ln", image, copy)
    assert field(copy, "stores") == f"file,{STORE}"
    image.unlink()
    (web.root / image.name).unlink()
    assert (field(copy, "stores"), copy.read_bytes()) == ("file", DATA)


def test_rm_forgets_the_link(image: Path, web: WebServer) -> None:
    """From the trash as well; what lies at the server is not ours to delete."""
    trashed = image.parent / ".trash" / image.name
    image.unlink()
    assert status(trashed) == "pending_delete"
    trashed.unlink()
    assert not trashed.exists()
    assert (web.root / image.name).read_bytes() == DATA


def test_nothing_is_written(everything: Remote, image: Path, tmp_path: Path) -> None:
    """cp, also over an image, mv and ln into the store: EROFS, and all stays as it is."""
    source, local = tmp_path / "source.img", everything.path / "file" / f"to-{image.name}"
    source.write_bytes(DATA)
    run("cp", source, local)
    for command in (
        ("cp", source, image.with_name(f"new-{image.name}")),
        ("cp", "--remove-destination", source, image.with_name(f"new-{image.name}")),
        ("mv", local, image.with_name(f"new-{image.name}")),
        ("ln", local, image.with_name(f"new-{image.name}")),
    ):
        result = attempt(*command)
        assert os.strerror(errno.EROFS) in result.stderr.decode(), command
    assert local.read_bytes() == DATA
    with pytest.raises(PermissionError):
        image.open("r+b")
    assert image.read_bytes() == DATA


def test_webdav_reads_and_refuses(everything: Remote, image: Path) -> None:
    """GET of all and of a range, COPY out by its owner; PUT is refused."""
    ask, path = everything.service.ask, f"/{STORE}/{image.name}"
    answer = ask(f"GET {path}", f"Range: bytes={CHUNK_SIZE - 10}-{CHUNK_SIZE + 9}")
    assert (answer.status, answer.body) == (206, DATA[CHUNK_SIZE - 10 : CHUNK_SIZE + 10])
    assert ask(f"GET {path}").body == DATA
    assert ask(f"PUT /{STORE}/new.img", body=DATA).status == 403
    os.setxattr(image, "user.image.owner", b"anonymous")
    assert ask(f"COPY {path}", f"Destination: /file/dav-{image.name}").status == 201
    assert ask(f"GET /file/dav-{image.name}").body == DATA


def test_what_is_read_without_digests_is_of_one_file(image: Path, web: WebServer) -> None:
    """Pages that the kernel has of what the server had before are not mixed with the rest."""
    with image.open("rb") as file:
        assert file.read(MIB) == DATA[:MIB]
    other = some_bytes(len(DATA), seed=6)
    (web.root / image.name).write_bytes(other)
    assert image.read_bytes() == other


@pytest.mark.mount_says("damaged|changed")
def test_a_file_that_changes_is_never_mixed(
    everything: Remote, image: Path, web: WebServer
) -> None:
    """Once digests are recorded, other bytes at the server are EIO, not data."""
    everything.daemon.command("verify", f"/{STORE}/{image.name}")
    make_cold(everything.daemon, image)
    (web.root / image.name).write_bytes(some_bytes(len(DATA), seed=5))
    with image.open("rb", buffering=0) as file, pytest.raises(OSError, match="Input/output"):
        file.read(10)
    (web.root / image.name).write_bytes(DATA)
    assert everything.read_cold(image) == DATA


def test_fsck_is_content(everything: Remote) -> None:
    """In the end the catalog and its stores agree."""
    assert everything.daemon.command("fsck", "--json") == []
