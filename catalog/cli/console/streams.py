"""Makes sure that a command has all three standard streams, and that text is UTF-8.

Threading: to be called before any other thread exists.
"""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper

# Standard input and output are opened in the wrong direction, so that a command that needs them
# fails (EBADF) instead of doing half of its work.  Standard error only gets messages: without it
# a command works as with it.
_MISSING = (("stdin", "r", os.O_WRONLY), ("stdout", "w", os.O_RDONLY), ("stderr", "w", os.O_WRONLY))


def speak_utf8() -> None:
    """Start this program again in Python's UTF-8 mode if the locale has another encoding.

    Names are UTF-8 in every locale: to cp and ls they are just bytes.
    """
    if sys.getfilesystemencoding() != "utf-8":
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def open_missing() -> None:
    """Open the standard streams that the process was started without (`>&-`).

    Otherwise the next file that is opened, perhaps an image, gets the number of a stream, and
    messages of a library or of a child process are written into it.
    """
    for number, (name, mode, flags) in enumerate(_MISSING):
        if getattr(sys, name) is None:
            fd = os.open(os.devnull, flags)
            if fd != number:
                os.dup2(fd, number)
                os.close(fd)
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
    if isinstance(sys.stdout, TextIOWrapper):
        # PYTHONIOENCODING may name an encoding that does not have every character.
        sys.stdout.reconfigure(errors="backslashreplace")


def drop_output() -> None:
    """Send the rest of standard output to nowhere: the interpreter flushes it when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
