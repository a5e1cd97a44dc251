"""Images in Cinder's volumes, used through the mount and WebDAV with ordinary tools."""

from __future__ import annotations

import filecmp
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.catalog import some_bytes
from tests.kit.daemon import Daemon
from tests.kit.service import service
from tests.servers.cinder import Cinder

MIB = 1024 * 1024
DATA = some_bytes(9 * MIB + 5)
"""Three chunks."""

_SECTIONS = """\
[cache]
path = "{folder}/cache"
[stores.block]
type = "cinder"
auth_url = "{cinder.identity.auth_url}"
user = "{cinder.user}"
project = "{cinder.project}"
key = {{ file = "{folder}/key" }}
ceph_conf = "{cinder.ceph.conf}"
"""


@pytest.fixture(scope="module")
def remote(cinder_server: Cinder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A mount with the store `block` besides the local ones."""
    folder = tmp_path_factory.mktemp("remote")
    (folder / "key").touch(mode=0o600)
    (folder / "key").write_text(cinder_server.key)
    sections = _SECTIONS.format(folder=folder, cinder=cinder_server)
    with Daemon(folder / "host", sections=sections).mounted() as daemon:
        yield daemon


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file to upload."""
    path = tmp_path / "source.img"
    path.write_bytes(DATA)
    return path


def _keys(server: Cinder) -> list[str]:
    """Which images have a volume."""
    return [volume["metadata"]["glance_image_id"] for volume in server.volumes()]


def test_an_image_is_copied_in_read_back_and_removed(
    remote: Daemon, source: Path, cinder_server: Cinder
) -> None:
    """`cp` uploads it to a volume, `cmp` reads it from there, `rm` twice deletes the volume."""
    image = remote.path / "block/copied.img"
    shutil.copy(source, image)
    number = os.getxattr(image, "user.image.id").decode()
    assert os.getxattr(image, "user.image.status") == b"active"
    assert _keys(cinder_server) == [number]
    assert filecmp.cmp(source, image, shallow=False)
    image.unlink()
    assert _keys(cinder_server) == [number]
    (remote.path / "block/.trash/copied.img").unlink()
    assert _keys(cinder_server) == []


def test_webdav_puts_and_gets(remote: Daemon) -> None:
    """The same store over HTTP: a whole image in, a range of it out."""
    with service(remote) as server:
        assert server.ask("PUT /block/dav.img", body=DATA).status == 201
        answer = server.ask("GET /block/dav.img", f"Range: bytes={4 * MIB - 10}-{4 * MIB + 9}")
        assert (answer.status, answer.body) == (206, DATA[4 * MIB - 10 : 4 * MIB + 10])
        assert server.ask("GET /block/dav.img").body == DATA
    assert (remote.path / "block/dav.img").read_bytes() == DATA


def test_a_copy_is_a_clone(remote: Daemon, source: Path, cinder_server: Cinder) -> None:
    """COPY over WebDAV is Cinder's work: the new volume is made of the old one."""
    original = remote.path / "block/original.img"
    shutil.copy(source, original)
    with service(remote) as server:
        answer = server.ask("COPY /block/original.img", "Destination: /block/twin.img")
        assert answer.status == 201
    twin = remote.path / "block/twin.img"
    assert twin.read_bytes() == DATA
    by_key = {each["metadata"]["glance_image_id"]: each for each in cinder_server.volumes()}
    numbers = [os.getxattr(path, "user.image.id").decode() for path in (original, twin)]
    assert by_key[numbers[1]]["source_volid"] == by_key[numbers[0]]["id"]
