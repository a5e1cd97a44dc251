"""cadaver(1), the command-line client, told what to do on its standard input."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.kit.service import Service


def cadaver(url: str, *commands: str, home: Path) -> str:
    """Run commands, each of which must succeed; return all that is said."""
    result = subprocess.run(
        ["cadaver", url],
        cwd=home,
        env=os.environ | {"HOME": str(home), "LC_ALL": "C"},
        input="\n".join([*commands, "quit", ""]),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    said = result.stdout + result.stderr
    assert result.returncode == 0, said
    assert "failed" not in said.lower(), said
    return said


def test_images_come_and_go(
    open_service: Service, folder: str, source: Path, data: bytes, tmp_path: Path
) -> None:
    """Put, list, get, copy, move, delete, and a folder."""
    say = cadaver(
        f"{open_service.url}{folder}/",
        f"put {source} a.img",
        "mkcol sub",
        "copy a.img sub/b.img",
        "move a.img sub/c.img",
        "ls sub",
        "get sub/c.img got.img",
        "delete sub/b.img",
        home=tmp_path,
    )
    assert "b.img" in say
    assert str(len(data)) in say
    assert (tmp_path / "got.img").read_bytes() == data
    assert open_service.status(f"{folder}/a.img") == ""
    assert open_service.status(f"{folder}/sub/b.img") == ""
    assert open_service.status(f"{folder}/sub/c.img") == "active"
    assert open_service.status("/file/.trash/b.img") == "pending_delete"


def test_put_replaces(
    open_service: Service, folder: str, source: Path, data: bytes, tmp_path: Path
) -> None:
    """A second put makes a new image, and the old one goes to the trash."""
    url = f"{open_service.url}{folder}/"
    cadaver(url, f"put {source} replaced.img", home=tmp_path)
    old = open_service.fields(f"{folder}/replaced.img")
    source.write_bytes(data[::-1])
    cadaver(url, f"put {source} replaced.img", home=tmp_path)
    new = open_service.fields(f"{folder}/replaced.img")
    assert new["status"] == "active"
    assert new["id"] != old["id"]
    assert open_service.fields("/file/.trash/replaced.img")["id"] == old["id"]


def test_a_locked_image_is_its_holders(
    open_service: Service, folder: str, source: Path, tmp_path: Path
) -> None:
    """Who has the lock may replace and delete; others may not; after unlock all may."""
    path = f"{folder}/a.img"
    say = cadaver(
        f"{open_service.url}{folder}/",
        f"put {source} a.img",
        "lock a.img",
        f"put {source} a.img",
        "showlocks",
        "discover a.img",
        home=tmp_path,
    )
    assert f"{path}" in say
    assert open_service.ask(f"PUT {path}", body=b"another").status == 423
    assert open_service.ask(f"DELETE {path}").status == 423
    token = say.partition("Lock token <")[2].partition(">")[0]
    assert open_service.ask(f"UNLOCK {path}", f"Lock-Token: <{token}>").status == 204
    cadaver(f"{open_service.url}{folder}/", "lock a.img", "unlock a.img", home=tmp_path)
    assert open_service.ask(f"DELETE {path}").status == 204


def test_properties(open_service: Service, folder: str, source: Path, tmp_path: Path) -> None:
    """A property is set, read back and removed."""
    say = cadaver(
        f"{open_service.url}{folder}/",
        f"put {source} a.img",
        "set namespace urn:imagefs:property",
        "propset a.img os_distro debian",
        "propget a.img os_distro",
        "propnames a.img",
        "propdel a.img os_distro",
        home=tmp_path,
    )
    assert "Value of os_distro is: debian" in say
    assert "urn:imagefs:property os_distro" in say
