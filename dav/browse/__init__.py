"""The pages for people and programs, at the tree's own URLs, as HTML and as JSON.

Scope: folders, an image's page (`?page`), changing its fields (`?properties`), `SHA256SUMS`, and
the files of the pages below `/.assets/`.  The data of an image is never served here.  Threading:
any thread; all state is read-only.
"""

from __future__ import annotations

from dav.browse.exchange import Request, Response, request_of
from dav.browse.pages import error_page
from dav.browse.routes import is_asked_for, respond

__all__ = ["Request", "Response", "error_page", "is_asked_for", "request_of", "respond"]
