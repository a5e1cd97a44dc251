"""What a line of the log names besides its text, and how it is written in a file.

Threading: any.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from datetime import UTC, datetime

from catalog import cause

_OF_LINE = ("principal", "request", "image", "store")
_PLAIN = re.compile(r"[^\s\"=\\\x00-\x1f\x7f]+")


def fields_of(record: logging.LogRecord) -> dict[str, str]:
    """What is known of a line: principal, request, image, store.

    An attribute of the record (`extra=`) comes before the cause of the thread that logs it.
    """
    present = cause.current()
    found = {}
    for name in _OF_LINE:
        value = getattr(record, name, "") or getattr(present, name)
        if value:
            found[name] = str(value)
    return found


class LineFormat(logging.Formatter):
    """One line of `key=value` pairs (logfmt), in which a line break is escaped."""

    def __init__(self, process: Mapping[str, str]) -> None:
        """`process` are the fields that all lines of the process have."""
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """The line without its end."""
        at = datetime.fromtimestamp(record.created, UTC)
        values = {
            "time": f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": super().format(record),
            "pid": str(record.process),
            **self._process,
            **fields_of(record),
        }
        return " ".join(f"{name}={_value(value)}" for name, value in values.items())


def _value(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
