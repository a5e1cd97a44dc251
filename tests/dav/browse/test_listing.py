"""Folders: their lists, and the JSON of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from catalog.model.access import Principal
from catalog.model.fields import FIELDS
from catalog.model.status import Status
from catalog.tree.vfs import Vfs
from dav.browse.exchange import query_of
from tests.dav.browse.asking import HOSTILE, Markup, ask, document, text
from tests.kit.catalog import (
    ALICE,
    BOB,
    READER,
    begin,
    make_folder,
    put,
    put_as_before,
    remove,
    set_fields,
)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_only_ever_text(vfs: Vfs, name: str) -> None:
    """On each page the name makes no element, and its link leads back to it."""
    harmless = put(vfs, "/other/harmless.raw")
    put_as_before(vfs, f"/file/{name}")
    count = len(Markup(text(vfs, "/other/")).elements)
    listed = Markup(text(vfs, "/file/"))
    assert len(listed.elements) == count
    links = [attributes["href"] for _tag, attributes in listed.elements if "data-row" in attributes]
    assert len(links) == 1
    path = str(links[0])
    assert path.isascii()
    assert path.endswith("?page")
    page = Markup(text(vfs, f"/file/{name}", "page"))
    plain = Markup(text(vfs, "/other/harmless.raw", "page"))
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in plain.elements]
    assert harmless.status is Status.ACTIVE


def test_listing_is_sorted_filtered_and_paged_by_its_query(vfs: Vfs) -> None:
    """What the query says wrongly is as if it were not there."""
    for name, size in (("a.raw", 3), ("b.raw", 1), ("c.iso", 2)):
        put(vfs, f"/file/{name}", b"x" * size)

    def listed(query: str) -> list[str]:
        return [image["name"] for image in document(vfs, "/file/", query)["images"]]

    assert listed("") == ["a.raw", "b.raw", "c.iso"]
    assert listed("sort=size") == ["b.raw", "c.iso", "a.raw"]
    assert listed("sort=size&dir=desc") == ["a.raw", "c.iso", "b.raw"]
    assert listed("q=.RAW") == ["a.raw", "b.raw"]
    assert listed("status=killed") == []
    assert listed("offset=2") == ["c.iso"]
    assert listed("sort=nonsense&offset=-1&status=x&dir=up") == ["a.raw", "b.raw", "c.iso"]
    assert listed("offset=" + "9" * 12) == []
    assert len(listed("offset=" + "9" * 5000)) == 3
    assert listed("&".join(f"x{number}=1" for number in range(100))) == ["a.raw", "b.raw", "c.iso"]


def test_a_long_folder_comes_in_pages(vfs: Vfs) -> None:
    """Each page links to the next; no image is on two."""
    for number in range(103):
        vfs.create(vfs.place(f"/file/{number:03}"), ALICE)
    first, second = document(vfs, "/file/"), document(vfs, "/file/", "offset=100")
    assert (len(first["images"]), len(second["images"])) == (100, 3)
    assert first["total"] == second["total"] == 103
    links = [attributes for _, attributes in Markup(text(vfs, "/file/")).elements]
    (following,) = [link["href"] for link in links if link.get("rel") == "next"]
    assert query_of(str(following)[1:])["offset"] == "100"


def test_listing_names_fields_as_the_catalog_does(vfs: Vfs) -> None:
    """Every field but tags and stores; folders, the trash apart."""
    put(vfs, "/file/a.raw", b"12345")
    make_folder(vfs, "/file/below")
    found = document(vfs, "/file/")
    assert found["folders"] == [{"name": "below", "path": "/file/below/"}]
    (image,) = found["images"]
    assert set(image) == set(FIELDS) - {"tags", "stores"} | {"path", "os"}
    assert (image["path"], image["size"], image["protected"]) == ("/file/a.raw", 5, False)


def test_size_of_an_upload_is_what_has_arrived(vfs: Vfs) -> None:
    """The page asks again every two seconds while one goes on."""
    begin(vfs, "/file/a.raw", b"12345")
    assert document(vfs, "/file/")["images"][0]["size"] == 5
    assert document(vfs, "/file/a.raw", "page")["size"] == 5
    assert "data-busy" in text(vfs, "/file/")


def test_overview_tells_every_store_and_why_one_does_not_answer(vfs: Vfs, tmp_path: Path) -> None:
    """A store that is gone is named with its reason; the others are shown all the same."""
    put(vfs, "/other/a.raw", b"12345")
    shutil.rmtree(tmp_path / "file")
    stores = {store["name"]: store for store in document(vfs, "/")["stores"]}
    assert set(stores) == {"file", "memory", "other"}
    assert stores["other"]["images"] == 1
    assert stores["other"]["size"] == 5
    assert stores["other"]["free"] > 0
    assert stores["file"]["free"] is None
    assert stores["file"]["message"]
    assert "unavailable" in text(vfs, "/")
    assert "unavailable" in text(vfs, "/file/")


def test_an_image_one_may_not_see_is_nowhere(vfs: Vfs) -> None:
    """Neither in its folder, nor by id, nor in the sums, nor on its own page."""
    image = put(vfs, "/file/secret.raw")
    set_fields(vfs, "/file/secret.raw", visibility="private")
    for path in ("/file/", "/file/SHA256SUMS", "/.by-id/"):
        assert "secret.raw" in text(vfs, path)
        assert "secret.raw" not in text(vfs, path, who=BOB)
    assert ask(vfs, "/file/secret.raw", "page", who=BOB) is None
    assert image.id in document(vfs, "/.by-id/")["links"]


def test_by_id_leads_to_the_image_s_page(vfs: Vfs) -> None:
    """A link that stays when the image is renamed."""
    image = put(vfs, "/file/a b.raw")
    response = ask(vfs, f"/.by-id/{image.id}", "page")
    assert response is not None
    assert response.status == 302
    assert dict(response.headers)["Location"] == "/file/a%20b.raw?page"


def test_trash_tells_where_an_image_goes_back_to(vfs: Vfs) -> None:
    """The folder it was in, or its store if that folder has gone; only its owner may."""
    make_folder(vfs, "/file/below")
    put(vfs, "/file/below/a.raw")
    remove(vfs, "/file/below/a.raw")
    assert 'data-to="/file/below/a.raw"' in text(vfs, "/file/.trash/")
    assert "data-to" not in text(vfs, "/file/.trash/", who=BOB)
    vfs.remove_folder(vfs.place("/file/below"), ALICE)
    assert 'data-to="/file/a.raw"' in text(vfs, "/file/.trash/")


@pytest.mark.parametrize(("who", "offered"), [(ALICE, True), (READER, False)])
def test_upload_is_offered_to_who_may(vfs: Vfs, who: Principal, offered: bool) -> None:
    """A reader is not asked to drop files."""
    assert ("data-upload" in text(vfs, "/file/", who=who)) is offered
