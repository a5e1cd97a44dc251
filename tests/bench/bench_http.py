"""Data over HTTP, against Apache's mod_dav, rclone's WebDAV server and nginx with TLS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from dav.server import TlsFiles
from tests.bench import measure
from tests.bench.conftest import Table
from tests.bench.measure import GIB, MIB
from tests.dav import peers, wire
from tests.dav.wire import Process

SIZE = 2 * GIB
RANGES = 64
OURS = "imagefs"
MEMORY_LIMIT = 200 * MIB


@dataclass(frozen=True, slots=True)
class Site:
    """Servers of one file, `image`, by their URLs."""

    folder: Path
    urls: dict[str, str]
    ours: Process
    curl: tuple[str | Path, ...]

    def get(self, name: str) -> partial[None]:
        """Download the file from that server."""
        url = f"{self.urls[name]}/image"
        return partial(measure.run, *self.curl, "-o", "/dev/null", url)

    def put(self, name: str) -> partial[None]:
        """Upload the file to that server."""
        url = f"{self.urls[name]}/uploaded"
        source = self.folder / "www" / "image"
        return partial(measure.run, *self.curl, "-o", "/dev/null", "-T", source, url)

    def get_ranges(self, name: str) -> partial[None]:
        """Download `RANGES` pieces of 1 MiB at the same time."""
        command: list[str | Path] = [*self.curl, "-Z", "--parallel-immediate"]
        command += ["--parallel-max", str(RANGES)]
        for number in range(RANGES):
            first = number * SIZE // RANGES
            span = f"{first}-{first + MIB - 1}"
            command += ["--next"] if number else []
            command += ["-sf", "-o", "/dev/null", "-r", span, f"{self.urls[name]}/image"]
        return partial(measure.run, *command)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with `www/image`; not tmp_path, which is closed to other users' servers."""
    with TemporaryDirectory() as name:
        www = Path(name) / "www"
        www.mkdir()
        measure.make_file(www / "image", SIZE)
        yield Path(name)


@pytest.fixture
def plain(folder: Path) -> Iterator[Site]:
    """Apache, rclone and ours over HTTP."""
    with ExitStack() as stack:
        ours = stack.enter_context(wire.process(folder / "www"))
        urls = {
            OURS: f"http://127.0.0.1:{ours.port}",
            "Apache": stack.enter_context(peers.apache(folder)),
            "rclone": stack.enter_context(peers.rclone(folder)),
        }
        yield Site(folder, urls, ours, ("curl", "-sf"))


@pytest.fixture
def secure(folder: Path) -> Iterator[Site]:
    """Nginx and ours over TLS."""
    tls: TlsFiles = wire.make_certificate(folder)
    with ExitStack() as stack:
        ours = stack.enter_context(wire.process(folder / "www", tls))
        urls = {
            OURS: f"https://images.test:{ours.port}",
            "nginx": stack.enter_context(peers.nginx(folder, tls)),
        }
        curl: list[str | Path] = ["curl", "-sf", "--cacert", tls.certificate]
        for url in urls.values():
            curl += ["--resolve", f"images.test:{url.rpartition(':')[2]}:127.0.0.1"]
        yield Site(folder, urls, ours, tuple(curl))


def test_get(plain: Site, table: Table) -> None:
    """A file of 2 GiB that is in the page cache."""
    times = _in_turns(plain, plain.get)
    _compare("GET of 2 GiB", times, SIZE, table, {"Apache": "≥ 1.0", "rclone": "≥ 5"})
    _memory(plain, table, "GET")


def test_ranges(plain: Site, table: Table) -> None:
    """64 pieces of 1 MiB at the same time."""
    times = _in_turns(plain, plain.get_ranges, rounds=9)
    _compare("64 parallel ranges of 1 MiB", times, RANGES * MIB, table, {"Apache": "≥ 0.5"})


def test_put(plain: Site, table: Table) -> None:
    """2 GiB into a file."""
    del plain.urls["rclone"]
    uploaded = plain.folder / "www" / "uploaded"

    def clean() -> None:
        uploaded.unlink(missing_ok=True)
        measure.run("sync")

    times = _in_turns(plain, plain.put, before=clean)
    _compare("PUT of 2 GiB", times, SIZE, table, {"Apache": "≥ 1.0"})
    _memory(plain, table, "PUT")


def test_tls_get(secure: Site, table: Table) -> None:
    """The same download, encrypted."""
    times = _in_turns(secure, secure.get)
    _compare("TLS GET of 2 GiB", times, SIZE, table, {"nginx": "≥ 0.9"})
    _memory(secure, table, "TLS GET")


def _in_turns(
    site: Site,
    work: Callable[[str], partial[None]],
    rounds: int = 5,
    before: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    works: dict[str, Callable[[], object]] = {name: work(name) for name in site.urls}
    return measure.in_turns(works, rounds=rounds, before=before)


def _compare(
    what: str, times: dict[str, float], size: int, table: Table, targets: dict[str, str]
) -> None:
    for name in times.keys() - {OURS}:
        speed = [f"{size / MIB / times[it]:.0f} MiB/s" for it in (OURS, name)]
        ratio = times[name] / times[OURS]
        table.add(f"{what}, to {name}", speed, ratio, targets.get(name, ""))


def _memory(site: Site, table: Table, what: str) -> None:
    peak = site.ours.memory()["VmHWM"]
    table.note(f"peak memory of {what}", f"{peak / MIB:.0f} MiB", "< 200")
    assert peak < MEMORY_LIMIT
