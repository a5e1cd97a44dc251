"""A corpus of small images, and random damage to them: cuts, flips, splices, odd numbers."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from tests.kit.images.samples import CONTAINERS, container, disk, footed_vmdk, luks1, qemu_img, run

_ODD = (0, 1, 2, 3, 4, 7, 0x200, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1)


def _made(kind: str, *options: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / "image"
        qemu_img("create", "-q", "-f", kind, *options, path, "8M")
        return path

    return make


def _with_data_file(folder: Path) -> Path:
    path = folder / "image"
    option = f"data_file={folder / 'other'},data_file_raw=on"
    qemu_img("create", "-q", "-f", "qcow2", "-o", option, path, "8M")
    return path


def _overlay(kind: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        base, path = folder / "base", folder / "image"
        qemu_img("create", "-q", "-f", kind, base, "8M")
        qemu_img("create", "-q", "-f", kind, "-F", kind, "-b", base, path)
        return path

    return make


def _iso(folder: Path) -> Path:
    path = folder / "image"
    run("genisoimage", "-quiet", "-o", path, disk(folder))
    return path


def _with_snapshot(folder: Path) -> Path:
    path = container(folder, "qcow2")
    qemu_img("snapshot", "-c", "one", path)
    qemu_img("bitmap", "--add", path, "backup")
    return path


def _whole(name: str) -> Callable[[Path], Path]:
    return lambda folder: container(folder, name)


_MAKERS: dict[str, Callable[[Path], Path]] = {
    **{name: _whole(name) for name in CONTAINERS},
    "raw": disk,
    "luks": luks1,
    "footed.vmdk": footed_vmdk,
    "snapshot.qcow2": _with_snapshot,
    "overlay.qcow2": _overlay("qcow2"),
    "child.vmdk": _overlay("vmdk"),
    "iso": _iso,
    "parallels": _made("parallels"),
    "qed": _made("qed"),
    "qcow": _made("qcow"),
    "descriptor.vmdk": _made("vmdk", "-o", "subformat=monolithicFlat"),
    "data-file.qcow2": _with_data_file,
}


@cache
def corpus() -> dict[str, bytes]:
    """Every kind of image, made by the real tools."""
    found = {}
    for name, make in _MAKERS.items():
        with TemporaryDirectory(prefix="imagefs-") as folder:
            found[name] = make(Path(folder)).read_bytes()
    found["gzip"] = gzip.compress(found["qcow2"][:100_000])
    return found


def damaged(seed: int) -> tuple[str, bytes]:
    """The image that a seed stands for, and a name of it."""
    random = Random(seed)
    images = corpus()
    name = random.choice(sorted(images))
    data = bytearray(images[name])
    steps = [random.choice(_STEPS) for _ in range(random.choice((1, 1, 1, 2, 4)))]
    for step in steps:
        step(random, data)
    return f"{seed} {name} {' '.join(step.__name__ for step in steps)}", bytes(data)


def _place(random: Random, data: bytearray) -> int:
    """An offset: mostly where headers and tables are."""
    end = max(1, len(data))
    reach = random.choice((64, 128, 512, 1024, 4096, 1 << 18, end, end))
    place = random.randrange(min(reach, end))
    return end - 1 - place if random.random() < 0.1 else place


def cut(random: Random, data: bytearray) -> None:
    """Without its end."""
    del data[_place(random, data) :]


def flip(random: Random, data: bytearray) -> None:
    """A few bits."""
    for _ in range(random.choice((1, 1, 2, 8))):
        if data:
            data[_place(random, data)] ^= 1 << random.randrange(8)


def number(random: Random, data: bytearray) -> None:
    """A number of a header or table is another."""
    width = random.choice((2, 4, 8))
    place = _place(random, data) // width * width
    value = random.choice((*_ODD, len(data), random.getrandbits(64))) % 2 ** (8 * width)
    data[place : place + width] = value.to_bytes(width, random.choice(("big", "little")))


def splice(random: Random, data: bytearray) -> None:
    """A piece of another image, where it was there or elsewhere."""
    other = corpus()[random.choice(sorted(corpus()))]
    length = random.choice((4, 16, 64, 512, 4096, 1 << 16))
    start = random.choice((0, 0, _place(random, bytearray(other[:1]) * len(other))))
    place = random.choice((start, _place(random, data)))
    data[place : place + length] = other[start : start + length]


def grow(random: Random, data: bytearray) -> None:
    """Zeros or another image behind the end."""
    data += random.choice(
        (bytes(random.choice((1, 511, 512, 1 << 16))), corpus()["fixed.vhd"][-512:])
    )


_STEPS = (cut, flip, flip, number, number, splice, grow)


def seeds(count: int) -> list[range]:
    """The seeds below `count`, in parts of a hundred."""
    return [range(start, min(start + 100, count)) for start in range(0, count, 100)]
