"""SIGUSR1 writes to the log what every thread does now, and stops nothing.

It works also while the loop of a mount hangs, as a thread of its own waits for the signal.
Threading: `hold` comes before any other thread is started.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable

_log = logging.getLogger(__name__)

_SIGNAL = signal.SIGUSR1


def hold() -> None:
    """Block the signal, so that it ends nobody and waits for `answer`.

    Threads that are started later block it, too, as do child processes.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {_SIGNAL})


def answer(tasks: Callable[[], Iterable[str]] = tuple) -> None:
    """Answer the signal from now on; `tasks` returns what the loop's tasks do, one text each."""
    threading.Thread(target=_run, args=(tasks,), name="stacks", daemon=True).start()


def _run(tasks: Callable[[], Iterable[str]]) -> None:
    while True:
        signal.sigwait({_SIGNAL})
        try:
            dump(tasks)
        except Exception:  # noqa: BLE001 - the next signal is answered all the same
            _log.exception("the stacks cannot be told")


def dump(tasks: Callable[[], Iterable[str]]) -> None:
    """Write all threads and tasks to the log, each in an entry of its own."""
    found = [*_threads(), *tasks()]
    # A warning, as it was asked for: whatever the level, it has to appear.
    for number, text in enumerate(found, 1):
        _log.warning("stacks, %d of %d: %s", number, len(found), text)


def _threads() -> Iterable[str]:
    frames = sys._current_frames()
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        if frame is not None and thread is not threading.current_thread():
            stack = "".join(traceback.format_stack(frame)).rstrip()
            yield f"thread {thread.name} ({thread.native_id}):\n{stack}"
