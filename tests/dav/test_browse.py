from __future__ import annotations

import json
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from catalog.errors import CatalogError, Forbidden, InvalidValue, NotFound
from catalog.model.access import ADMIN, Principal
from catalog.model.fields import FIELDS
from catalog.model.status import Status
from catalog.tree.vfs import Vfs
from dav import browse
from dav.browse import assets, sums
from dav.browse.commands import quote
from dav.browse.exchange import query_of
from dav.negotiation import Kind, kind_for
from tests.kit.catalog import (
    ALICE,
    BOB,
    READER,
    begin,
    entry,
    image_at,
    make_folder,
    new_catalog,
    put,
    put_as_before,
    remove,
    rename,
    set_fields,
    settings_at,
)

HOSTILE = (
    "<script>alert(1)</script>.raw".replace("/", "∕"),
    "\"onmouseover='alert(1)'.raw",
    "a&amp;b?c#d%2e.raw",
    "-rf $(id) `id`;'x'.raw",
    "back\\slash\\n.raw",
    "\u202egnp.elif.raw",
    "{{ 7 * 7 }}{% raw %}",
    "n" * 255,
)


@pytest.fixture
def vfs(tmp_path: Path):
    """A catalog with the stores file, other and memory."""
    catalog = new_catalog(settings_at(tmp_path))
    yield Vfs(catalog)
    catalog.close()


def ask(
    vfs: Vfs,
    path: str,
    query: str = "",
    *,
    accept: str = "text/html",
    who: Principal = ALICE,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    body: bytes = b"",
) -> browse.Response | None:
    """Ask the page as a browser does."""
    try:
        node = vfs.find(path, who)
    except NotFound:
        node = None
    request = browse.Request(
        method=method,
        path=path,
        query=query_of(query),
        accept=accept,
        headers=headers or {},
        read=lambda: body,
        principal=who,
        vfs=vfs,
        request_id="abc123",
        base_url="http://images.test:8080",
    )
    return browse.respond(request, node)


def text(vfs: Vfs, path: str, query: str = "", **options: Any) -> str:
    """The body of an answer."""
    response = ask(vfs, path, query, **options)
    assert response is not None
    body = response.body
    return (body if isinstance(body, bytes) else b"".join(body)).decode()


def document(vfs: Vfs, path: str, query: str = "", **options: Any) -> Any:
    """The JSON of a page."""
    return json.loads(text(vfs, path, query, accept="application/json", **options))


class Markup(HTMLParser):
    """Every element and every text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


# -- what is asked for -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("text/html,application/xhtml+xml,*/*;q=0.8", Kind.HTML),
        ("application/json", Kind.JSON),
        ("application/json, text/html;q=0.5", Kind.JSON),
        ("text/html;q=0, application/json;q=0.1", Kind.JSON),
        ("*/*", Kind.TEXT),
        ("", Kind.TEXT),
        ("text/html;q=nonsense", Kind.HTML),
    ],
)
def test_accept_decides_between_html_and_json(accept: str, kind: Kind) -> None:
    """The heavier of both wins; who names neither gets the default."""
    assert kind_for(accept, otherwise=Kind.TEXT) is kind


def test_data_of_an_image_is_not_the_page_s(vfs: Vfs) -> None:
    """Only `?page` is answered, so that a plain GET always gives the data."""
    put(vfs, "/file/a.raw")
    assert ask(vfs, "/file/a.raw") is None
    assert ask(vfs, "/file/a.raw", accept="application/json") is None
    assert ask(vfs, "/file/a.raw", method="PUT") is None
    assert "a.raw" in text(vfs, "/file/a.raw", "page")


def test_what_is_not_there_is_not_found(vfs: Vfs) -> None:
    """A missing name is left to WebDAV, a missing asset is refused."""
    assert ask(vfs, "/file/nothing") is None
    for path in ("/.assets/x/page.css", "/.assets/../page.js", "/.assets/"):
        with pytest.raises(NotFound):
            ask(vfs, path)


def test_head_has_the_headers_of_get_and_no_body(vfs: Vfs) -> None:
    """RFC 9110 §9.3.2."""
    got, head = ask(vfs, "/file/"), ask(vfs, "/file/", method="HEAD")
    assert got is not None
    assert head is not None
    assert head.headers == got.headers
    assert head.body == b""


def test_every_answer_carries_the_strict_policy(vfs: Vfs) -> None:
    """Pages, JSON, assets, sums and errors alike; pages are kept by no cache."""
    put(vfs, "/file/a.raw")
    asset = assets.URLS["page.js"]
    answers = [ask(vfs, path) for path in ("/", "/file", "/.by-id", "/file/SHA256SUMS", asset)]
    answers += [ask(vfs, "/file/a.raw", "page"), browse.error_page(404, "x", "1", "text/html")]
    for response in answers:
        assert response is not None
        headers = dict(response.headers)
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none';")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
    assert dict(answers[1].headers)["Cache-Control"] == "no-store"  # type: ignore[union-attr]
    assert "immutable" in dict(answers[4].headers)["Cache-Control"]  # type: ignore[union-attr]


def test_pages_refer_to_nothing_outside_and_run_nothing_inline(vfs: Vfs) -> None:
    """Every source is an asset of ours; no style or handler stands in the markup."""
    put(vfs, "/file/a.raw")
    for path, query in (("/", ""), ("/file/", ""), ("/file/a.raw", "page"), ("/file/.trash", "")):
        for tag, attributes in Markup(text(vfs, path, query)).elements:
            assert not any(name == "style" or name.startswith("on") for name in attributes)
            for name in ("src", "href", "action"):
                value = attributes.get(name) or "/"
                assert value[0] in "/?#", (tag, value)
                assert not value.startswith("//")
            if tag in ("script", "link", "img"):
                assert (attributes.get("src") or attributes.get("href")) in assets.URLS.values()


# -- folders ---------------------------------------------------------------------------


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


# -- an image --------------------------------------------------------------------------


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


# -- changing --------------------------------------------------------------------------

JSON_HEADERS = {"content-type": "application/json; charset=utf-8", "x-imagefs": "1"}


def post(vfs: Vfs, values: object, who: Principal = ALICE, **headers: str) -> Any:
    """Set attributes of /file/a.raw as the page does."""
    body = values if isinstance(values, bytes) else json.dumps(values).encode()
    sent = {**JSON_HEADERS, **{name.replace("_", "-"): text for name, text in headers.items()}}
    return document(
        vfs, "/file/a.raw", "properties", method="POST", headers=sent, body=body, who=who
    )


def test_attributes_are_set_and_removed(vfs: Vfs) -> None:
    """Null removes a property; the answer is the image as it is now."""
    put(vfs, "/file/a.raw")
    found = post(vfs, {"image.visibility": "private", "property.os_distro": "debian"})
    assert found["visibility"] == "private"
    assert found["properties"] == {"os_distro": "debian"}
    found = post(vfs, {"property.os_distro": None}, origin="http://images.test:8080")
    assert found["properties"] == {}


def test_a_failing_attribute_leaves_the_others_alone(vfs: Vfs) -> None:
    """All or nothing."""
    put(vfs, "/file/a.raw")
    with pytest.raises(InvalidValue):
        post(vfs, {"property.x": "1", "image.visibility": "nobody"})
    assert document(vfs, "/file/a.raw", "page")["properties"] == {}


@pytest.mark.parametrize(
    "headers",
    [
        {"x_imagefs": ""},
        {"origin": "http://evil.test"},
        {"origin": "null"},
        {"origin": "http://images.test:8080.evil.test"},
        {"content_type": "text/plain"},
    ],
)
def test_another_site_cannot_change_anything(vfs: Vfs, headers: dict[str, str]) -> None:
    """Without our header, with another origin, or as a form can send it."""
    put(vfs, "/file/a.raw")
    with pytest.raises(CatalogError):
        post(vfs, {"image.visibility": "private"}, ALICE, **headers)
    assert image_at(vfs, "/file/a.raw").visibility == "public"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"[]",
        b"[" * 100_000,
        b'{"property.x": 1}',
        b'{"property.x": "\\ud800"}',
        b'{"property.x": "\\u0000"}',
    ],
)
def test_a_body_that_is_no_object_of_texts_is_refused(vfs: Vfs, body: bytes) -> None:
    """With a reason, and nothing is set."""
    put(vfs, "/file/a.raw")
    with pytest.raises(InvalidValue):
        post(vfs, body)


def test_only_its_owner_changes_an_image(vfs: Vfs) -> None:
    """The rule is the catalog's own."""
    put(vfs, "/file/a.raw")
    with pytest.raises(Forbidden):
        post(vfs, {"property.x": "1"}, who=BOB)
    assert dict(vfs.catalog.details(entry(vfs, "/file/a.raw").image.number).properties) == {}


# -- SHA256SUMS ------------------------------------------------------------------------


def test_sha256sum_accepts_the_sums_of_a_folder(vfs: Vfs, tmp_path: Path) -> None:
    """Every name, also one that has to be escaped; only what is active is there."""
    folder = tmp_path / "fetched"
    folder.mkdir()
    for name in HOSTILE:
        data = b"\0" + name.encode()
        put_as_before(vfs, f"/file/{name}", data)
        (folder / name).write_bytes(data)
    begin(vfs, "/file/unfinished", b"x")
    found = text(vfs, "/file/SHA256SUMS")
    assert len(found.splitlines()) == len(HOSTILE)
    checked = subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet"], input=found.encode(), cwd=folder
    )
    assert checked.returncode == 0
    (folder / HOSTILE[0]).write_bytes(b"something else")
    checked = subprocess.run(["sha256sum", "--check", "--status"], input=found.encode(), cwd=folder)
    assert checked.returncode == 1


def test_no_image_passes_for_the_sums_of_a_folder(vfs: Vfs) -> None:
    """One of an earlier version may be called so: its page is there, and a new name for it."""
    image = put_as_before(vfs, "/file/SHA256SUMS", b"0000  debian.qcow2\n")
    assert text(vfs, "/file/SHA256SUMS") == sums.line(image.os_hash_value or "", image.name) + "\n"
    assert document(vfs, "/file/SHA256SUMS", "page")["id"] == image.id
    rename(vfs, "/file/SHA256SUMS", "/file/sums.raw")
    assert image_at(vfs, "/file/sums.raw").id == image.id


# -- errors ----------------------------------------------------------------------------


def test_an_error_is_told_as_it_was_asked_for() -> None:
    """HTML with the request id, JSON with its parts, one line to everybody else."""
    message = "<b>no</b> such image"
    pages = [browse.error_page(404, message, "r1", accept) for accept in _ACCEPTS]
    html, as_json, line = (page.body.decode() for page in pages)  # type: ignore[union-attr]
    assert {page.status for page in pages} == {404}
    assert "&lt;b&gt;no&lt;/b&gt;" in html
    assert "r1" in html
    assert json.loads(as_json)["error"] == {"status": 404, "message": message, "request_id": "r1"}
    assert line == f"{message} (request r1)\n"


_ACCEPTS = ("text/html,*/*;q=0.8", "application/json", "*/*")
