"""Pages of listings as the kernel gets them, kept while the catalog knows them to be right.

Threading: any thread.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyfuse3

from catalog.tree.known import MOST_PAGES

Shown = tuple[int, bytes, pyfuse3.EntryAttributes]
"""A member: cookie, name, attributes."""

_FRESH = 60.0
"""Seconds for which the owners' numbers are not asked for again, as in `processes.accounts`."""


@dataclass(frozen=True, slots=True)
class _Kept:
    source: Sequence[Any]
    page: list[Shown]
    until: float


class ShownPages:
    """Pages by folder and cookie, each with what the catalog said."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, int], _Kept] = {}

    def put(self, key: tuple[int, int], source: Sequence[Any], page: list[Shown]) -> None:
        """Keep a page that was made of `source`."""
        while len(self._kept) >= MOST_PAGES:
            self._kept.pop(next(iter(self._kept), key), None)  # the oldest
        self._kept[key] = _Kept(source, page, time.monotonic() + _FRESH)

    def get(self, key: tuple[int, int], source: Sequence[Any] | None) -> list[Shown] | None:
        """The page, if it was made of this very `source`, and lately."""
        kept = self._kept.get(key)
        if kept is None or kept.source is not source or time.monotonic() > kept.until:
            return None
        return kept.page
