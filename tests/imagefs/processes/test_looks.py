"""Looks at other processes have a deadline, and what is stuck takes nobody else's place."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from imagefs.processes.looks import UNKNOWN, Looks
from tests.kit.daemon import wait_until


def test_an_answer() -> None:
    """What comes in time is handed on, whatever it is."""
    looks = Looks()
    assert looks.ask(1, lambda: "seen") == "seen"
    assert looks.ask(1, lambda: None) is None


def test_what_is_stuck_is_unknown() -> None:
    """Also at the next look, at once, until it comes free; other processes are seen meanwhile."""
    looks, free = Looks(), threading.Event()
    assert looks.ask(1, free.wait, 0.05) is UNKNOWN
    asked: list[int] = []
    assert looks.ask(1, lambda: asked.append(1)) is UNKNOWN
    assert not asked
    assert looks.ask(2, lambda: "seen") == "seen"
    free.set()
    wait_until(lambda: looks.ask(1, lambda: "seen") == "seen", "it is free again")


def test_only_so_many_are_stuck() -> None:
    """When all places are taken nobody is seen, and nobody waits past the deadline."""
    looks, free = Looks(places=3), threading.Event()
    before = threading.active_count()
    for process in range(10):
        assert looks.ask(process, free.wait, 0.05) is UNKNOWN
    assert threading.active_count() <= before + 3
    free.set()
    for process in range(10):
        wait_until(partial(_sees, looks, process), "it is free again")


def _sees(looks: Looks, process: int) -> bool:
    return looks.ask(process, lambda: "seen") == "seen"


@pytest.mark.expect_log("a look at process 1 failed unexpectedly")
def test_a_look_that_fails_is_unknown() -> None:
    """And is told of; its place is free again."""
    looks = Looks(places=1)
    for _ in range(3):
        assert looks.ask(1, lambda: 1 // 0) is UNKNOWN
    assert looks.ask(1, lambda: "seen") == "seen"
