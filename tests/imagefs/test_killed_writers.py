"""A writer that is killed publishes nothing, whenever the signal comes.

Source: docs/semantics.md#a-writer-that-is-killed.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.kit.daemon import DEADLINE, wait_until
from tests.kit.tools import MIB, assert_active, attempt, field, run, some_bytes, status

SIZE = 64 * MIB
# qemu-img convert first makes an empty image of this size and closes it: so far, that is
# a whole image.  Then it opens it again and writes the data (docs/facts.md#qemu-and-libvirt).
QCOW2_HEADER = 196_616
MOMENTS = 20

Writer = Callable[[Path, Path], list[str]]

WRITERS: dict[str, Writer] = {
    "cp": lambda source, target: ["cp", str(source), str(target)],
    "dd": lambda source, target: ["dd", f"if={source}", f"of={target}", "bs=64k", "status=none"],
    "dd-fsync": lambda source, target: [
        *("dd", f"if={source}", f"of={target}", "bs=1M", "conv=fsync", "status=none"),
    ],
    "cat": lambda source, target: [
        "sh",
        "-c",
        'exec cat "$1" > "$2"',
        "sh",
        str(source),
        str(target),
    ],
    "qemu-img": lambda source, target: [
        *("qemu-img", "convert", "-O", "qcow2", str(source), str(target)),
    ],
}


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source that takes every tool some time."""
    path = tmp_path_factory.mktemp("source") / "big.raw"
    path.write_bytes(some_bytes(SIZE))
    return path


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1


def _has_ended(target: Path) -> bool:
    return status(target) != "saving"


def _kill_when(target: Path, command: list[str], size: int, number: signal.Signals) -> int:
    """Run a command, send it a signal once the image has `size` bytes; its exit status."""
    writer = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    give_up_at = time.monotonic() + DEADLINE
    while _size(target) < size and writer.poll() is None:
        assert time.monotonic() < give_up_at, f"{command} does not get on"
    writer.send_signal(number)
    return writer.wait(DEADLINE)


@pytest.mark.mount_says("was (killed by signal|interrupted)")
@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name
)
def test_a_killed_writer_publishes_nothing(folder: Path, big: Path, number: signal.Signals) -> None:
    """At 20 random moments of five tools in turn: killed, with the reason; never half."""
    chance = random.Random(number)
    seen: list[tuple[str, str]] = []
    for count, (name, command) in enumerate(itertools.cycle(WRITERS.items())):
        target = folder / f"{count}-{name}"
        least = QCOW2_HEADER + 1 if name == "qemu-img" else 0
        size = chance.choice([least, least + 1, chance.randrange(least, SIZE * 3 // 4)])
        code = _kill_when(target, command(big, target), size, number)
        if code == 0:
            continue  # the signal came too late: another moment
        wait_until(partial(_has_ended, target), "the upload ends")
        if status(target) == "active":
            # It had closed the file already, and was killed in what it did after that.
            run("qemu-img", "compare", "-f", "raw", big, target)
            continue
        seen.append((status(target), field(target, "message")))
        if len(seen) == MOMENTS:
            break
    assert {state for state, _ in seen} <= {"killed", "queued"}
    killed = [message for state, message in seen if state == "killed"]
    assert len(killed) > MOMENTS // 2
    for message in killed:
        # dd(1) closes what it has written so far, and only then lets SIGINT kill it.
        is_dd = "dd (pid" in message and number == signal.SIGINT
        reason = "interrupted" if is_dd else f"killed by signal {number.value}"
        assert re.fullmatch(rf"writer \S+ \(pid \d+\) was {reason}", message)


@pytest.mark.mount_says("was killed by signal")
def test_at_any_time_an_active_image_is_whole(folder: Path, big: Path) -> None:
    """By the clock, also while the last close(2) commits: whatever is active is all there."""
    content, chance = big.read_bytes(), random.Random(4)
    for count in range(MOMENTS):
        target = folder / str(count)
        writer = subprocess.Popen(["cp", big, target])
        time.sleep(chance.uniform(0, 0.2))
        writer.send_signal(chance.choice([signal.SIGINT, signal.SIGTERM, signal.SIGKILL]))
        code = writer.wait(DEADLINE)
        if not target.exists():
            assert code != 0
            continue
        wait_until(partial(_has_ended, target), "the upload ends")
        if code == 0 or status(target) == "active":
            assert_active(target, content)


@pytest.mark.mount_says("was killed by signal 9")
def test_a_killed_image_is_replaced_by_the_next_try(
    folder: Path, big: Path, source: Path, data: bytes
) -> None:
    """A killed image cannot be read; the same command once more simply works."""
    target = folder / "again"
    assert _kill_when(target, ["cp", str(big), str(target)], MIB, signal.SIGKILL) == -9
    wait_until(lambda: status(target) == "killed", "the image is killed")
    killed = field(target, "id")
    assert attempt("cat", target).returncode == 1
    run("cp", source, target)
    assert_active(target, data)
    assert field(target, "id") != killed


@pytest.mark.mount_says("was killed by signal 9")
def test_a_killed_pipeline_publishes_nothing(folder: Path) -> None:
    """The shell holds the file for the commands in its group; they die together."""
    script = '{ cat /dev/zero | head -c 1000000; sleep 100; } > "$1"'
    pipeline = subprocess.Popen(["sh", "-c", script, "sh", folder / "a"], start_new_session=True)
    wait_until(lambda: _size(folder / "a") == 1000000, "the data is there")
    os.killpg(pipeline.pid, signal.SIGKILL)
    pipeline.wait()
    wait_until(lambda: status(folder / "a") == "killed", "the image is killed")
