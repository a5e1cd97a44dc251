"""A mount and a server on one catalog: what is done through one is soon seen through the other."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kit.daemon import Daemon, wait_until
from tests.kit.service import Service, service
from tests.kit.tools import assert_active, attempt, field, mode, status, trashed
from tests.kit.wire import head

SOON = 1.0
"""Seconds after which a change must be seen everywhere (docs/semantics.md#reading)."""


def soon(condition: Callable[[], object], what: str) -> None:
    """Return when the condition holds; fail when it does not come to hold soon."""
    give_up_at = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < give_up_at, f"not seen within {SOON} s: {what}"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def open_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server, and a mount of its catalog."""
    with service(Daemon(tmp_path_factory.mktemp("both"))) as running:
        mount = running.catalog
        with mount.mounted():
            yield running
        assert mount.unusual() == []
        assert mount.staged() == []


@pytest.fixture
def here(open_service: Service, folder: str) -> Path:
    """The test's folder in the mount."""
    path = open_service.catalog.path / folder.removeprefix("/")
    soon(path.is_dir, "the folder")
    return path


@pytest.fixture
def image(open_service: Service, folder: str, here: Path, data: bytes) -> Path:
    """An image in the mount that came over HTTP: root there and anybody here may change it."""
    assert open_service.ask(f"PUT {folder}/a.img", body=data).status == 201
    soon((here / "a.img").exists, "the image")
    return here / "a.img"


def to(name: str) -> str:
    """The header that tells where to copy or move."""
    return f"Destination: http://images.test{name}"


def test_an_upload_over_http_is_mounted(
    open_service: Service, folder: str, here: Path, data: bytes
) -> None:
    """Also where the kernel remembers that the name was not there."""
    assert not (here / "a.img").exists()
    assert os.listdir(here) == []
    assert open_service.ask(f"PUT {folder}/a.img", body=data).status == 201
    soon((here / "a.img").exists, "the name")
    soon(lambda: os.listdir(here) == ["a.img"], "the listing")
    assert_active(here / "a.img", data)


def test_an_upload_to_the_mount_is_served(
    open_service: Service, folder: str, here: Path, data: bytes
) -> None:
    """With the same id, digest and data."""
    assert open_service.ask(f"GET {folder}/a.img").status == 404
    (here / "a.img").write_bytes(data)
    soon(lambda: open_service.status(f"{folder}/a.img") == "active", "the image")
    assert open_service.ask(f"GET {folder}/a.img").body == data
    fields = open_service.fields(f"{folder}/a.img")
    assert fields["id"] == field(here / "a.img", "id")
    assert fields["os_hash_value"] == field(here / "a.img", "os_hash_value")


def test_a_rename(open_service: Service, folder: str, here: Path, image: Path) -> None:
    """Both ways; the id stays."""
    number = field(image, "id")
    assert open_service.ask(f"MOVE {folder}/a.img", to(f"{folder}/b.img")).status == 201
    soon((here / "b.img").exists, "the new name")
    soon(lambda: not image.exists(), "the old name is gone")
    assert field(here / "b.img", "id") == number
    (here / "b.img").rename(here / "c.img")
    soon(lambda: open_service.status(f"{folder}/c.img") == "active", "the new name")
    soon(lambda: open_service.status(f"{folder}/b.img") == "", "the old name is gone")
    assert open_service.fields(f"{folder}/c.img")["id"] == number


def test_a_deletion(
    open_service: Service, folder: str, here: Path, image: Path, data: bytes
) -> None:
    """Both ways: gone here, in the trash there; what the one restores the other has."""
    assert open_service.ask(f"DELETE {folder}/a.img").status == 204
    soon(lambda: not image.exists(), "the name is gone")
    soon(trashed(image).exists, "it is in the trash")
    trashed(image).rename(here / "back.img")
    soon(lambda: open_service.status(f"{folder}/back.img") == "active", "it is restored")

    (here / "back.img").unlink()
    soon(lambda: open_service.status(f"{folder}/back.img") == "", "the name is gone")
    soon(lambda: open_service.status("/file/.trash/back.img") == "pending_delete", "the trash")
    source = "/file/.trash/back.img"
    assert open_service.ask(f"MOVE {source}", to(f"{folder}/again.img")).status == 201
    soon((here / "again.img").exists, "it is restored")
    assert_active(here / "again.img", data)


def test_a_deactivation(open_service: Service, folder: str, image: Path) -> None:
    """An image that root deactivates is not served; then it is again."""
    os.setxattr(image, "user.image.status", b"deactivated")
    soon(lambda: open_service.ask(f"GET {folder}/a.img").status == 403, "it is refused")
    os.setxattr(image, "user.image.status", b"active")
    soon(lambda: open_service.ask(f"GET {folder}/a.img").status == 200, "it is served")


def test_a_property(open_service: Service, folder: str, image: Path) -> None:
    """Both ways: PROPPATCH and setfattr(1)."""
    os.setxattr(image, "user.property.os_distro", b"debian")

    def served() -> str:
        return open_service.ask(f"PROPFIND {folder}/a.img", "Depth: 0").body.decode()

    soon(lambda: "debian</P:os_distro>" in served(), "the property")
    change = (
        b'<D:propertyupdate xmlns:D="DAV:"><D:set><D:prop>'
        b'<os_distro xmlns="urn:imagefs:property">alpine</os_distro>'
        b"</D:prop></D:set></D:propertyupdate>"
    )
    assert open_service.ask(f"PROPPATCH {folder}/a.img", body=change).status == 207
    soon(lambda: os.getxattr(image, "user.property.os_distro") == b"alpine", "the change")


def test_a_replacement(open_service: Service, folder: str, image: Path, data: bytes) -> None:
    """A PUT onto an image that is open in the mount: the name is the new one's, the file stays."""
    with image.open("rb") as reader:
        assert open_service.ask(f"PUT {folder}/a.img", body=b"the new data").status == 204
        soon(lambda: image.read_bytes() == b"the new data", "the new image")
        assert reader.read() == data


def test_an_upload_to_the_mount_is_in_progress(
    open_service: Service, folder: str, here: Path, data: bytes
) -> None:
    """It is served as `saving`, not read, and nobody else may upload to the name."""
    with (here / "a.img").open("wb", buffering=0) as writer:
        writer.write(data)
        soon(lambda: open_service.status(f"{folder}/a.img") == "saving", "the upload")
        assert open_service.ask(f"GET {folder}/a.img").status == 403
        assert open_service.ask(f"PUT {folder}/a.img", body=b"mine").status == 403
    soon(lambda: open_service.status(f"{folder}/a.img") == "active", "it is active")
    assert open_service.ask(f"GET {folder}/a.img").body == data


def test_an_upload_over_http_is_in_progress(
    open_service: Service, folder: str, here: Path, data: bytes
) -> None:
    """It is seen as `saving` in the mount, where nobody else may upload to the name."""
    with open_service.connect() as wire:
        wire.send(head(f"PUT {folder}/a.img", f"Content-Length: {len(data)}") + data[:200_000])
        soon((here / "a.img").exists, "the upload")
        wait_until(lambda: status(here / "a.img") == "saving", "it has data")
        assert mode(here / "a.img") == 0o600
        assert attempt("cp", "/etc/passwd", here / "a.img").returncode == 1
        wire.send(data[200_000:])
        assert wire.read().status == 201
    soon(lambda: mode(here / "a.img") == 0o444, "it is active")
    assert_active(here / "a.img", data)


def test_an_upload_over_http_that_was_cut_off(
    open_service: Service, folder: str, here: Path, data: bytes
) -> None:
    """The mount tells why; a copy to the same name starts anew."""
    with open_service.connect() as wire:
        wire.send(head(f"PUT {folder}/a.img", f"Content-Length: {len(data)}") + data[:1000])
        soon((here / "a.img").exists, "the upload")
    wait_until(lambda: status(here / "a.img") == "killed", "it is killed")
    assert f"after 1000 of {len(data)} bytes" in field(here / "a.img", "message")
    subprocess.run(["dd", f"of={here / 'a.img'}", "status=none"], input=data, check=True)
    soon(lambda: open_service.status(f"{folder}/a.img") == "active", "the copy")
