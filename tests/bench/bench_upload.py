"""Copying an image in, against a copy on the disk that is synced and hashed."""

from __future__ import annotations

from pathlib import Path

from tests.bench import measure
from tests.bench.conftest import Table
from tests.bench.measure import GIB, MIB
from tests.kit.daemon import Daemon

MEMORY_LIMIT = 200 * MIB


def test_copy_in(mounted: Daemon, tmp_path: Path, table: Table) -> None:
    """`cp` into the mount, all digests and fsync included."""
    source = measure.make_file(tmp_path / "source.img", GIB)
    plain = tmp_path / "plain.img"
    image = mounted.path / "file" / "image.img"

    def copy_in() -> None:
        measure.run("cp", source, image)

    def copy_and_hash() -> None:
        measure.run("cp", source, plain)
        measure.run("sync", plain)
        measure.run("sha256sum", plain)

    def clean() -> None:
        plain.unlink(missing_ok=True)
        if image.exists():
            image.unlink()
            (mounted.path / "file" / ".trash" / "image.img").unlink()
        measure.run("sync")

    times = measure.in_turns({"ours": copy_in, "plain": copy_and_hash}, before=clean)
    each = [f"{times[it]:.2f} s" for it in ("ours", "plain")]
    table.add(
        "cp of 1 GiB in, to cp + sync + sha256sum (time)",
        each,
        times["ours"] / times["plain"],
        "≤ 1.5",
    )


def test_memory(mounted: Daemon, tmp_path: Path, table: Table) -> None:
    """The mount's peak memory while an image is copied in and read back."""
    for size in (64 * MIB, GIB, 4 * GIB):
        mounted.stop()
        mounted.start()
        source = measure.make_file(tmp_path / "source.img", size)
        image = mounted.path / "file" / f"{size}.img"
        measure.run("cp", source, image)
        measure.forget_pages(image)
        measure.run("cmp", source, image)
        peak = mounted.peak_memory()
        table.note(f"peak memory, image of {size // MIB} MiB", f"{peak / MIB:.0f} MiB", "< 200")
        assert peak < MEMORY_LIMIT
