"""What is noted in the background of a database and of stores, which may hang."""

from __future__ import annotations

import threading
import time

import pytest

from catalog.errors import StoreUnavailable
from catalog.service.health import Health, Probe, Pulse
from catalog.tree.vfs import Vfs
from tests.kit.daemon import wait_until


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that are added to the real clock's."""
    added = [0.0]
    real = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() + added[0])
    return added


def test_an_answer_is_noted() -> None:
    """With what was answered, and the reason of a failure, which keeps the last answer."""
    answers = iter([7])

    def ask() -> int:
        for answer in answers:
            return answer
        raise StoreUnavailable("s", "is away")

    probe = Probe("s", ask, 0.01)
    assert not probe.noted().is_well
    probe.start()
    wait_until(lambda: "is away" in probe.noted().reason, "it has failed")
    probe.stop()
    assert probe.noted().value == 7


def test_what_hangs_is_not_well(clock: list[float]) -> None:
    """Nobody who asks waits for it; when it answers again it is well."""
    hangs, asked = threading.Event(), threading.Event()

    def ask() -> int:
        asked.set()
        assert hangs.wait(30)
        return 7

    probe = Probe("s", ask, 1000)
    probe.start()
    assert asked.wait(30)
    clock[0] += 60
    noted = probe.noted()
    assert noted.reason.startswith("no answer for ")
    assert noted.seconds >= 60
    hangs.set()
    wait_until(lambda: probe.noted().is_well, "it answers")
    assert probe.noted().value == 7
    probe.stop()


def test_a_loop_that_does_not_turn(vfs: Vfs, clock: list[float]) -> None:
    """The process is not alive, and so not ready either."""
    pulse = Pulse()
    found = Health(vfs, pulse)
    found.start()
    wait_until(lambda: found.missing() == {}, "all is well")
    clock[0] += 60
    assert found.missing()["loop"] == "does not turn"
    pulse.beat()
    assert "loop" not in found.missing()
    found.stop()
