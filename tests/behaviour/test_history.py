"""Each frontend leaves in an image's history who asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.kit.daemon import Daemon
from tests.kit.service import PASSWORD, USER, service
from tests.kit.tools import field
from tests.kit.wire import basic

pytestmark = pytest.mark.mount


def test_through_mount_and_webdav(tmp_path: Path) -> None:
    """An image of a user of the host, changed by a user over the network, deleted by root."""
    made = Daemon(tmp_path / "state")
    made.command("user", "add", USER, "--role", "admin", stdin=f"{PASSWORD}\n")
    with made.mounted(), service(made, "none") as server:
        path = made.path / "file/a"
        path.write_bytes(b"data" * 1000)
        image = field(path, "id")
        login = basic(USER, PASSWORD)
        moved = server.ask("MOVE /file/a", login, "Destination: /file/b")
        assert moved.status == 201
        made.command("delete", "/file/b")
        events: list[dict[str, Any]] = made.command("log", "--json", image)
    found = [(it["frontend"], it["principal"], it["kind"]) for it in events]
    assert found == [
        ("mount", "root", "created"),
        ("mount", "root", "status"),
        ("mount", "root", "status"),
        ("dav", USER, "renamed"),
        ("command", "root", "status"),
    ]
