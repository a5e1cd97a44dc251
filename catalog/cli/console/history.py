"""An event of an image's history as a document, and in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from catalog.cli.console.output import human_size
from catalog.model.activity import EventKind
from catalog.model.status import Status

if TYPE_CHECKING:
    from catalog.tree.history import Happened


def document(happened: Happened) -> dict[str, Any]:
    """The event as JSON."""
    event = happened.event
    return {
        "at": event.at.isoformat(),
        "principal": event.principal,
        "frontend": event.frontend,
        "host": event.host,
        "kind": str(event.kind),
        **event.detail,
    }


def told(happened: Happened) -> str:
    """The event in words."""
    detail = happened.event.detail
    if happened.event.kind is EventKind.STATUS:
        return _status_told(detail, happened.before)
    return _WORDS[happened.event.kind](detail)


_WORDS: Mapping[EventKind, Callable[[Mapping[str, Any]], str]] = {
    EventKind.CREATED: lambda detail: f"created as {detail['name']}",
    EventKind.CHANGED: lambda detail: ", ".join(_assigned(*each) for each in detail.items()),
    EventKind.RENAMED: lambda detail: f"renamed from {detail['old']} to {detail['new']}",
    EventKind.COPIED: lambda detail: f"copied to store {detail['store']}",
    EventKind.DROPPED: lambda detail: f"its data removed from store {detail['store']}",
    EventKind.DAMAGED: lambda detail: f"found to be damaged in store {detail['store']}",
    EventKind.REPAIRED: lambda _detail: "a damaged copy repaired",
}

_OF_STATUS = {
    Status.SAVING: "upload begun",
    Status.ACTIVE: "published",
    Status.DEACTIVATED: "deactivated",
    Status.KILLED: "killed",
    Status.PENDING_DELETE: "deleted: in the trash",
    Status.DELETED: "deleted for good",
}


def _status_told(detail: Mapping[str, Any], before: Status | None) -> str:
    status = Status(detail["status"])
    if before is Status.PENDING_DELETE and status is not Status.DELETED:
        words = f"restored: {status}"
    elif before is Status.DEACTIVATED and status is Status.ACTIVE:
        words = "reactivated"
    else:
        words = _OF_STATUS.get(status, str(status))
    if "size" in detail:
        words += f", {human_size(detail['size'])}"
    if "os_hash_value" in detail:
        words += f", {detail['os_hash_algo']} {detail['os_hash_value']}"
    return f"{words}: {detail['message']}" if "message" in detail else words


def _assigned(name: str, value: Any) -> str:
    if value is None:
        return f"{name} removed"
    return f"{name}={','.join(value) if isinstance(value, list) else value}"
