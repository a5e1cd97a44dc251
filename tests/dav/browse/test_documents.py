"""An image's page: its fields, the commands to copy, what may be done to it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from catalog.model.access import ADMIN
from catalog.model.fields import FIELDS
from catalog.tree.vfs import Vfs
from dav.browse.commands import quote
from tests.dav.browse.asking import HOSTILE, Markup, document, text
from tests.kit.catalog import BOB, put, put_as_before, set_fields


def test_image_document_has_every_field_and_property(vfs: Vfs) -> None:
    """The same names as `imagefs show --json`."""
    put(vfs, "/file/a.raw")
    found = document(vfs, "/file/a.raw", "page")
    assert set(found) == {*FIELDS, "path", "paths", "properties", "locks"}
    assert found["paths"] == ["/file/a.raw"]


@pytest.mark.parametrize("name", HOSTILE)
def test_commands_keep_a_hostile_name_in_one_word(vfs: Vfs, name: str, tmp_path: Path) -> None:
    """A shell that runs them passes the name on as it is, and runs nothing of it."""
    put_as_before(vfs, f"/file/{name}", b"some data")
    page = Markup(text(vfs, f"/file/{name}", "page"))
    seen = "".join(page.texts)
    (fetch,) = [part for part in page.texts if part.startswith("curl ")]
    # `curl` prints its arguments, each with an end; the check reads what was fetched.
    script = f"""curl() {{ printf '%s\\0' "$@" >args; }}
    {fetch}"""
    target = f"./{name}" if name.startswith("-") else name
    (tmp_path / name).write_bytes(b"some data")
    result = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True)
    assert result.returncode == 0, result.stderr
    arguments = (tmp_path / "args").read_bytes().decode().split("\0")
    assert arguments[arguments.index("--output") + 1] == target
    assert "\u202e" not in seen


def test_commands_name_the_image_by_its_id(vfs: Vfs) -> None:
    """A guest's disk finds the same bytes when another image has taken the name."""
    image = put(vfs, "/file/a.raw")
    page = text(vfs, "/file/a.raw", "page")
    assert f"-b /mnt/images/.by-id/{image.id} guest.qcow2" in page
    assert f"backing_store=/mnt/images/.by-id/{image.id}" in page


def test_who_uses_an_image_is_told_before_it_is_deleted(vfs: Vfs) -> None:
    """The owner is asked with it; others are not told."""
    number = put(vfs, "/file/a.raw").number
    reader = vfs.open(number, ADMIN, "qemu (pid 4711)")
    vfs.uses.publish()
    assert 'data-used-by="qemu (pid 4711) on ' in text(vfs, "/file/a.raw", "page")
    assert "4711" not in text(vfs, "/file/a.raw", "page", who=BOB)
    reader.close()
    vfs.uses.publish()
    assert "4711" not in text(vfs, "/file/a.raw", "page")


def test_a_word_that_does_not_show_is_spelled_out() -> None:
    """What is quoted looks like what it does."""
    word = "a'\\\u202eb$c"
    echoed = subprocess.run(
        ["bash", "-c", f"printf %s {quote(word)}"],
        capture_output=True,
        check=True,
        env={"LC_ALL": "C.UTF-8"},
    )
    assert echoed.stdout.decode() == word
    assert quote(word).isprintable()


def test_buttons_that_change_are_for_its_owner(vfs: Vfs) -> None:
    """Others read the page without them; a protected image cannot be deleted."""
    put(vfs, "/file/a.raw")
    set_fields(vfs, "/file/a.raw", protected="true")
    own, other = text(vfs, "/file/a.raw", "page"), text(vfs, "/file/a.raw", "page", who=BOB)
    assert 'id="edit"' in own
    assert "disabled title" in own
    assert 'id="edit"' not in other
    assert "data-delete" not in other
    assert 'name="image.owner"' in text(vfs, "/file/a.raw", "page", who=ADMIN)
