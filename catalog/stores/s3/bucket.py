"""Settings of a bucket that users will notice when they delete images; `imagefs doctor` shows them.

Only reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from catalog.errors import NotFound, StoreBusy, StoreRefused, StoreUnavailable
from catalog.stores.s3.requests import S3Requests

_MODE = re.compile(r"<Mode>\s*(\w+)\s*</Mode>")
_TIME = re.compile(r"<(Days|Years)>\s*(\d+)\s*</")


def advice(requests: S3Requests, subject: str) -> Iterator[str]:
    """What Object Lock and versions mean for deleted images; nothing if the bucket has neither.

    Raises StoreBusy, StoreUnavailable.
    """
    lock = _setting(requests, "object-lock", subject)
    if "<DefaultRetention>" in lock:
        mode, time = _MODE.search(lock), _TIME.search(lock)
        told = f" ({mode[1].lower()})" if mode else ""
        long = f"for {time[2]} {time[1].lower()}" if time else "for a time"
        yield (
            f"its Object Lock keeps every object {long}{told}: until then an image that is"
            " deleted for good stays in the trash, or its data stays as an older version"
        )
    if "<Status>Enabled</Status>" in _setting(requests, "versioning", subject):
        yield (
            "it keeps older versions: data that is deleted still takes room until a lifecycle"
            " rule of the bucket expires it"
        )


def _setting(requests: S3Requests, name: str, subject: str) -> str:
    """The text of a setting; empty if the server does not have it, or does not let us read it."""
    try:
        return requests.send("GET", "", {name: ""}, subject=subject, is_retried=False).text
    except (NotFound, StoreRefused):
        return ""
    except StoreBusy:
        raise
    except StoreUnavailable:
        return ""  # some servers answer 400 to what they do not know
