"""A file that gets its name in one step, after all of it was written.

Threading: any thread.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

_ROOM = 200
"""Bytes of the name that are kept; the rest of the 255 is for the suffix."""


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """A path beside `target`, at which the caller writes the file.

    At the end the file is renamed to `target`; after a failure it is removed.  An OSError names
    the target, as the temporary name means nothing to the user.
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
