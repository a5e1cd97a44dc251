"""The time by which the catalog's rows are written and judged.

With a database server that is the server's clock, as hosts' own clocks differ: a host that is ten
minutes off would take other hosts for dead, and their locks for expired.  It is read whenever
something is written, and goes on by this host's monotonic clock in between, which nobody sets.
With SQLite all processes are on one host, and its clock is good.

Scope: one clock for the process, as a process serves one catalog.  Threading: any.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

_read: tuple[datetime, float] | None = None
"""What a server's clock has shown, and when that was by the monotonic clock, in seconds.

Replaced as a whole, so that a reader never sees parts of two."""


def now() -> datetime:
    """The present time, in UTC and with its time zone."""
    if _read is None:
        return datetime.now(UTC)
    at, then = _read
    return at + timedelta(seconds=time.monotonic() - then)


def follow(at: datetime) -> None:
    """Let `now` go on from the time that the database's clock shows."""
    global _read
    _read = (at.astimezone(UTC), time.monotonic())


def follow_host() -> None:
    """Let `now` be this host's own time again."""
    global _read
    _read = None
