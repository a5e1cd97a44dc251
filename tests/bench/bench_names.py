"""Names: lookup, open, create, list, through the library, the mount and WebDAV.

Against an earlier version in the same run: `IMAGEFS_BENCH_OLD` is a checkout of it with a `.venv`.
Against bindfs over the same names in a folder of the disk, if there is no earlier version, too.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.bench import measure
from tests.bench.bench_webdav import Client
from tests.bench.conftest import Table
from tests.bench.names_worker import SIZE
from tests.kit.daemon import Daemon
from tests.kit.large_folder import name_of
from tests.kit.service import Service

OURS, OLD, BINDFS = "imagefs", "before", "bindfs"
HERE = Path(__file__).parents[2]
_OLD = os.environ.get("IMAGEFS_BENCH_OLD")
_ROUNDS = 5
_LOOKUPS = 200
_OPENS = 200
_CREATES = 40
_REQUESTS = 100
_SMALL = bytes(4096)


@dataclass(frozen=True)
class Version:
    """A checkout of the program."""

    name: str
    path: Path

    @property
    def command(self) -> tuple[str, ...]:
        """What starts the program."""
        return (str(self.path / ".venv/bin/imagefs"),)

    def work(self, *arguments: str | Path) -> str:
        """Run the worker with this version's packages; return what it prints."""
        worker = HERE / "tests/bench/names_worker.py"
        python = self.path / ".venv/bin/python"
        return subprocess.run(
            [python, "-P", worker, *arguments],
            env={**os.environ, "PYTHONPATH": str(self.path)},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout


VERSIONS = [Version(OURS, HERE), *([Version(OLD, Path(_OLD))] if _OLD else [])]


def test_library(tmp_path: Path, table: Table) -> None:
    """Each operation in one process, the versions in turns."""
    times: dict[str, list[dict[str, float]]] = {version.name: [] for version in VERSIONS}
    for number in range(_ROUNDS):
        for version in VERSIONS:
            folder = tmp_path / f"{version.name}-{number}"
            folder.mkdir()
            times[version.name].append(json.loads(version.work("measure", folder)))
    for what in times[OURS][0]:
        _compare(
            f"library: {what}",
            {
                name: statistics.median(each[what] for each in found)
                for name, found in times.items()
            },
            table,
        )


def _compare(what: str, times: dict[str, float], table: Table) -> None:
    ours = f"{times[OURS] * 1e6:,.0f} µs"
    others = [name for name in times if name != OURS]
    if not others:
        table.note(what, ours)
    for name in others:
        each = [ours, f"{times[name] * 1e6:,.0f} µs"]
        table.add(f"{what}, to {name}", each, times[name] / times[OURS])


@pytest.fixture(scope="module")
def daemons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Daemon]]:
    """A catalog of each version with a folder of 1,000 images, mounted by it."""
    with ExitStack() as stack:
        found = {}
        for version in VERSIONS:
            daemon = found[version.name] = Daemon(tmp_path_factory.mktemp(version.name) / "host")
            # Made anew: an earlier version knows only its own schema.
            for path in daemon.state.glob("catalog.db*"):
                path.unlink()
            subprocess.run([*version.command, "--config", daemon.config, "init"], check=True)
            version.work("fill", daemon.config)
            stack.enter_context(daemon.mounted(*version.command))
        yield found


@pytest.fixture
def folders(daemons: dict[str, Daemon], tmp_path: Path) -> Iterator[dict[str, Path]]:
    """The folder of 1,000 through each mount; bindfs' is of empty files."""
    plain = tmp_path / "plain"
    plain.mkdir()
    for number in range(SIZE):
        (plain / name_of(number)).touch()
    mount = tmp_path / "mount"
    with measure.other_mount(mount, "bindfs", "-f", plain, mount):
        found = {name: daemon.path / "file" / str(SIZE) for name, daemon in daemons.items()}
        yield {**found, BINDFS: mount}


def _in_turns(
    works: Mapping[str, Callable[[], object]], count: int, *, forget: bool = True
) -> dict[str, float]:
    """The median time of one of the `count` operations of each work."""

    def before() -> None:
        if forget:
            measure.drop_caches(2)

    times = measure.in_turns(works, rounds=_ROUNDS, before=before)
    return {name: seconds / count for name, seconds in times.items()}


def test_lookups_through_the_mount(
    folders: dict[str, Path], daemons: dict[str, Daemon], table: Table
) -> None:
    """stat(2) of names that the kernel does not know; the first time, and again."""
    names = [name_of(number) for number in random.Random(1).sample(range(SIZE), _LOOKUPS)]
    seen = set(names)
    fresh = [name_of(n) for n in range(SIZE) if name_of(n) not in seen][:_LOOKUPS]

    def look(folder: Path, some: list[str]) -> None:
        for name in some:
            os.stat(folder / name)

    first = {name: _time(partial(look, folder, fresh)) for name, folder in folders.items()}
    _compare("mount: stat of a name never seen", _each(first, _LOOKUPS), table)
    used = {name: _cpu(daemon) for name, daemon in daemons.items()}
    works = {name: partial(look, folder, names) for name, folder in folders.items()}
    _compare("mount: stat of a name that the kernel forgot", _in_turns(works, _LOOKUPS), table)
    for name, daemon in daemons.items():
        each = (_cpu(daemon) - used[name]) / (_ROUNDS * _LOOKUPS)
        table.note(f"mount: the daemon's processor time for it, {name}", f"{each * 1e6:,.0f} µs")

    def miss(folder: Path) -> None:
        for number in range(_LOOKUPS):
            assert not os.path.lexists(folder / f"nobody {number}")

    works = {name: partial(miss, folder) for name, folder in folders.items()}
    _compare("mount: stat of an absent name", _in_turns(works, _LOOKUPS), table)


def _time(work: Callable[[], object]) -> float:
    measure.drop_caches(2)
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _each(times: dict[str, float], count: int) -> dict[str, float]:
    return {name: seconds / count for name, seconds in times.items()}


def _cpu(daemon: Daemon) -> float:
    assert daemon.process is not None
    return measure.cpu_seconds(daemon.process.pid)


def test_files_through_the_mount(folders: dict[str, Path], table: Table) -> None:
    """Create with 4 KiB, then open, read and close; each in another folder."""
    numbers = itertools.count()
    made = {name: folder.parent / "small" for name, folder in folders.items()}
    for folder in made.values():
        folder.mkdir(exist_ok=True)

    def create(folder: Path) -> None:
        for _ in range(_CREATES):
            (folder / str(next(numbers))).write_bytes(_SMALL)

    def read(folder: Path) -> None:
        for path in itertools.islice(itertools.cycle(files[folder]), _OPENS):
            with open(path, "rb", buffering=0) as file:
                file.read(4096)

    works = {name: partial(create, folder) for name, folder in made.items()}
    _compare("mount: create with 4 KiB", _in_turns(works, _CREATES, forget=False), table)
    files = {folder: list(folder.iterdir()) for folder in made.values()}
    works = {name: partial(read, folder) for name, folder in made.items()}
    _compare("mount: open, read, close", _in_turns(works, _OPENS, forget=False), table)


def test_listing_through_the_mount(folders: dict[str, Path], table: Table) -> None:
    """`ls -l` of 1,000 images, nothing cached."""
    works = {name: partial(measure.run, "ls", "-l", folder) for name, folder in folders.items()}
    _compare("mount: ls -l of 1,000", _in_turns(works, 1), table)


class Requests:
    """Requests of one client, on one connection."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._numbers = itertools.count()

    def look(self) -> None:
        """PROPFIND of one image after the other."""
        for number in range(_REQUESTS):
            self._client.ask("PROPFIND", b"207", name_of(number), "Depth: 0")

    def put(self, count: int = _CREATES) -> None:
        """PUT of 4 KiB to new names."""
        for _ in range(count):
            self._client.ask("PUT", b"201", f"put-{next(self._numbers)}", body=_SMALL)

    def get(self) -> None:
        """GET of 4 KiB."""
        for _ in range(_REQUESTS):
            self._client.ask("GET", b"200", "put-0")

    def list(self) -> None:
        """PROPFIND of the folder."""
        self._client.ask("PROPFIND", b"207", "", "Depth: 1")


def test_webdav(daemons: dict[str, Daemon], table: Table) -> None:
    """PROPFIND of one image and of 1,000, GET and PUT of 4 KiB, on one connection each."""
    with ExitStack() as stack:
        clients = {}
        for version in VERSIONS:
            service = Service(daemons[version.name], "write", program=version.command)
            stack.callback(service.stop)
            client = stack.enter_context(Client(service.url, f"/file/{SIZE}/"))
            clients[version.name] = Requests(client)

        def change() -> None:
            for client in clients.values():
                client.put(1)

        for what, method, count in (
            ("PUT of 4 KiB", Requests.put, _CREATES),
            ("GET of 4 KiB", Requests.get, _REQUESTS),
            ("PROPFIND of an image", Requests.look, _REQUESTS),
        ):
            works = {name: partial(method, client) for name, client in clients.items()}
            _compare(f"WebDAV: {what}", _in_turns(works, count, forget=False), table)
        works = {name: partial(Requests.list, client) for name, client in clients.items()}
        times = measure.in_turns(works, rounds=_ROUNDS, before=change)
        _compare("WebDAV: PROPFIND of 1,000 after a change", times, table)
