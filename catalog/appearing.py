"""A file that appears under its name in one step, when all of it is there.

Threading: any thread.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

_ROOM = 200
"""Bytes of a name that leave room for what is appended."""


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """The path beside `target` to write the file at.

    At the end it takes the target's name; after a failure nothing is left of it.  An OSError
    names the target: the other name tells nobody anything.
    """
    stem = os.fsencode(target.name)[:_ROOM].decode(errors="ignore")
    part = target.with_name(f"{stem}.{token_hex(4)}.part")
    try:
        yield part
        part.replace(target)
    except OSError as error:
        if error.filename in (None, str(part)):
            error.filename = str(target)
        raise
    finally:
        part.unlink(missing_ok=True)
