"""Images in S3 and Swift, used through the mount and WebDAV with ordinary tools."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.catalog.actions import some_bytes
from tests.catalog.stores import s3_account
from tests.dav.service import service
from tests.imagefs.daemon import Daemon
from tests.servers.swift import Swift

MIB = 1024 * 1024
DATA = some_bytes(9 * MIB + 5)
"""Three chunks."""

_SECTIONS = """\
[cache]
path = "{folder}/cache"
[stores.s3]
type = "s3"
endpoint = "{swift.s3_endpoint}"
bucket = "images"
access_key = {{ file = "{folder}/user" }}
secret_key = {{ file = "{folder}/key" }}
[stores.swift]
type = "swift"
auth_url = "{swift.auth_url}"
user = "{swift.user}"
auth_version = 1
key = {{ file = "{folder}/key" }}
container = "mounted"
"""


@pytest.fixture(scope="module")
def remote(swift_server: Swift, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A mount with the stores `s3` and `swift` besides the local ones."""
    folder = tmp_path_factory.mktemp("remote")
    for name, text in (("user", swift_server.user), ("key", swift_server.key)):
        (folder / name).touch(mode=0o600)
        (folder / name).write_text(text)
    account = s3_account.Account(
        swift_server.s3_endpoint, swift_server.user, swift_server.key, folder
    )
    account.make_bucket()
    sections = _SECTIONS.format(folder=folder, swift=swift_server)
    with Daemon(folder / "host", sections=sections).mounted() as daemon:
        yield daemon


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file to upload."""
    path = tmp_path / "source.img"
    path.write_bytes(DATA)
    return path


def _attribute(path: Path, name: str) -> str:
    return os.getxattr(path, f"user.image.{name}").decode()


@pytest.mark.parametrize("store", ["s3", "swift"])
def test_an_image_is_copied_in_and_read_back(remote: Daemon, source: Path, store: str) -> None:
    """`cp` uploads it, `cmp` reads it from the server, chunk by chunk verified."""
    image = remote.path / store / "copied.img"
    shutil.copy(source, image)
    assert _attribute(image, "status") == "active"
    with image.open("rb") as file:
        # What was just written is still in the kernel's page cache.
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    subprocess.run(["cmp", source, image], check=True)
    assert remote.command("cache", "status", "--json")["used"] >= len(DATA)


def test_an_image_moves_and_is_replicated(remote: Daemon, source: Path) -> None:
    """`mv` takes the data along, `ln` makes a second copy, `rm` drops one."""
    there = remote.path / "file" / "moving.img"
    shutil.copy(source, there)
    number = _attribute(there, "id")
    subprocess.run(["mv", there, remote.path / "s3" / "moved.img"], check=True)
    subprocess.run(
        ["ln", remote.path / "s3/moved.img", remote.path / "swift/second.img"], check=True
    )
    second = remote.path / "swift/second.img"
    assert (_attribute(second, "id"), _attribute(second, "stores")) == (number, "s3,swift")
    (remote.path / "s3/moved.img").unlink()
    assert second.read_bytes() == DATA
    assert _attribute(second, "stores") == "swift"


@pytest.mark.parametrize("engine", ["native", "io_uring"])
def test_qemu_reads_an_overlay(remote: Daemon, tmp_path: Path, engine: str) -> None:
    """A guest's disk on top of an image in S3, without the host's page cache."""
    base = tmp_path / "base.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", base, "64M"], check=True)
    subprocess.run(["qemu-io", "-c", "write -P 7 3M 20M", base], check=True, capture_output=True)
    stored = remote.path / "s3" / f"base-{engine}.qcow2"
    shutil.copy(base, stored)
    overlay = tmp_path / "overlay.qcow2"
    make_overlay = f"qemu-img create -q -f qcow2 -F qcow2 -b {stored} {overlay}"
    subprocess.run(make_overlay.split(), check=True)
    for command in ("read -P 7 3M 20M", "read -P 0 0 3M", "write -P 9 4M 64k", "read -P 9 4M 64k"):
        subprocess.run(
            ["qemu-io", "-t", "none", "-i", engine, "-c", command, overlay],
            check=True,
            capture_output=True,
        )


@pytest.mark.parametrize("store", ["s3", "swift"])
def test_webdav_puts_and_gets(remote: Daemon, store: str) -> None:
    """The same stores over HTTP: a whole image in, a range of it out."""
    with service(remote) as server:
        assert server.ask(f"PUT /{store}/dav.img", body=DATA).status == 201
        answer = server.ask(f"GET /{store}/dav.img", f"Range: bytes={4 * MIB - 10}-{4 * MIB + 9}")
        assert (answer.status, answer.body) == (206, DATA[4 * MIB - 10 : 4 * MIB + 10])
        assert server.ask(f"GET /{store}/dav.img").body == DATA
    assert (remote.path / store / "dav.img").read_bytes() == DATA
