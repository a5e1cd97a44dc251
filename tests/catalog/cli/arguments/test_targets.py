"""Which image a command means."""

from __future__ import annotations

import pytest

from catalog.model.access import ADMIN
from catalog.rules import entries
from catalog.tree.vfs import Vfs
from tests.catalog.cli.command import DATA, Run, paths, shown


def test_image_is_named_by_path_id_or_prefix(run: Run, image: str) -> None:
    """All ways of naming lead to the same image."""
    ways = ["/file/a", "file/a", f"/.by-id/{image}", image, image[:6], image[:6].upper()]
    assert {shown(run, way)["id"] for way in ways} == {image}


def test_ambiguous_prefix_lists_the_candidates(run: Run, vfs: Vfs) -> None:
    """Ids that begin alike are told, and nothing is done."""
    for last in "12":
        place = vfs.place(f"/file/n{last}")
        entries.create(vfs.catalog, place, ADMIN, f"abcdef00-0000-4000-8000-00000000000{last}")
    line = run("delete", "abcdef", code=2).stderr
    assert "000001 (n1)" in line
    assert "000002 (n2)" in line
    assert paths(run) == ["/file/n1", "/file/n2"]


@pytest.mark.parametrize(
    ("argument", "code"),
    [("", 2), ("b.img", 4), ("xyz", 4), ("/file", 1), ("/file/x", 4), ("/\udcff", 2), ("ü", 4)],
)
def test_what_is_no_image(run: Run, argument: str, code: int) -> None:
    """An empty argument never means the only image there is; a bare name is no id."""
    run("add", "-", "--name", "b", stdin=DATA)
    run("delete", argument, code=code)
    assert paths(run) == ["/file/b"]
