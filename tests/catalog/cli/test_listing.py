"""Lists of images, and what is shown of one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from catalog.model.access import ADMIN
from catalog.model.fields import FIELDS
from catalog.tree.vfs import Vfs
from tests.catalog.cli.command import DATA, Run, paths, shown


def test_list_filters_and_sorts(run: Run, tmp_path: Path) -> None:
    """By property, tag, status and folder; sorted by any field, either way."""
    for size, name in ((3, "b"), (1, "c"), (2, "a")):
        run("add", "-", "--name", name, "--property", f"p={size}", stdin=b"x" * size)
    run("tag", "/file/b", "t")
    run("deactivate", "/file/c")
    assert paths(run) == ["/file/b", "/file/c", "/file/a"]
    assert paths(run, "--sort", "name") == ["/file/a", "/file/b", "/file/c"]
    assert paths(run, "--sort", "size:desc") == ["/file/b", "/file/a", "/file/c"]
    assert paths(run, "--property", "p=1") == ["/file/c"]
    assert paths(run, "--tag", "t") == ["/file/b"]
    assert paths(run, "--status", "deactivated") == ["/file/c"]
    assert paths(run, "/file/a") == ["/file/a"]
    assert paths(run, "/other") == []
    run("list", "/nonsense", code=4)


def test_list_is_recursive_and_shows_the_trash_only_when_asked(run: Run, vfs: Vfs) -> None:
    """Folders are descended into; deleted images are listed apart."""
    vfs.make_folder(vfs.place("/file/folder"), ADMIN)
    run("add", "-", "--name", "folder/a", stdin=DATA)
    run("add", "-", "--name", "b", "--store", "other", stdin=DATA)
    assert paths(run) == ["/file/folder/a", "/other/b"]
    run("delete", "/other/b")
    assert paths(run) == ["/file/folder/a"]
    assert paths(run, "--deleted") == ["/other/.trash/b"]
    assert paths(run, "/file", "--deleted") == []


def test_tables_for_people(run: Run, image: str) -> None:
    """Bytes in the short table, human sizes in the long one."""
    short = run("list").stdout.splitlines()
    assert short[0].split() == ["STATUS", "FORMAT", "SIZE", "PATH"]
    assert short[1].split() == ["active", "raw", str(len(DATA)), "/file/a"]
    assert "1.0 MiB" in run("list", "--long").stdout


def test_json_keys_are_the_fields(run: Run, image: str) -> None:
    """Programs find every field under its name, with its own type."""
    found = shown(run, image)
    assert set(found) == set(FIELDS) | {"paths", "properties"}
    assert found["protected"] is False
    assert found["stores"] == ["file"]
    (listed,) = json.loads(run("list", "--json").stdout)
    assert set(listed) == set(FIELDS) - {"tags", "stores"} | {"path"}


def test_private_images_are_not_told(run: Run, image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user neither lists nor shows them, nor cleans up."""
    run("set", image, "visibility=private")
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    assert paths(run) == []
    run("show", image, code=12)
    run("set", image, "p=1", code=12)
    run("delete", "--now", image, code=12)
    run("scrub", code=12)


def test_terminal_is_left_alone(run: Run, image: str) -> None:
    """Control characters in a property are escaped for people and kept for programs."""
    run("set", image, "p=\x1b[31mred\nline")
    assert "property.p        \\x1b[31mred\\nline" in run("show", image).stdout
    assert shown(run, image)["properties"]["p"] == "\x1b[31mred\nline"
