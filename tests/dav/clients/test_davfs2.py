"""davfs2: the tree as a mount on another host, with davfs2's own cache between."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.kit.daemon import wait_until
from tests.kit.service import PASSWORD, USER, Service
from tests.kit.tools import run

# Linux asks for more entries of a folder at once than davfs2's default buffer of 16 KiB holds.
_CONFIG = """
buf_size 64
use_locks 1
cache_dir {cache}
delay_upload 0
ask_auth {ask}
gui_optimize 0
dir_refresh 1
file_refresh 1
"""


@contextmanager
def mounted(service: Service, path: str = "/") -> Iterator[Path]:
    """Mount the server; unmounting waits until all is uploaded."""
    # Not below tmp_path, which is closed to the user that davfs2 becomes.
    with TemporaryDirectory() as state:
        Path(state).chmod(0o755)
        with _mounted(service, Path(state), path) as point:
            yield point


@contextmanager
def _mounted(service: Service, state: Path, path: str) -> Iterator[Path]:
    point, cache, config = state / "mnt", state / "cache", state / "davfs2.conf"
    point.mkdir()
    cache.mkdir()
    shutil.chown(cache, group="davfs2")
    cache.chmod(0o770)
    text = _CONFIG.format(cache=cache, ask=int(bool(service.tls)))
    answers = ""
    if service.tls:
        certificate = shutil.copy(service.tls.certificate, state)
        text += f"trust_server_cert {certificate}\n"
        answers = f"{USER}\n{PASSWORD}\ny\n"
    config.write_text(text)
    command = ["mount.davfs", "-o", f"conf={config}", f"{service.url}{path}", str(point)]
    subprocess.run(command, input=answers.encode(), check=True, timeout=60)
    try:
        yield point
    finally:
        run("umount", point)


@pytest.fixture
def mount(open_service: Service, folder: str) -> Iterator[Path]:
    """A folder of the server, mounted."""
    with mounted(open_service, folder) as point:
        yield point


def test_cp_in_and_out(
    open_service: Service, folder: str, mount: Path, source: Path, tmp_path: Path
) -> None:
    """An image is uploaded under a lock (LOCK, HEAD, PUT, UNLOCK), and read back."""
    run("cp", source, mount / "a.img")
    wait_until(lambda: open_service.status(f"{folder}/a.img") == "active", "it is uploaded")
    run("cp", mount / "a.img", tmp_path / "back.img")
    assert (tmp_path / "back.img").read_bytes() == source.read_bytes()
    assert open_service.ask(f"GET {folder}/a.img").body == source.read_bytes()


def test_another_clients_image_is_read(
    open_service: Service, folder: str, mount: Path, data: bytes
) -> None:
    """What came by another way is listed and read."""
    assert open_service.ask(f"PUT {folder}/other.img", body=data).status == 201
    wait_until(lambda: "other.img" in os.listdir(mount), "it is listed")
    assert (mount / "other.img").read_bytes() == data


def test_rename_and_delete(open_service: Service, folder: str, mount: Path, source: Path) -> None:
    """mv keeps the image; rm puts it into the trash; folders come and go."""
    run("cp", source, mount / "a.img")
    wait_until(lambda: open_service.status(f"{folder}/a.img") == "active", "it is uploaded")
    before = open_service.fields(f"{folder}/a.img")["id"]
    run("mkdir", mount / "sub")
    run("mv", mount / "a.img", mount / "sub" / "davfs.img")
    assert open_service.fields(f"{folder}/sub/davfs.img")["id"] == before
    run("rm", mount / "sub" / "davfs.img")
    assert open_service.status(f"{folder}/sub/davfs.img") == ""
    assert open_service.fields("/file/.trash/davfs.img")["id"] == before
    run("rmdir", mount / "sub")
    assert open_service.ask(f"PROPFIND {folder}/sub", "Depth: 0").status == 404


def test_an_image_is_replaced(
    open_service: Service, folder: str, mount: Path, source: Path
) -> None:
    """cp onto an image makes a new one under its name."""
    run("cp", source, mount / "a.img")
    wait_until(lambda: open_service.status(f"{folder}/a.img") == "active", "it is uploaded")
    before = open_service.fields(f"{folder}/a.img")
    source.write_bytes(source.read_bytes()[::-1])
    run("cp", source, mount / "a.img")

    def is_new() -> bool:
        return open_service.fields(f"{folder}/a.img")["id"] != before["id"]

    wait_until(is_new, "the new image has the name")
    assert open_service.ask(f"GET {folder}/a.img").body == source.read_bytes()


def test_umount_uploads_what_is_left(open_service: Service, folder: str, source: Path) -> None:
    """When umount has ended the image is there, and no lock is left on it."""
    with mounted(open_service, folder) as point:
        run("cp", source, point / "late.img")
    assert open_service.status(f"{folder}/late.img") == "active"
    assert open_service.ask(f"DELETE {folder}/late.img").status == 204


def test_tls_and_a_user(secure_service: Service, source: Path) -> None:
    """With a name and a password over TLS."""
    with mounted(secure_service) as point:
        run("cp", source, point / "file" / "davfs.img")
    assert secure_service.status("/file/davfs.img") == "active"
