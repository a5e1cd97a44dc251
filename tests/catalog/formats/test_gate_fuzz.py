"""Random damage to every container: always a verdict, and qemu agrees with it.

IMAGEFS_FUZZ=10000 in the environment is how many there are; else it is a few hundred.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from catalog.errors import InvalidImage
from catalog.formats.gate import Declared, Detected, inspect
from tests.kit.images.damaged import damaged, seeds

pytestmark = pytest.mark.stress

COUNT = int(os.environ.get("IMAGEFS_FUZZ", "600"))
LARGEST_READ = 1 << 20
"""Bytes that the gate may ask for at once."""

_OPENED = re.compile(r'open(?:at2?)?\((?:AT_FDCWD, )?"((?:[^"\\]|\\.)*)"')
_QEMU_NAMES = {"vhd": "vpc", "iso": "raw", "ploop": "parallels"}


class Watched:
    """Bytes in memory as a Source that counts what is asked of it."""

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self.read = 0
        self._data = data

    def read_at(self, offset: int, size: int) -> bytes:
        """No read goes behind the end, nor is it large."""
        assert 0 <= offset <= self.size
        assert 0 <= size <= LARGEST_READ
        self.read += size
        return self._data[offset : offset + size]


def judged(data: bytes, declared: str | None = None) -> Detected | None:
    """The verdict; None if it is a refusal, of one line and not of a mistake of ours."""
    source = Watched(data)
    try:
        found = inspect(source, Declared(declared))
        assert 0 <= found.virtual_size < 2**63
    except InvalidImage as error:
        found, reason = None, error.reason
    else:
        reason = "passed"
    assert reason.isprintable()
    assert "cannot be judged" not in reason
    # Each table once, and the inspectors of others look at the first MiB.
    assert source.read <= 4 * source.size + 16 * LARGEST_READ
    return found


@cache
def opens_always(folder: Path) -> frozenset[str]:
    """What qemu-img opens for any image."""
    path = folder / "plain"
    path.write_bytes(bytes(4096))
    return opened_for(path)[1] - {str(path)}


def opened_for(path: Path, *options: str) -> tuple[dict[str, object], frozenset[str]]:
    """What qemu-img says of an image, and the names of all it opened or tried to."""
    log = path.with_suffix(".strace")
    calls = "trace=open,openat,openat2"
    watched = ["strace", "-f", "-qq", "-e", calls, "-o", str(log)]
    info = ["qemu-img", "info", "--output=json", *options, str(path)]
    done = subprocess.run([*watched, *info], capture_output=True, timeout=60)
    named = _OPENED.findall(log.read_text(errors="replace"))
    # A thread asks how many processors there are.
    opened = frozenset(name for name in named if not name.startswith("/sys/devices/system/"))
    return (json.loads(done.stdout) if done.returncode == 0 else {}), opened


def agrees(path: Path, found: Detected) -> str:
    """What is wrong with a verdict in qemu's eyes; empty if nothing is."""
    told, opened = opened_for(path)
    if others := opened - opens_always(path.parent) - {str(path)}:
        return f"qemu opened {sorted(others)}"
    if "backing-filename" in told or "full-backing-filename" in told:
        return f"qemu would open {told['backing-filename']}"
    wanted = _QEMU_NAMES.get(found.disk_format, found.disk_format)
    if told.get("format") == "raw" and found.disk_format == "vhd":
        told, _ = opened_for(path, "-f", "vpc")  # a fixed one: qemu probes no footer
    if told.get("format") != wanted:
        return f"qemu says {told.get('format')}"
    size = found.virtual_size + (-found.virtual_size % 512 if wanted == "raw" else 0)
    return "" if told["virtual-size"] == size else f"qemu says {told['virtual-size']} bytes"


@pytest.mark.parametrize("part", seeds(COUNT), ids=lambda part: f"{part.start}-{part.stop}")
def test_damage_ends_in_a_verdict_that_qemu_shares(tmp_path: Path, part: range) -> None:
    """No error but a refusal; what passes is to qemu what was recorded, and no other file."""
    wrong = []
    for seed in part:
        name, data = damaged(seed)
        found = judged(data)
        raw = judged(data, "raw")
        assert raw is None or raw.virtual_size == len(data)
        for verdict in {found, raw} - {None}:
            assert verdict is not None
            path = tmp_path / "image"
            path.write_bytes(data)
            if problem := agrees(path, verdict):
                wrong.append(f"{name}: {verdict}: {problem}")
    assert wrong == []
