"""Uploads to remote stores while something breaks: whole and active, or killed and gone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.imagefs.faulty import DATA, Remote
from tests.kit.daemon import wait_until
from tests.kit.service import service
from tests.kit.tools import MIB, attempt, field, run, settled, status
from tests.servers.network.breaking_proxy import Fault, Plan, Request, always, every

SMALL = DATA[: 18 * MIB + 5]
"""Three parts in S3, four segments in Swift."""
_WRITING = ("PUT", "POST")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file to upload."""
    path = tmp_path_factory.mktemp("source") / "small.img"
    path.write_bytes(SMALL)
    return path


def storm(request: Request) -> Fault | None:
    """Two requests in a row fail, then three do not."""
    return Fault(status=(500, 503)[request.number % 2]) if request.number % 5 > 2 else None


def full(request: Request) -> Fault | None:
    """Nothing is stored; all else is answered."""
    return Fault(status=507) if request.method in _WRITING else None


PASSING: dict[str, Callable[[], Plan]] = {
    "cut": lambda: every(4, Fault(cut_request=100_000)),
    "reset": lambda: every(3, Fault(cut_request=1 << 20, reset=True), "PUT"),
    "storm": lambda: storm,
    "stall": lambda: every(4, Fault(stall=-1), "PUT"),
    "corrupt": lambda: every(4, Fault(corrupt_request=5000), "PUT"),
}

LASTING: dict[str, Plan] = {
    "broken": always(Fault(status=500), "PUT"),
    "full": full,
    "forbidden": always(Fault(status=403), "PUT"),
}


def kept(remote: Remote, store: str) -> list[str]:
    """All that the server has of a store: objects, parts, segments."""
    return sorted(remote.left_in_s3() if store == "s3" else remote.left_in_swift())


@pytest.mark.parametrize("store", ["s3", "swift"])
@pytest.mark.parametrize("fault", PASSING if os.environ.get("IMAGEFS_FAULTS") else ("cut", "storm"))
def test_upload_outlives_it_or_is_killed(
    remote: Remote, source: Path, store: str, fault: str
) -> None:
    """`cp` that succeeds has stored every byte; one that fails says why and leaves nothing."""
    before = kept(remote, store)
    path = remote.path(store, f"{fault}.img")
    remote.between.set_plan(PASSING[fault]())
    copied = attempt("cp", source, path)
    remote.behave()
    if copied.returncode == 0:
        assert settled(path) == "active"
        run("cmp", source, remote.cold(store, path.name))
    else:
        assert (status(path), bool(field(path, "message"))) == ("killed", True)
    remove(remote, path)
    assert kept(remote, store) == before


@pytest.mark.parametrize("store", ["s3", "swift"])
@pytest.mark.parametrize("fault", LASTING)
def test_upload_that_cannot_succeed(remote: Remote, source: Path, store: str, fault: str) -> None:
    """close(2) fails, the image is killed and says why, and the server has nothing of it."""
    before = kept(remote, store)
    path = remote.path(store, "bad.img")
    remote.between.set_plan(LASTING[fault])
    assert attempt("cp", source, path).returncode == 1
    remote.behave()
    assert (status(path), bool(field(path, "message"))) == ("killed", True)
    assert kept(remote, store) == before
    remove(remote, path)


@pytest.mark.parametrize("store", ["s3", "swift"])
def test_webdav_put(remote: Remote, store: str) -> None:
    """The same over HTTP: every byte is stored while requests break."""
    before = kept(remote, store)
    path = remote.path(store, "dav.img")
    remote.between.set_plan(every(10, Fault(cut=-1)))
    with service(remote.daemon) as server:
        assert server.ask(f"PUT /{store}/dav.img", body=SMALL).status == 201
        remote.behave()
        assert server.ask(f"GET /{store}/dav.img").body == SMALL
    wait_until(path.exists, "the mount sees it")
    remove(remote, path)
    assert kept(remote, store) == before


def remove(remote: Remote, path: Path) -> None:
    """Delete an image and its data."""
    number = field(path, "id")
    run("rm", path)
    trash = remote.daemon.path / path.relative_to(remote.daemon.path).parts[0] / ".trash"
    (deleted,) = [name for name in trash.iterdir() if field(name, "id") == number]
    run("rm", deleted)
