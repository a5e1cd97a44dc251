"""What the tasks of the mount's loop do now, for `catalog.service.stacks`.

Threading: any.  The loop goes on meanwhile, or hangs, so that the picture may be blurred.
"""

from __future__ import annotations

from collections.abc import Iterator

import trio

_ATTEMPTS = 10
_CHANGED = "the tree of tasks has changed all the time"


def describe(root: trio.lowlevel.Task | None) -> list[str]:
    """The tree of tasks below `root`, one text each: the path of its names, and its stack."""
    for _attempt in range(_ATTEMPTS):
        try:
            return list(_below(root, ""))
        except RuntimeError:
            continue  # the loop has changed a set while we read it
    return [_CHANGED]


def _below(task: trio.lowlevel.Task | None, path: str) -> Iterator[str]:
    if task is None:
        return
    path = f"{path}/{task.name.rpartition('.')[2]}"
    frames = [
        f'  File "{frame.f_code.co_filename}", line {line}, in {frame.f_code.co_qualname}'
        for frame, line in task.iter_await_frames()
    ]
    yield "\n".join([f"task {path}:", *frames])
    for nursery in list(task.child_nurseries):
        for child in list(nursery.child_tasks):
            yield from _below(child, path)
