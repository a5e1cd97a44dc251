"""The header `If`: conditions about locks and data for a request (RFC 4918 §10.4).

Scope: header text and a view of the tree in, a decision out.  wsgidav's own check is not used: it
checks only resources that exist, checks a Destination like the source, and ignores the URLs in the
header.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from web.exchange.conditions import opaque

_WORD = re.compile(r"<[^>]*>|\[[^\]]*\]|[()]|[^\s()<>\[\]]+")


@dataclass(frozen=True, slots=True)
class State:
    """The state of the resource at a path."""

    etag: str | None
    """With its quotes; None for a folder, and if nothing exists there."""
    tokens: Collection[str]
    """The tokens of the locks that apply to it."""


@dataclass(frozen=True, slots=True)
class _Condition:
    word: str
    """`[ETAG]`, `<TOKEN>`, or whatever a client sends instead."""
    wanted: bool
    """False after `Not`."""

    def holds(self, state: State) -> bool:
        if self.word.startswith("["):
            # Weak tags are accepted; RFC 4918 §10.4.3 leaves that to the server.
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
    """Decoded; None for the request's own path."""
    conditions: tuple[_Condition, ...]


class IfHeader:
    """A parsed header."""

    def __init__(self, text: str) -> None:
        self._is_empty = not text.strip()
        self._lists = _read(text)
        self.tokens = [
            condition.token
            for each in self._lists
            for condition in each.conditions
            if not condition.word.startswith("[")
        ]
        """All tokens in the header: the client knows these locks, which may have expired."""

    def holds(self, path: str, look: Callable[[str], State]) -> bool:
        """Whether one of its lists is true; a list that cannot be parsed is not."""
        return self._is_empty or any(_is_true(each, path, look) for each in self._lists)


def _bare(etag: str) -> str:
    """A tag without its quotes, as some clients leave them out."""
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
        return ""  # not a URL: a path where nothing exists
