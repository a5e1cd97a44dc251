"""execve(2) and exit(2) close files while the kernel holds locks of the process: nobody may wait.

Each program runs on two mounts at once, under a watchdog.
"""

from __future__ import annotations

import os
import re
import select
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from tests.imagefs.closers import BEGIN, DATA, VARIANTS, Variant
from tests.imagefs.watchdog import SECONDS, watchdog
from tests.kit.daemon import COMMAND, Daemon, wait_until
from tests.kit.tools import assert_active, field, status

BLIND = ("setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace", *COMMAND)
"""In a container by default, the mount may not look into processes with more rights."""
ANSWERED = 1.0
"""Seconds in which every close(2) is answered."""
_TRIES = 6
"""What hangs does so each time; a busy machine is late now and then."""


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A mount of another catalog, which may not look into the programs."""
    with Daemon(tmp_path_factory.mktemp("second")).mounted(*BLIND) as daemon:
        yield daemon


def _is_decided(path: Path) -> bool:
    return status(path) != "saving"


def _cases() -> Iterator[object]:
    for name, variant in VARIANTS.items():
        marks = [pytest.mark.mount_says(variant.reason)] if variant.reason else []
        if variant.either:
            marks = [pytest.mark.mount_may_say(variant.reason)]
        yield pytest.param(variant, id=name.replace(" ", "-"), marks=marks)


def _run(variant: Variant, paths: Sequence[Path]) -> float:
    """Run the program for each path; the seconds until the last of their processes has ended.

    Every close(2) of theirs is answered by then: a pipe that all of them have tells.  The
    clock begins with the programs, not with their interpreters.
    """
    ended, began = os.pipe()
    os.set_inheritable(began, True)
    programs = [
        subprocess.Popen(
            [sys.executable, "-ISc", BEGIN + variant.program, path, str(began)], pass_fds=[began]
        )
        for path in paths
    ]
    os.close(began)
    subprocess.run(["ps", "-ef"], check=True, stdout=subprocess.DEVNULL)
    give_up_at, told = time.monotonic() + 2 * SECONDS, b""
    while select.select([ended], [], [], max(0.0, give_up_at - time.monotonic()))[0]:
        block = os.read(ended, 4096)
        if not block:
            break
        told += block
    seconds = time.monotonic() - min(struct.unpack("2d", told))
    os.close(ended)
    for program in programs:
        program.wait(2 * SECONDS)
    return seconds


@pytest.mark.parametrize("variant", list(_cases()))
def test_every_close_is_answered(folder: Path, second: Daemon, variant: Variant) -> None:
    """In a second, `ps` as well; no half image is active and no whole one is lost."""
    beside = second.path / "file" / folder.name
    beside.mkdir()
    took = []
    for number in range(_TRIES):
        paths = (folder / str(number), beside / str(number))
        with watchdog(folder, beside):
            took.append(_run(variant, paths))
        _check(variant, paths[0])
        _check(variant, paths[1], blind=True)
        if took[-1] < ANSWERED:
            return
    pytest.fail(f"it was not answered in {ANSWERED} s in any of {_TRIES} tries: {took}")


def _check(variant: Variant, path: Path, *, blind: bool = False) -> None:
    wait_until(partial(_is_decided, path), "it is decided")
    if blind and variant.unseen:
        assert status(path) in ("active", "killed")
    elif variant.reason and not (variant.either and status(path) == "active"):
        assert status(path) == "killed"
        # Whose end it may not see, it tells without the number.
        reason = variant.reason.partition(" by signal")[0] if blind else variant.reason
        assert re.search(reason, field(path, "message"))
    else:
        assert_active(path, DATA)
