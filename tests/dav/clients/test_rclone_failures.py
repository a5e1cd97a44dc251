"""rclone(1) sends DELETE for a name that it could not write: what was good there stays."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dav.clients.rclone_remote import environment
from tests.kit.daemon import DEADLINE, Daemon, wait_until
from tests.kit.service import Service
from tests.kit.tools import MIB, run, some_bytes


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server that takes uploads of a megabyte, and no more."""
    limit = f"staging_limit = {MIB}"
    running = Service(Daemon(tmp_path_factory.mktemp("small"), catalog=limit), "write")
    yield running
    assert running.stop() == 0


def rclone(service: Service, *arguments: object) -> str:
    """Run rclone, which fails; return what it says."""
    result = subprocess.run(
        ["rclone", "--retries", "2", *map(str, arguments)],
        env=environment(service, "other"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        timeout=120,
    )
    said = result.stdout.decode()
    assert result.returncode != 0, said
    return said


def test_a_refused_image(small: Service, tmp_path: Path) -> None:
    """The gate refuses the new one, and rclone cleans up."""
    assert small.ask("PUT /file/r.qcow2", body=b"good").status == 201
    before = small.fields("/file/r.qcow2")
    bad = tmp_path / "bad.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "/etc/hostname", "-F", "raw", bad, "1G")
    rclone(small, "copyto", bad, "images:file/r.qcow2")
    assert "DELETE /file/r.qcow2 409" in small.log.read_text()
    assert small.fields("/file/r.qcow2") == before


def test_a_sync_onto_a_full_server(small: Service, tmp_path: Path) -> None:
    """Ten images that have grown too large: all ten old ones stay."""
    assert small.ask("MKCOL /file/ten").status == 201
    before = {}
    for number in range(10):
        path = f"/file/ten/{number}.img"
        assert small.ask(f"PUT {path}", body=some_bytes(1000, number)).status == 201
        before[path] = small.fields(path)
        (tmp_path / f"{number}.img").write_bytes(some_bytes(MIB + 5000, number))
    rclone(small, "sync", tmp_path, "images:file/ten")
    assert {path: small.fields(path) for path in before} == before


@pytest.mark.server
def test_the_server_is_killed_in_the_middle(tmp_path: Path) -> None:
    """DELETE comes when it is up again, before the next attempt."""
    catalog = Daemon(tmp_path / "state")
    first = Service(catalog, "write")
    assert first.ask("PUT /file/a.img", body=b"good").status == 201
    (tmp_path / "new.img").write_bytes(some_bytes(8 * MIB))
    command = ["rclone", "--retries", "1", "--bwlimit", "2M", "copyto", str(tmp_path / "new.img")]
    with subprocess.Popen(
        [*command, "images:file/a.img"],
        env=environment(first, "other"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as client:
        wait_until(lambda: catalog.staged() != [], "the upload has begun")
        first.process.kill()
        first.process.wait()
        second = Service(catalog, "write", port=first.port)
        try:
            client.wait(DEADLINE)
            # It cleans up after a second; whether it then tries again is its own affair.
            assert "DELETE /file/a.img 204" not in second.log.read_text()
            found = second.ask("GET /file/a.img").body
            assert found in (b"good", (tmp_path / "new.img").read_bytes())
        finally:
            assert second.stop() == 0
