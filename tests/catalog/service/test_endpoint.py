"""/metrics, /healthz and /readyz of a process, and how it is found."""

from __future__ import annotations

import json
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from pydantic import BaseModel, ValidationError

from catalog.errors import InvalidSettings
from catalog.service import endpoint, health
from catalog.service.endpoint import monitored, targets_folder
from catalog.service.health import Pulse
from catalog.settings import MonitoringAddress
from catalog.tree.vfs import Vfs
from tests.kit.catalog import put
from tests.kit.daemon import wait_until


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state folder of the test's own, and impatient probes."""
    monkeypatch.setenv("IMAGEFS_STATE", str(tmp_path / "state"))
    for name in ("DATABASE_INTERVAL", "STORE_INTERVAL", "_COUNT_INTERVAL"):
        monkeypatch.setattr(health, name, 0.05)


@contextmanager
def _address(vfs: Vfs, pulse: Pulse | None = None) -> Iterator[str]:
    """Be monitored; where, is read as Prometheus reads it."""
    with monitored("127.0.0.1:0", vfs, pulse or Pulse(), {"service": "test"}):
        (file,) = targets_folder().iterdir()
        (found,) = json.loads(file.read_text())
        assert found["labels"]["service"] == "test"
        (address,) = found["targets"]
        yield address
    assert list(targets_folder().iterdir()) == []


def _get(address: str, path: str) -> tuple[int, str]:
    try:
        with urlopen(f"http://{address}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_ready_while_database_and_default_store_answer(vfs: Vfs, tmp_path: Path) -> None:
    """Not ready without the default store, though alive; and ready again with it."""
    with _address(vfs) as address:
        wait_until(lambda: _get(address, "/readyz") == (200, "ok\n"), "it is ready")
        shutil.move(tmp_path / "file", tmp_path / "away")
        wait_until(lambda: _get(address, "/readyz")[0] == 503, "it is not ready")
        assert _get(address, "/readyz")[1].startswith("file: ")
        assert _get(address, "/healthz") == (200, "ok\n")
        shutil.move(tmp_path / "away", tmp_path / "file")
        wait_until(lambda: _get(address, "/readyz")[0] == 200, "it is ready again")
        shutil.rmtree(tmp_path / "other")
        wait_until(
            lambda: 'imagefs_store_up{store="other"} 0.0' in _get(address, "/metrics")[1],
            "another store is seen to be away",
        )
        assert _get(address, "/readyz")[0] == 200


def test_not_healthy_when_the_loop_hangs(vfs: Vfs) -> None:
    """/healthz says so."""
    pulse = Pulse()
    with _address(vfs, pulse) as address:
        assert _get(address, "/healthz") == (200, "ok\n")
        pulse._at -= 3600
        assert _get(address, "/healthz") == (503, "loop: does not turn\n")


def test_what_the_catalog_counts(vfs: Vfs) -> None:
    """Images by status, the room of each store, and nothing of another path."""
    put(vfs, "file/a", b"data")
    with _address(vfs) as address:
        wait_until(
            lambda: 'imagefs_images{status="active"} 1.0' in _get(address, "/metrics")[1],
            "the image is counted",
        )
        text = _get(address, "/metrics")[1]
        assert 'imagefs_images{status="queued"} 0.0' in text
        assert re.search(r'^imagefs_store_free_bytes\{store="file"\} \d', text, re.M)
        assert _get(address, "/")[0] == 404


def test_silent_clients_keep_nobody_waiting(vfs: Vfs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to a number of them; those above it are turned away at once."""
    monkeypatch.setattr(endpoint, "_CLIENTS", 2)
    with _address(vfs) as address:
        host, _, port = address.partition(":")
        with socket.create_connection((host, int(port))):
            assert _get(address, "/healthz")[0] == 200
            with (
                socket.create_connection((host, int(port))),
                socket.create_connection((host, int(port))) as third,
            ):
                third.settimeout(30)
                assert third.recv(1) == b""


def test_files_of_ended_processes_go(vfs: Vfs) -> None:
    """A process that was killed leaves its file; the next one that starts removes it."""
    targets_folder().mkdir(parents=True)
    (targets_folder() / "1.1.json").write_text("[]")
    with _address(vfs):
        pass


def test_a_port_that_is_taken(vfs: Vfs) -> None:
    """The start fails and says why."""
    with (
        _address(vfs) as address,
        pytest.raises(InvalidSettings, match="in use"),
        monitored(address, vfs, Pulse(), {}),
    ):
        pass


class _Section(BaseModel):
    metrics: MonitoringAddress


@pytest.mark.parametrize("address", ["0.0.0.0:9464", "example.net:9464", "127.0.0.1", "[::]:1"])
def test_only_this_host_may_ask(address: str) -> None:
    """Names of stores and rates are nobody else's business."""
    with pytest.raises(ValidationError):
        _Section(metrics=address)
    assert _Section(metrics="[::1]:9464").metrics == "[::1]:9464"
