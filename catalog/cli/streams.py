"""The streams that a command is started with: text is UTF-8, and none of the three is missing.

Threading: before any other thread.
"""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper

# Turned round, so that what needs the stream fails (EBADF) instead of doing half its work.
# What goes to standard error is only told: without it a command does as it would with it.
_MISSING = (("stdin", "r", os.O_WRONLY), ("stdout", "w", os.O_RDONLY), ("stderr", "w", os.O_WRONLY))


def speak_utf8() -> None:
    """Begin again in Python's UTF-8 mode if the locale has another encoding.

    Names are UTF-8 in every locale, as they are bytes to cp and ls.
    """
    if sys.getfilesystemencoding() != "utf-8":
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def open_missing() -> None:
    """Open those of the three streams that the process was started without (`>&-`).

    Else the next file that is opened, an image perhaps, has a stream's number, and what a
    library or another program writes there goes into it.
    """
    for number, (name, mode, flags) in enumerate(_MISSING):
        if getattr(sys, name) is None:
            fd = os.open(os.devnull, flags)
            if fd != number:
                os.dup2(fd, number)
                os.close(fd)
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
    if isinstance(sys.stdout, TextIOWrapper):
        # PYTHONIOENCODING may name an encoding that lacks a letter.
        sys.stdout.reconfigure(errors="backslashreplace")


def drop_output() -> None:
    """Let nothing more be written to standard output: the interpreter flushes it at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
