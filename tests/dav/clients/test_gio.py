"""gio(1): GNOME's file manager without its window, in a session bus of its own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.kit.service import Service

_SESSION = {"GIO_USE_VOLUME_MONITOR": "unix", "GVFS_DISABLE_FUSE": "1", "LC_ALL": "C"}


def session(script: str, *arguments: object, home: Path) -> str:
    """Run a shell script that must succeed in a new session; its arguments are $1, $2, …"""
    folders = {name: str(home) for name in ("HOME", "XDG_RUNTIME_DIR", "XDG_DATA_HOME")}
    result = subprocess.run(
        ["dbus-run-session", "--", "sh", "-euc", script, "sh", *map(str, arguments)],
        env=os.environ | _SESSION | folders,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_images_come_and_go(
    open_service: Service, folder: str, source: Path, data: bytes, tmp_path: Path
) -> None:
    """Mount, copy in, list, copy out, move, rename, delete."""
    url = f"{open_service.url.replace('http', 'dav')}{folder}"
    script = """
        gio mount "$1/"
        gio copy "$2" "$1/a.img"
        gio list -l "$1/"
        gio mkdir "$1/sub"
        gio move "$1/a.img" "$1/sub/b.img"
        gio rename "$1/sub/b.img" c.img
        gio copy "$1/sub/c.img" "$3"
        gio copy "$1/sub/c.img" "$1/gone.img"
        gio remove "$1/gone.img"
    """
    back = tmp_path / "back.img"
    assert f"a.img\t{len(data)}\t(regular)" in session(script, url, source, back, home=tmp_path)
    assert back.read_bytes() == data
    assert open_service.status(f"{folder}/a.img") == ""
    assert open_service.status(f"{folder}/sub/c.img") == "active"
    assert open_service.status(f"{folder}/gone.img") == ""
    assert open_service.status("/file/.trash/gone.img") == "pending_delete"


def test_an_image_is_replaced(
    open_service: Service, folder: str, source: Path, tmp_path: Path
) -> None:
    """A copy onto an image, and a save of a stream, make new ones."""
    url = f"{open_service.url.replace('http', 'dav')}{folder}"
    script = """
        gio mount "$1/"
        echo first | gio save "$1/a.img"
        gio copy "$2" "$1/a.img"
    """
    session(script, url, source, home=tmp_path)
    assert open_service.ask(f"GET {folder}/a.img").body == source.read_bytes()
    assert open_service.fields("/file/.trash/a.img")["size"] == "6"
