"""Data that can change without the catalog's knowing: what HTTP says of it (RFC 9110 §8.8)."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from uuid import uuid4

import pytest

from catalog.model.access import ADMIN
from catalog.model.image import Visibility
from catalog.service.configuration import load
from catalog.tree.adopt import Adoption, Terms
from catalog.upkeep.verify import verify
from tests.dav.server import ANONYMOUS, Served, serving
from tests.kit.catalog import some_bytes
from tests.kit.configuration import configure
from tests.servers.scripted import WebServer, nginx

OLD, NEW = some_bytes(10_000, seed=1), some_bytes(10_000, seed=2)
REST = "Range: bytes=5000-"

_numbers = count()


@dataclass(frozen=True, slots=True)
class Changing:
    """An image that has no digests."""

    path: str
    file: Path
    """Where its data is."""

    def change(self) -> None:
        """What its server does without telling anybody."""
        new = self.file.with_suffix(".new")
        new.write_bytes(NEW)
        new.rename(self.file)


Make = Callable[[], Changing]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all is."""
    return tmp_path_factory.mktemp("changing")


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    """A server with the stores `file` and `web`."""
    with serving(folder, load(configure(folder))) as served:
        yield served


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    """The web server that links lead to."""
    with nginx(tmp_path_factory.mktemp("nginx")) as server:
        yield server


@pytest.fixture(scope="module")
def link(web: WebServer, served: Served) -> Make:
    """Makes links to it."""

    def make() -> Changing:
        name = f"{next(_numbers)}.img"
        (web.root / name).write_bytes(OLD)
        place = served.vfs.place(f"/web/{name}")
        served.vfs.register(place, f"{web.url}/{name}", ANONYMOUS)
        return Changing(f"/web/{name}", web.root / name)

    return make


@pytest.fixture(scope="module")
def adopted(folder: Path, served: Served) -> Make:
    """Makes images of what lies in a store."""

    def make() -> Changing:
        own = served.add("/file/like-it.img", OLD)
        assert served.ask("DELETE /file/like-it.img").status == 204
        image_id = str(uuid4())
        (like,) = (folder / "file").rglob(own.id)
        file = like.with_name(image_id)
        shutil.copy(like, file)
        path = f"/file/{image_id}.img"
        terms = Terms(Visibility.PUBLIC, protected=False)
        Adoption(served.vfs, "file", terms, ADMIN).adopt(image_id, path.removeprefix("/file"))
        return Changing(path, file)

    return make


@pytest.fixture(params=[pytest.param("link", marks=pytest.mark.server), "adopted"])
def image(request: pytest.FixtureRequest) -> Changing:
    """Either."""
    make: Make = request.getfixturevalue(request.param)
    return make()


def test_a_resumed_download_joins_no_two_versions(served: Served, image: Changing) -> None:
    """A rest is given to nobody who wants it of the version that was begun."""
    begun = served.ask(f"GET {image.path}", "Range: bytes=0-4999")
    assert (begun.status, begun.body) == (206, OLD[:5000])
    tag = begun.headers["etag"]
    assert tag.startswith("W/")
    # What a listing says is when it was registered.
    assert "last-modified" not in begun.headers
    image.change()
    for condition in (f"If-Match: {tag}", f"If-Match: {tag[2:]}"):
        assert served.ask(f"GET {image.path}", REST, condition).status == 412
    # Here the server's file is read to its end, and gets its digests.
    answer = served.ask(f"GET {image.path}", REST, f"If-Range: {tag}")
    assert (answer.status, answer.body) == (200, NEW)


@pytest.mark.parametrize("sent", ["etag", "opaque", "modified"])
def test_no_rest_by_any_validator(served: Served, link: Make, sent: str) -> None:
    """Nor by the tag taken for a strong one, nor by the date that a listing shows."""
    image = link()
    tag = served.ask(f"HEAD {image.path}").headers["etag"]
    listed = served.ask(f"PROPFIND {image.path}", "Depth: 0").body.decode()
    assert f">{tag}<" in listed
    date = listed.partition("<D:getlastmodified>")[2].partition("<")[0]
    image.change()
    condition = {"etag": tag, "opaque": tag[2:], "modified": date}[sent]
    answer = served.ask(f"GET {image.path}", REST, f"If-Range: {condition}")
    assert (answer.status, answer.body) == (200, NEW)


def test_nothing_is_called_current(served: Served, link: Make) -> None:
    """Who has the data already gets what the server has now."""
    image = link()
    tag = served.ask(f"HEAD {image.path}").headers["etag"]
    for condition in (f"If-None-Match: {tag}", "If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT"):
        assert served.ask(f"HEAD {image.path}", condition).status == 200
    image.change()
    assert served.ask(f"GET {image.path}", f"If-None-Match: {tag}").body == NEW


def test_digests_make_the_tag_strong(served: Served, image: Changing) -> None:
    """From then on nothing but this data is given out."""
    weak = served.ask(f"HEAD {image.path}").headers["etag"]
    list(verify(served.vfs.catalog, served.image(image.path), ADMIN))
    head = served.ask(f"HEAD {image.path}")
    tag = head.headers["etag"]
    assert tag.startswith('"')
    assert "last-modified" in head.headers
    answer = served.ask(f"GET {image.path}", REST, f"If-Range: {tag}")
    assert (answer.status, answer.body) == (206, OLD[5000:])
    assert served.ask(f"GET {image.path}", REST, f"If-Range: {weak}").status == 200


def test_a_weak_tag_names_the_image(served: Served, link: Make) -> None:
    """To who changes or deletes it: a tag of another image does not hold."""
    image, other = link(), link()
    tag, others = (served.ask(f"HEAD {it.path}").headers["etag"] for it in (image, other))
    assert tag != others
    # Refused, as anything that is to be put there: a DELETE may mean what was refused.
    assert served.ask(f"PUT {image.path}", body=NEW).status == 403
    assert served.ask(f"DELETE {image.path}").status == 409
    for condition in (f"If-Match: {others}", f"If: ([{others}])"):
        assert served.ask(f"DELETE {image.path}", condition).status == 412
    body = (
        b'<D:propertyupdate xmlns:D="DAV:" xmlns:P="urn:imagefs:property"><D:set><D:prop>'
        b"<P:os_distro>debian</P:os_distro></D:prop></D:set></D:propertyupdate>"
    )
    for condition in (f"If-Match: {tag}", f"If: ([{tag}])"):
        assert served.ask(f"PROPPATCH {image.path}", condition, body=body).status == 207
    assert served.ask(f"DELETE {image.path}", f"If-Match: {tag}").status == 204


def test_a_weak_tag_in_an_if_header_names_the_image(served: Served, link: Make) -> None:
    """It is meant, too; and of who reads, the same header asks in vain."""
    image = link()
    tag = served.ask(f"HEAD {image.path}").headers["etag"]
    assert served.ask(f"GET {image.path}", REST, f"If: ([{tag}])").status == 412
    assert served.ask(f"PUT {image.path}", body=NEW).status == 403
    assert served.ask(f"DELETE {image.path}", f"If: ([{tag}])").status == 204


def test_what_is_still_written_has_a_weak_tag(served: Served) -> None:
    """A file with a temporary name can get more bytes; the image that it becomes, none."""
    path = "/file/growing.part"
    for start in (0, 5000):
        part = f"Content-Range: bytes {start}-{start + 4999}/{start + 5000}"
        answer = served.ask(f"PUT {path}", part, body=OLD[start : start + 5000])
        assert (answer.status, answer.headers["etag"][:2]) == (201, "W/"), answer
    tag = answer.headers["etag"]
    answer = served.ask(f"GET {path}", REST, f"If-Range: {tag}")
    assert (answer.status, answer.body, answer.headers["etag"]) == (200, OLD, tag)
    moved = served.ask(f"MOVE {path}", f"If-Match: {tag}", "Destination: /file/grown.img")
    assert moved.status == 201
    assert served.ask("HEAD /file/grown.img").headers["etag"].startswith('"')
