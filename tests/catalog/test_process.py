"""Telling processes apart, and whether one has ended."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from catalog.process import Process, is_gone, start_time, this_process


def test_this_process_lives() -> None:
    """Whoever asks is there."""
    assert not is_gone(this_process())


def test_ended_process_is_gone() -> None:
    """A process that has been waited for is gone."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    record = replace(this_process(), pid=child.pid, started=start_time(child.pid) or 0)
    child.wait()
    assert is_gone(record)


def test_reused_pid_is_another_process() -> None:
    """A pid alone tells nothing: the start time does."""
    assert is_gone(replace(this_process(), started=1))


def test_earlier_boot_is_gone() -> None:
    """Nothing survives a reboot of its host."""
    me = this_process()
    assert is_gone(replace(me, boot="another/" + me.boot.partition("/")[2]))


def test_elsewhere_cannot_be_told() -> None:
    """Another host's processes are never taken for gone."""
    nobody = replace(this_process(), pid=2**22 - 1)
    assert not is_gone(replace(nobody, host="elsewhere", boot="another/1"))


def test_process_that_nobody_reaps_is_gone() -> None:
    """A zombie answers kill(2) and keeps its start time, and does nothing any more."""
    child = subprocess.Popen(["sleep", "60"])
    record = replace(this_process(), pid=child.pid, started=start_time(child.pid) or 0)
    assert not is_gone(record)
    child.kill()
    while "State:\tZ" not in Path(f"/proc/{child.pid}/status").read_text():
        time.sleep(0.01)
    assert is_gone(record)
    child.wait()


def test_process_with_a_thread_left_is_not_gone() -> None:
    """The first thread may end and leave the others: that is a zombie too, and it works on."""
    script = (
        "import ctypes, threading, time\n"
        "threading.Thread(target=time.sleep, args=(60,)).start()\n"
        "ctypes.CDLL(None).pthread_exit(None)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script])
    try:
        record = replace(this_process(), pid=child.pid, started=start_time(child.pid) or 0)
        while "State:\tZ" not in Path(f"/proc/{child.pid}/status").read_text():
            time.sleep(0.01)
        assert not is_gone(record)
    finally:
        child.kill()
        child.wait()


_TELLS = (
    "import time\n"
    "from catalog.process import this_process\n"
    "me = this_process()\n"
    "print(me.host, me.boot, me.pid, me.started, flush=True)\n"
    "time.sleep(60)\n"
)


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a pid namespace")
def test_process_of_a_container() -> None:
    """A container's process is seen from the host while it runs, and is gone with its namespace."""
    container = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--uts"]
    named = ["sh", "-c", 'hostname inside && exec "$@"', "sh"]
    with subprocess.Popen(
        [*container, *named, sys.executable, "-c", _TELLS],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        told = child.stdout.readline().split()
        if not told:
            pytest.skip(f"no pid namespace of its own: {child.stderr.read()}")
        record = Process(told[0], told[1], int(told[2]), int(told[3]))
        assert record.host == "inside"
        assert record.boot != this_process().boot
        assert not is_gone(record)
        # What looks like it from outside is another one.
        assert is_gone(replace(record, started=record.started + 1))
        child.kill()
        child.wait()
    while not is_gone(record):  # the kernel ends the namespace's processes just after
        time.sleep(0.01)


@pytest.mark.skipif(os.geteuid() != 0, reason="hides processes by another user's eyes")
def test_hidden_process_is_not_gone() -> None:
    """A process that /proc does not show (hidepid) lives all the same."""
    parent = this_process()
    script = (
        "import os, subprocess\n"
        "from catalog.process import Process\n"
        "from catalog.process import is_gone\n"
        "subprocess.run(['mount', '-t', 'proc', '-o', 'hidepid=2', 'proc', '/proc'], check=True)\n"
        "os.setgid(65534); os.setuid(65534)\n"
        f"assert not os.path.exists('/proc/{parent.pid}')\n"
        f"assert not is_gone(Process({parent.host!r}, {parent.boot!r}, {parent.pid}, 1))\n"
    )
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.stderr.startswith("unshare:"):
        pytest.skip(f"no mount namespace of its own: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
