"""The pages as JSON, for programs.

The keys are the field names of `catalog.model.fields` and do not change.  Sizes are in bytes, times
in UTC (`2026-01-31T12:00:00Z`); a field without a value is `null`.

    root      {"path", "kind", "stores": [{"name", "path", "default", "images", "size",
               "in_progress", "trashed", "free", "total", "message"}]}
    folder    {"path", "kind", "folders": [{"name", "path"}], "images": [{"path", every field
               but tags and stores, "os"}], "offset", "limit", "total"}
    image     {"path", "paths", every field, "properties"}
    error     {"error": {"status", "message", "request_id"}}
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from catalog.model.activity import Lock
from catalog.model.fields import FIELDS, Details
from catalog.model.image import Image
from dav.browse.listing import PAGE_SIZE, Listing, Row
from dav.browse.stores import StoreCard


def root_document(cards: tuple[StoreCard, ...]) -> bytes:
    """The overview."""
    return _json({"path": "/", "kind": "root", "stores": [_store(card) for card in cards]})


def _store(card: StoreCard) -> dict[str, Any]:
    return {
        "name": card.name,
        "path": f"/{card.name}/",
        "default": card.is_default,
        "images": card.totals.images,
        "size": card.totals.size,
        "in_progress": card.totals.in_progress,
        "trashed": card.totals.trashed,
        "free": card.usage.free,
        "total": card.usage.total,
        "message": card.problem,
    }


def listing_document(listing: Listing) -> bytes:
    """One page of a folder."""
    return _json(
        {
            "path": f"{listing.path}/",
            "kind": listing.folder.kind,
            "folders": [
                {"name": child.name, "path": f"{listing.path}/{child.name}/"}
                for child in listing.folders
            ],
            "images": [_row(row) for row in listing.rows],
            "offset": listing.view.offset,
            "limit": PAGE_SIZE,
            "total": listing.total,
        }
    )


def _row(row: Row) -> dict[str, Any]:
    fields = _fields(Details(row.entry.image, {}, (), ()))
    del fields["tags"], fields["stores"]
    return {"path": row.path, **fields, "name": row.entry.name, "size": row.size, "os": row.os}


def links_document(links: list[tuple[str, str]]) -> bytes:
    """A page of `/.by-id`: ids and the paths that they link to."""
    return _json({"path": "/.by-id/", "kind": "by-id", "links": dict(links)})


def image_document(
    details: Details, path: str, paths: tuple[str, ...], size: int, locks: Iterable[Lock]
) -> bytes:
    """Everything about an image."""
    return _json(
        {
            "path": path,
            "paths": list(paths),
            **_fields(details),
            "size": size,
            "properties": dict(details.properties),
            "locks": [
                {
                    "path": lock.path,
                    "holder": lock.principal,
                    "until": lock.expires_at.isoformat(),
                    "scope": lock.scope,
                    "depth": "infinity" if lock.deep else "0",
                    "token": lock.token,
                }
                for lock in locks
            ],
        }
    )


def error_document(status: int, message: str, request_id: str) -> bytes:
    """Why a request failed."""
    return _json({"error": {"status": status, "message": message, "request_id": request_id}})


def _fields(details: Details) -> dict[str, Any]:
    rendered = {name: field.render(details) for name, field in FIELDS.items()}
    values: dict[str, Any] = {
        name: _plain(details.image, name, text) for name, text in rendered.items()
    }
    return {**values, "tags": list(details.tags), "stores": list(details.stores)}


def _plain(image: Image, name: str, rendered: str | None) -> Any:
    """Numbers and truth values as in JSON, everything else as text."""
    value = getattr(image, name, rendered)
    return value if isinstance(value, int | str | None) else rendered


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode(errors="replace")
