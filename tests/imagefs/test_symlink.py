"""symlink(2): an image whose data stays on a web server."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.daemon import Daemon, wait_until
from tests.kit.tools import MIB, attempt, field, mode, run, settled, some_bytes
from tests.servers.scripted import nginx


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A web server on loopback, which the store `web` permits: its URL and its folder."""
    with nginx(tmp_path_factory.mktemp("nginx")) as server:
        yield server.url, server.root


@pytest.fixture
def image(
    mount: Daemon, web: tuple[str, Path], data: bytes, request: pytest.FixtureRequest
) -> Path:
    """An image that is registered by its URL."""
    url, root = web
    (root / "disk.img").write_bytes(data)
    path = mount.path / "web" / request.node.name
    run("ln", "-s", f"{url}/disk.img", path)
    return path


def test_ln_s_registers_an_image(image: Path, data: bytes) -> None:
    """The entry is an active image, a regular file, and reads what the server has."""
    assert image.is_file()
    assert not image.is_symlink()
    assert settled(image) == "active"
    assert mode(image) == 0o444
    assert image.read_bytes() == data
    assert field(image, "size") == str(len(data))
    assert field(image, "disk_format") == "raw"
    assert field(image, "stores") == "web"


def test_reading_all_of_it_records_digests(
    mount: Daemon, web: tuple[str, Path], tmp_path: Path
) -> None:
    """Unverified until then; as the kernel reads it, ahead and by several requests at once."""
    data = some_bytes(13 * MIB + 5)
    (web[1] / "large.img").write_bytes(data)
    path = mount.path / "web" / "large"
    run("ln", "-s", f"{web[0]}/large.img", path)
    assert (field(path, "verified"), field(path, "os_hash_value")) == ("false", "")
    run("cp", path, tmp_path / "copied")
    assert (tmp_path / "copied").read_bytes() == data
    wait_until(lambda: field(path, "verified") == "true", "its digests are recorded")
    assert field(path, "os_hash_value") == hashlib.sha256(data).hexdigest()


def test_it_is_replicated_to_a_file_store(
    mount: Daemon, web: tuple[str, Path], image: Path, data: bytes
) -> None:
    """Ln copies its data, and reading then no longer needs the server."""
    copy = mount.path / "file" / image.name
    run("ln", image, copy)
    (web[1] / "disk.img").unlink()
    assert copy.read_bytes() == data
    assert field(copy, "stores") == "file,web"


def test_rm_forgets_it_only_here(web: tuple[str, Path], image: Path) -> None:
    """The server's file is not ours to delete."""
    run("rm", "-f", image)
    run("rm", "-f", image.parent / ".trash" / image.name)
    assert (web[1] / "disk.img").exists()


def test_what_is_not_on_the_server(mount: Daemon, web: tuple[str, Path]) -> None:
    """No image, and no entry."""
    path = mount.path / "web/missing"
    assert attempt("ln", "-s", f"{web[0]}/a-missing-file", path).returncode != 0
    assert not path.exists()


@pytest.mark.parametrize(
    "target",
    ["../file/a", "/etc/passwd", "file:///etc/passwd", "http://127.0.0.2:1/x", "http://[::1]/x"],
)
def test_nothing_but_permitted_urls(mount: Daemon, target: str) -> None:
    """No path, no other scheme, no address that is not public."""
    path = mount.path / "web/refused"
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is looked at
        path.symlink_to(target)
    assert caught.value.errno in (errno.EINVAL, errno.EACCES)
    assert not path.exists()


def test_no_links_in_other_stores(folder: Path) -> None:
    """A file store holds data: EPERM, as from a file system without symbolic links."""
    with pytest.raises(PermissionError) as caught:
        (folder / "link").symlink_to("http://example.com/x")
    assert caught.value.errno == errno.EPERM


def test_no_data_in_this_store(mount: Daemon, source: Path) -> None:
    """A store of links takes no uploads: EROFS."""
    result = attempt("cp", source, mount.path / "web/upload")
    assert os.strerror(errno.EROFS) in result.stderr.decode()
