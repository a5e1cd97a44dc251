"""Reading one image, against bindfs (C) and rclone mount on the same file."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.bench import measure
from tests.bench.conftest import Table
from tests.bench.measure import GIB, MIB
from tests.kit.daemon import Daemon

SIZE = GIB
READ_AHEAD_KIB = 4096
OURS = "imagefs"


@pytest.fixture
def paths(mounted: Daemon, tmp_path: Path) -> Iterator[dict[str, Path]]:
    """The same file through each mount, and itself as `disk`."""
    source = measure.make_file(tmp_path / "source.img", SIZE)
    shutil.copyfile(source, mounted.path / "file" / "image.img")
    source.unlink()
    store = mounted.state / "file"
    (stored,) = (path for path in store.iterdir() if path.is_file() and path.name[0] != ".")
    with ExitStack() as stack:
        found = {"disk": stored, OURS: mounted.path / "file" / "image.img"}
        for name, command in {
            "bindfs": ("bindfs", "-f", store),
            "bindfs, 4 MiB read-ahead": ("bindfs", "-f", store),
            "rclone mount": ("rclone", "mount", "--config=", store),
        }.items():
            mount = tmp_path / name
            stack.enter_context(measure.other_mount(mount, *command, mount))
            found[name] = mount / stored.name
        measure.set_read_ahead(found["bindfs, 4 MiB read-ahead"], READ_AHEAD_KIB)
        yield found


def test_sequential(paths: dict[str, Path], table: Table) -> None:
    """From beginning to end: from the page cache of the disk's file, from the disk, again."""

    def cold() -> None:
        for path in paths.values():
            measure.forget_pages(path)
        measure.read_all(paths["disk"])

    works = {name: partial(measure.read_all, path) for name, path in paths.items()}
    _compare("sequential, cold", works, table, measure.in_turns(works, before=cold))
    from_disk = measure.in_turns(works, rounds=3, before=lambda: measure.drop_caches(1))
    _compare("sequential, cold, from the disk", works, table, from_disk)
    _compare("sequential, again", works, table, measure.in_turns(works))


def test_random(paths: dict[str, Path], table: Table) -> None:
    """Blocks from all over the file, each asked of the mount for the first time."""
    paths = {name: path for name, path in paths.items() if "rclone" not in name}  # a minute each
    for size, count in ((4096, 8000), (128 * 1024, 3000)):
        works = {
            name: partial(measure.read_at_random, path, size, count, seed=size)
            for name, path in paths.items()
        }

        def cold() -> None:
            for name, path in paths.items():
                if name != "disk":
                    measure.forget_pages(path)
            measure.read_all(paths["disk"])

        times = measure.in_turns(works, before=cold)
        for name in _others(works):
            each = [f"{times[it] / count * 1e6:.0f} µs" for it in (OURS, name)]
            what = f"random {size // 1024} KiB, cold, to {name}"
            table.add(what, each, times[name] / times[OURS])


def _compare(
    what: str, works: dict[str, partial[None]], table: Table, times: dict[str, float]
) -> None:
    targets = {
        ("sequential, cold", "bindfs"): "≥ 1.3",
        ("sequential, cold", "rclone mount"): "≥ 5",
        ("sequential, again", "bindfs"): "≥ 1",
    }
    for name in _others(works):
        speed = [f"{SIZE / MIB / times[it]:.0f} MiB/s" for it in (OURS, name)]
        ratio = times[name] / times[OURS]
        table.add(f"{what}, to {name}", speed, ratio, targets.get((what, name), ""))


def _others(works: dict[str, partial[None]]) -> list[str]:
    return [name for name in works if name != OURS]
