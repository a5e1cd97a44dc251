"""`imagefs cache`, over images of a real web server."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from catalog.cli.program import imagefs as program
from catalog.model.access import ADMIN
from catalog.service.bootstrap import open_catalog
from catalog.service.configuration import load
from catalog.tree.vfs import Vfs
from tests.catalog.cache.remote import some_data
from tests.servers.scripted import WebServer, nginx

DATA = some_data(9_000_000)
CONFIG = """
[catalog]
url = "sqlite:///{0}/catalog.db"
[cache]
path = "{0}/cache"
size = 268_435_456
[stores.file]
type = "filesystem"
path = "{0}/file"
[stores.web]
type = "http"
allow_hosts = ["127.0.0.1"]
"""

Run = Callable[..., Result]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WebServer]:
    """A web server with an image."""
    with nginx(tmp_path) as server:
        (server.root / "image").write_bytes(DATA)
        yield server


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs the command on a new catalog."""
    config = tmp_path / "imagefs.toml"
    config.write_text(CONFIG.format(tmp_path))

    def run(*arguments: str, code: int = 0) -> Result:
        result = CliRunner().invoke(program, ["--config", str(config), *arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    run("init")
    return run


@pytest.fixture
def image(run: Run, server: WebServer, tmp_path: Path) -> str:
    """The path of the server's image, which `ln -s` has registered."""
    vfs = Vfs(open_catalog(load(tmp_path / "imagefs.toml")))
    vfs.register(vfs.place("/web/image"), f"{server.url}/image", ADMIN)
    vfs.close()
    return "/web/image"


def status(run: Run) -> Any:
    """What `cache status --json` tells."""
    return json.loads(run("cache", "status", "--json").stdout)


def test_warm_pin_drop(run: Run, server: WebServer, image: str) -> None:
    """A remote image is fetched whole, read without its server, kept, and dropped."""
    assert "has no digests" in run("cache", "warm", image, code=2).stderr
    run("verify", image)
    run("cache", "warm", image)
    (cached,) = status(run)["images"]
    assert (cached["name"], cached["size"], cached["chunks"]) == ("image", len(DATA), 3)
    assert (cached["claimed"], cached["open"], cached["pinned"]) == (3, False, False)
    assert status(run)["used"] == cached["cached"] >= len(DATA)

    (server.root / "image").unlink()
    target = server.root.parent / "exported"
    run("export", image, str(target))
    assert target.read_bytes() == DATA

    run("cache", "pin", cached["id"][:8])
    assert "pinned" in run("cache", "status").stdout
    run("cache", "pin", "--remove", image)
    assert not status(run)["images"][0]["pinned"]
    run("cache", "drop", "--all")
    assert status(run)["images"] == []
    run("export", image, str(target), code=5)


def test_a_deleted_image_leaves_the_cache(run: Run, image: str) -> None:
    """Its chunks go with it."""
    run("verify", image)
    run("cache", "warm", image)
    run("delete", "--now", image)
    assert status(run)["images"] == []


def test_image_that_the_catalog_has_no_more(run: Run, image: str, tmp_path: Path) -> None:
    """What another host's deletion has left is listed without a name, and dropped by its id."""
    run("verify", image)
    run("cache", "warm", image)
    shutil.copytree(tmp_path / "cache/images", tmp_path / "kept")
    run("delete", "--now", image)
    shutil.copytree(tmp_path / "kept", tmp_path / "cache/images", dirs_exist_ok=True)
    (cached,) = status(run)["images"]
    run("cache", "drop", cached["id"][:8])
    assert status(run)["images"] == []


def test_usage(run: Run) -> None:
    """Nothing to drop, no such image, an image of this host, an empty cache."""
    run("cache", "drop", code=2)
    run("cache", "drop", "4711", code=4)
    run("cache", "pin", "/file/missing", code=4)
    assert status(run)["images"] == []
    assert "of 256.0 MiB" in run("cache", "status").stdout


def test_no_cache(tmp_path: Path, run: Run) -> None:
    """A size of 0 is no cache, and its commands say so."""
    config = tmp_path / "imagefs.toml"
    config.write_text(config.read_text().replace("268_435_456", "0"))
    assert "its size is 0" in run("cache", "status", code=1).stderr
