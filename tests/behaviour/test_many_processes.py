"""Many processes on one SQLite catalog: nobody is told that it is locked, nothing is lost.

Each process keeps its own account of what it did and checks it at the end; a counter that
all of them raise shows whether any change was lost between them.  IMAGEFS_SOAK is the time
it goes on, in seconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from catalog.tree.vfs import Vfs
from catalog.upkeep.fsck import fsck
from tests.kit.catalog import image_at, names_in, new_catalog, put, read, settings_at, staged_files

pytestmark = pytest.mark.stress

PROCESSES = 16
SECONDS = float(os.environ.get("IMAGEFS_SOAK", "10"))

WORKER = """
import json, random, sys, time
from contextlib import contextmanager
from pathlib import Path
from catalog.model.access import ADMIN
from catalog.service.bootstrap import open_catalog
from catalog.catalog import Catalog
from catalog.tree.vfs import Vfs
from tests.kit.catalog import *

path, me, seconds = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
chance, mine, added, steps, waits = random.Random(me), {}, 0, 0, []
begin_write = Catalog.write

@contextmanager
def timed_write(self):
    asked = time.monotonic()
    with begin_write(self) as repository:
        waits.append(time.monotonic() - asked)
        yield repository

Catalog.write = timed_write
vfs = Vfs(open_catalog(settings_at(path)))

def add(name):
    data = some_bytes(chance.randrange(1, 5000), chance.random())
    assert put(vfs, f"/file/{name}", data).status == "active"
    mine[name] = [data.hex(), 0]

def move(name):
    to = f"{me}-{steps}-moved"
    rename(vfs, f"/file/{name}", f"/file/{to}")
    mine[to] = mine.pop(name)

def change(name):
    mine[name][1] += 1
    set_fields(vfs, f"/file/{name}", min_disk=str(mine[name][1]))

def delete(name):
    remove(vfs, f"/file/{name}")
    del mine[name]

def count():
    global added
    with vfs.catalog.write() as repository:
        image = repository.image(image_at(vfs, "/file/counter").number)
        repository.set_image(image.number, min_ram=image.min_ram + 1)
    added += 1

end = time.monotonic() + seconds
while time.monotonic() < end:
    steps += 1
    if not mine or chance.random() < 0.3:
        add(f"{me}-{steps}")
    elif chance.random() < 0.2:
        count()
    elif chance.random() < 0.05:
        # As a command does: close, and open again.
        vfs.catalog.close()
        vfs = Vfs(open_catalog(settings_at(path)))
    else:
        chance.choice([move, change, delete])(chance.choice(sorted(mine)))
vfs.catalog.close()
print(json.dumps({"mine": mine, "added": added, "steps": steps, "waits": waits}))
"""


@pytest.mark.timeout(SECONDS + 240)
def test_nothing_is_locked_and_nothing_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every process ends well, and the catalog holds the sum of what they did."""
    vfs = Vfs(new_catalog(settings_at(tmp_path)))
    put(vfs, "/file/counter", b"counter")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path), str(me), str(SECONDS)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for me in range(PROCESSES)
    ]
    reports, failures = [], []
    for process in processes:
        out, error = process.communicate()
        if process.returncode:
            failures.append(error)
        else:
            reports.append(json.loads(out))
    assert failures == []
    waits = sorted(wait for report in reports for wait in report["waits"])
    steps = sum(report["steps"] for report in reports)
    summary = (
        f"{PROCESSES} processes, {SECONDS:g} s: {steps / SECONDS:.0f} steps/s,"
        f" {len(waits) / SECONDS:.0f} transactions/s;"
        f" wait median {waits[len(waits) // 2]:.3f} s, worst {waits[-1]:.3f} s"
    )
    with capsys.disabled():
        sys.stdout.write(f"\n{summary}\n")
    assert image_at(vfs, "/file/counter").min_ram == sum(each["added"] for each in reports)
    expected = {name: each for report in reports for name, each in report["mine"].items()}
    assert names_in(vfs, "/file") == {"counter", *expected}
    for name, (data, min_disk) in expected.items():
        assert read(vfs, f"/file/{name}") == bytes.fromhex(data)
        assert image_at(vfs, f"/file/{name}").min_disk == min_disk
    assert staged_files(tmp_path) == []
    assert list(fsck(vfs.catalog, repair=False)) == []
    vfs.close()
