"""Telling processes apart, and whether one has ended."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from catalog.process import is_gone, start_time, this_process


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
    """Another host's processes, and another pid namespace's, are never taken for gone."""
    nobody = replace(this_process(), pid=2**22 - 1)
    boot = nobody.boot.partition("/")[0]
    assert not is_gone(replace(nobody, host="elsewhere"))
    assert not is_gone(replace(nobody, boot=f"{boot}/1"))


@pytest.mark.skipif(os.geteuid() != 0, reason="hides processes by another user's eyes")
def test_hidden_process_is_not_gone() -> None:
    """A process that /proc does not show (hidepid) lives all the same."""
    parent = this_process()
    script = (
        "import os, subprocess\n"
        "from catalog.image import Process\n"
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
