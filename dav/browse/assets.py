"""The files of the pages, below a path with their content's digest, so that browsers cache them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.resources import files

from catalog.errors import NotFound
from dav.browse.exchange import SECURITY_HEADERS, Response

FOLDER = "/.assets"

_TYPES = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


def _load() -> dict[str, bytes]:
    folder = files("dav.browse") / "static"
    return {
        file.name: file.read_bytes()
        for file in folder.iterdir()
        if file.name.rpartition(".")[2] in _TYPES
    }


_FILES = _load()
_VERSION = hashlib.sha256(b"".join(_FILES[name] for name in sorted(_FILES))).hexdigest()[:16]

URLS: Mapping[str, str] = {name: f"{FOLDER}/{_VERSION}/{name}" for name in _FILES}
"""The URL of each file, by its name."""


def asset(path: str) -> Response:
    """The file at a path below `FOLDER`.  Raises NotFound."""
    name = path.rpartition("/")[2]
    if URLS.get(name) != path:
        raise NotFound(path)
    headers = (
        ("Content-Type", _TYPES[name.rpartition(".")[2]]),
        ("Content-Length", str(len(_FILES[name]))),
        ("Cache-Control", "public, max-age=31536000, immutable"),
    )
    return Response(200, headers + SECURITY_HEADERS, _FILES[name])
