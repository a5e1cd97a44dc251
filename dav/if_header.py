"""The header `If`: what must be so, of locks and data, for a request to be done (RFC 4918 §10.4).

Scope: header text and a view of the tree in, a decision out.  wsgidav asks only of what exists,
of a Destination as well as of the source, and of no URL that is named.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from dav.conditions import opaque

_WORD = re.compile(r"<[^>]*>|\[[^\]]*\]|[()]|[^\s()<>\[\]]+")


@dataclass(frozen=True, slots=True)
class State:
    """What there is at a path."""

    etag: str | None
    """With its quotes; None of a folder, and where nothing is."""
    tokens: Collection[str]
    """Of the locks it is under."""


@dataclass(frozen=True, slots=True)
class _Condition:
    word: str
    """`[ETAG]`, `<TOKEN>`, or what a client sends for it."""
    wanted: bool
    """False after `Not`."""

    def holds(self, state: State) -> bool:
        if self.word.startswith("["):
            # Weak tags count, which RFC 4918 §10.4.3 leaves to the server.
            found = _bare(self.word[1:-1]) == _bare(state.etag or "") != ""
        else:
            found = self.token in state.tokens
        return found is self.wanted

    @property
    def token(self) -> str:
        return self.word.strip("<>")


@dataclass(frozen=True, slots=True)
class _List:
    """Conditions that must all hold for one resource."""

    path: str | None
    """Decoded; None for that of the request."""
    conditions: tuple[_Condition, ...]


class IfHeader:
    """A header that has been read."""

    def __init__(self, text: str) -> None:
        self._is_empty = not text.strip()
        self._lists = _read(text)
        self.tokens = [
            condition.token
            for each in self._lists
            for condition in each.conditions
            if not condition.word.startswith("[")
        ]
        """Those it names: the client knows of these locks, whether or not they are there."""

    def holds(self, path: str, look: Callable[[str], State]) -> bool:
        """Whether one of its lists is true.  What cannot be read as one does not hold."""
        return self._is_empty or any(_is_true(each, path, look) for each in self._lists)


def _bare(etag: str) -> str:
    """Without quotes, which some clients leave out."""
    return opaque(etag.strip()).strip('"')


def _is_true(each: _List, path: str, look: Callable[[str], State]) -> bool:
    state = look(path if each.path is None else each.path)
    return bool(each.conditions) and all(one.holds(state) for one in each.conditions)


def _read(text: str) -> list[_List]:
    lists: list[_List] = []
    path: str | None = None
    inside: list[_Condition] | None = None
    wanted = True
    for word in _WORD.findall(text):
        if word == "(":
            inside, wanted = [], True
        elif word == ")":
            lists += [] if inside is None else [_List(path, tuple(inside))]
            inside = None
        elif inside is None:
            path = _path(word) if word.startswith("<") else path
        elif word.lower() == "not":
            wanted = False
        else:
            inside.append(_Condition(word, wanted))
            wanted = True
    return lists


def _path(word: str) -> str:
    """The path of a URL in `<>`; its host and scheme may be a proxy's (see `destination`)."""
    try:
        return unquote(urlsplit(word[1:-1]).path)
    except ValueError:
        return ""  # no URL: nothing is there
