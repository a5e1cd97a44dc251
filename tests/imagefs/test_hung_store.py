"""A folder on a server that hangs (NFS): the mount goes on."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.kit.daemon import Daemon, wait_until
from tests.kit.tools import attempt, run, settled
from tests.servers.network.hanging_mount import HangingMount, hanging_mount

_CONFIG = """
[stores.nfs]
type = "filesystem"
path = "{path}"
io_timeout = 0.5
[stores.nfs.policy]
pause = 0.1
[cache]
path = "{cache}"
"""


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[HangingMount]:
    """A folder of a server."""
    with hanging_mount(tmp_path) as folder:
        yield folder


@pytest.fixture
def mounted(
    daemon: Callable[..., Daemon], shared: HangingMount, tmp_path: Path, source: Path
) -> Iterator[Daemon]:
    """A mount with an image in `nfs` and one in `file`, which nobody has read."""
    mounted = daemon()
    with mounted.config.open("a") as config:
        config.write(_CONFIG.format(path=shared.path, cache=tmp_path / "cache"))
    mounted.command("init")
    mounted.start()
    for store in ("nfs", "file"):
        run("cp", source, mounted.path / store / "a.img")
    assert mounted.stop() == 0
    mounted.start()
    yield mounted
    shared.resume()


def failure(path: Path) -> int | None:
    """The errno of reading a file, or None."""
    try:
        path.read_bytes()
    except OSError as error:
        return error.errno
    return None


def test_only_the_images_of_the_hung_server_fail(
    mounted: Daemon, shared: HangingMount, data: bytes, source: Path
) -> None:
    """With many readers of it waiting, another store is read and written; it back, so is it."""
    hung = mounted.path / "nfs" / "a.img"
    shared.hang()
    with ThreadPoolExecutor(40) as threads:
        reads = [threads.submit(failure, hung) for _ in range(200)]
        assert (mounted.path / "file" / "a.img").read_bytes() == data
        run("cp", source, mounted.path / "file" / "b.img")
        assert settled(hung) == "active"
        assert {read.result() for read in reads} == {errno.EIO}
    assert attempt("cp", source, mounted.path / "nfs" / "b.img").returncode == 1
    shared.resume()
    wait_until(lambda: failure(hung) is None, "the server is read again")
    assert hung.read_bytes() == data
    run("cp", source, mounted.path / "nfs" / "c.img")
    assert (mounted.path / "nfs" / "c.img").read_bytes() == data


def test_mount_stops_while_a_server_hangs(mounted: Daemon, shared: HangingMount) -> None:
    """No thread that hangs keeps the process."""
    shared.hang()
    assert failure(mounted.path / "nfs" / "a.img") == errno.EIO
    assert mounted.stop() == 0
