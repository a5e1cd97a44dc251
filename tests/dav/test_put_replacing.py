"""Whatever a client sends after a PUT that failed, what was good before is good after it."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest

from catalog.model.access import ADMIN
from catalog.model.status import Status
from tests.dav.server import ANONYMOUS, Served, serving
from tests.kit.catalog import make_folder, names_in, put, remove, some_bytes
from tests.kit.daemon import wait_until
from tests.kit.wire import Answer, Wire, head

DATA = some_bytes(300_000, seed=3)
# A qcow2 image that wants another file.
BACKED = b"QFI\xfb\0\0\0\2" + (72).to_bytes(8, "big") + (9).to_bytes(4, "big")
BACKED += (16).to_bytes(4, "big") + (1 << 20).to_bytes(8, "big") + bytes(40) + b"/etc/hosts"
BACKED += bytes(100_000)
WRONG = f"OC-Checksum: SHA256:{'0' * 64}"

_numbers = count()


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the catalog is."""
    return tmp_path_factory.mktemp("replacing")


@pytest.fixture(scope="module")
def served(state: Path) -> Iterator[Served]:
    """A server with an empty catalog."""
    with serving(state) as served:
        yield served


@pytest.fixture(scope="module")
def beside(served: Served, state: Path) -> Iterator[Served]:
    """A second server over the same catalog, which knows of the other only what is in it."""
    with serving(state) as second:
        yield second


@pytest.fixture
def path(served: Served) -> str:
    """An image in a folder of its own."""
    folder = f"/file/f{next(_numbers)}"
    make_folder(served.vfs, folder, ANONYMOUS)
    return f"{folder}/a.img"


def begun(wire: Wire, served: Served, path: str, size: int = 100_000) -> None:
    """Send the beginning of a PUT onto `path`, and wait until it is there."""
    folder = path.rpartition("/")[0]
    before = names_in(served.vfs, folder)
    wire.send(head(f"PUT {path}", f"Content-Length: {len(DATA)}") + DATA[:size])
    wait_until(lambda: names_in(served.vfs, folder) - before, "the upload has begun")


# -- every way to fail -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ((WRONG,), 400),
        (("Content-Range: bytes 0-9/20",), 400),
        (("Content-Range: bytes 10-300009/300010",), 409),
        (("If-None-Match: *",), 412),
        (('If-Match: "another"',), 412),
        (("If: (<opaquelocktoken:none>)",), 412),
    ],
)
def test_delete_after_a_put_that_failed(
    served: Served, beside: Served, path: str, headers: tuple[str, ...], status: int
) -> None:
    """However often, on whichever connection and server: the old image stays."""
    old = served.add(path)
    assert served.ask(f"PUT {path}", *headers, body=DATA).status == status
    for server in (served, beside, served):
        refused = server.ask(f"DELETE {path}")
        assert refused.status == 409
        assert b"it is kept until" in refused.body
        assert b".put" not in refused.body
        assert b"If-Match" in refused.body
    assert served.image(path) == old


def test_delete_after_a_refused_format(served: Served, path: str) -> None:
    """The gate's 415, which rclone cleans up after."""
    old = served.add(path)
    assert served.ask(f"PUT {path}", body=BACKED).status == 415
    assert served.ask(f"DELETE {path}").status == 409
    assert served.image(path) == old


def test_delete_does_not_wait_for_the_put(served: Served, beside: Served, path: str) -> None:
    """While the data arrives, after it was cut off, and after the next attempt was, too."""
    old = served.add(path)
    for _ in range(2):
        with Wire(served.port) as wire:
            begun(wire, served, path)
            for server in (served, beside):
                refused = server.ask(f"DELETE {path}")
                assert refused.status == 409
                assert b"is being replaced" in refused.body
        assert served.ask(f"DELETE {path}").status == 409
    assert served.image(path) == old
    assert served.ask(f"PUT {path}", body=DATA).status == 204
    # Another client's clean-up may still be on its way.
    assert served.ask(f"DELETE {path}").status == 409


def test_delete_overtakes_the_put(served: Served, path: str) -> None:
    """On another connection it may come first: the old image is back when the PUT fails."""
    old = served.add(path)
    assert served.ask(f"DELETE {path}").status == 204
    with Wire(served.port) as wire:
        begun(wire, served, path)
        assert served.image(path).id != old.id
    wait_until(lambda: served.image(path).id == old.id, "the old image is back")
    assert served.ask(f"DELETE {path}").status == 409


def test_delete_of_an_upload_in_an_images_place(served: Served, path: str) -> None:
    """Finder deletes, then writes, and deletes again when that fails."""
    old = served.add(path)
    assert served.ask(f"DELETE {path}").status == 204
    with Wire(served.port) as wire:
        begun(wire, served, path)
        wait_until(lambda: served.image(path).status is Status.SAVING, "the data arrives")
        assert served.ask(f"DELETE {path}").status == 204
        assert served.image(path).id == old.id
        assert served.ask(f"DELETE {path}").status == 409


def test_an_announcement_takes_nothing_away(served: Served, path: str) -> None:
    """A PUT of nothing onto an image, LOCK, and then the client gives up."""
    old = served.add(path)
    assert served.ask(f"PUT {path}").status == 204
    assert served.ask(f"DELETE {path}").status == 409
    assert served.image(path) == old


def test_parts_in_an_images_place(served: Served, path: str) -> None:
    """Deleted, sent anew in parts, and started over: the old one is back, then replaced."""
    old = served.add(path)
    assert served.ask(f"DELETE {path}").status == 204
    part = "Content-Range: bytes 0-99999/300000"
    assert served.ask(f"PUT {path}", part, body=DATA[:100_000]).status == 202
    assert served.ask(f"PUT {path}", WRONG, body=DATA).status == 400
    assert served.image(path).id == old.id
    assert served.ask(f"DELETE {path}").status == 409
    assert served.ask(f"PUT {path}", body=DATA).status == 204
    assert served.ask(f"GET {path}").body == DATA


@pytest.mark.parametrize("method", ["MOVE", "COPY"])
def test_delete_after_a_copy_that_failed(served: Served, path: str, method: str) -> None:
    """Onto an image: its client may want to clean up as well."""
    old = served.add(path)
    to = f"Destination: {path}"
    assert served.ask(f"{method} {path}.missing", to).status == 404
    assert served.ask(f"DELETE {path}").status == 409
    assert served.image(path) == old


def test_a_move_that_must_not_replace_is_no_replacement(served: Served, path: str) -> None:
    """`Overwrite: F` says that what is there is meant to stay."""
    served.add(path)
    served.add(f"{path}.b")
    to = f"Destination: {path}"
    assert served.ask(f"MOVE {path}.b", to, "Overwrite: F").status == 412
    assert served.ask(f"DELETE {path}").status == 204


@pytest.mark.parametrize("condition", ["(<DAV:no-lock>)", '(<opaquelocktoken:none> ["another"])'])
def test_a_question_about_locks_is_no_replacement(
    served: Served, path: str, condition: str
) -> None:
    """Who asks for a state of locks and data is told that it is another, as litmus expects."""
    served.add(path)
    assert served.ask(f"PUT {path}", f"If: {condition}", body=DATA).status == 412
    assert served.ask(f"DELETE {path}").status == 204


# -- what is meant, is done --------------------------------------------------------------


@pytest.mark.parametrize("condition", ["If-Match: {}", 'If-Match: "x", {}', "If: ([{}])"])
def test_a_delete_that_says_which(served: Served, path: str, condition: str) -> None:
    """A tag names the image: that one is meant."""
    served.add(path)
    tag = served.ask(f"HEAD {path}").headers["etag"]
    assert served.ask(f"PUT {path}", WRONG, body=DATA).status == 400
    wrong = condition.format('"another"')
    assert served.ask(f"DELETE {path}", wrong).status == 412
    assert served.ask(f"DELETE {path}", condition.format(tag)).status == 204
    assert "a.img" not in names_in(served.vfs, path.rpartition("/")[0])


def test_a_star_says_nothing(served: Served, path: str) -> None:
    """`If-Match: *` is any image."""
    served.add(path)
    assert served.ask(f"PUT {path}", WRONG, body=DATA).status == 400
    assert served.ask(f"DELETE {path}", "If-Match: *").status == 409


def test_move_to_the_trash_is_meant(served: Served, path: str) -> None:
    """Nobody does that by mistake."""
    old = served.add(path)
    assert served.ask(f"PUT {path}", WRONG, body=DATA).status == 400
    name = f"gone-{next(_numbers)}.img"
    to = f"Destination: /file/.trash/{name}"
    assert served.ask(f"MOVE {path}", to).status == 201
    assert served.vfs.catalog.image(old.number).status is Status.PENDING_DELETE


def test_the_command_means_it(served: Served, path: str) -> None:
    """As `imagefs delete` and an administrator do."""
    served.add(path)
    assert served.ask(f"PUT {path}", WRONG, body=DATA).status == 400
    remove(served.vfs, path, ADMIN)
    assert served.ask(f"GET {path}").status == 404


def test_strangers_keep_nobody_from_deleting(served: Served, path: str) -> None:
    """A PUT by who may not change the image is no replacement of it."""
    put(served.vfs, path, DATA, ADMIN)
    assert served.ask(f"PUT {path}", body=DATA).status == 403
    image = served.image(path)
    with served.vfs.catalog.read() as repository:
        assert repository.spared(image.number) is None


# -- around it ---------------------------------------------------------------------------


def test_delete_of_the_folder_above(served: Served, path: str) -> None:
    """All of it or nothing, and so nothing."""
    old, other = served.add(path), served.add(f"{path}.b")
    folder = path.rpartition("/")[0]
    assert served.ask(f"PUT {path}", WRONG, body=DATA).status == 400
    refused = served.ask(f"DELETE {folder}/")
    assert refused.status == 409
    assert b"a.img: a replacement failed" in refused.body
    assert served.image(path) == old
    assert served.image(f"{path}.b") == other


@pytest.mark.parametrize("method", ["MOVE", "COPY"])
def test_a_folder_onto_the_folder_above(served: Served, path: str, method: str) -> None:
    """Overwriting a folder deletes it first."""
    old = served.add(path)
    folder = path.rpartition("/")[0]
    make_folder(served.vfs, f"{folder}-new", ANONYMOUS)
    assert served.ask(f"PUT {path}", WRONG, body=DATA).status == 400
    to = f"Destination: {folder}"
    assert served.ask(f"{method} {folder}-new/", to).status == 409
    assert served.image(path) == old


def test_move_away_loses_nothing(served: Served, path: str) -> None:
    """A rename is no deletion; under its new name it is spared as well."""
    old = served.add(path)
    assert served.ask(f"PUT {path}", WRONG, body=DATA).status == 400
    assert served.ask(f"MOVE {path}", f"Destination: {path}.b").status == 201
    assert served.image(f"{path}.b").id == old.id
    assert served.ask(f"DELETE {path}.b").status == 409


def test_a_good_image_may_replace_it(served: Served, path: str) -> None:
    """rclone's own way: upload beside it, then MOVE."""
    served.add(path)
    assert served.ask(f"PUT {path}", WRONG, body=DATA).status == 400
    assert served.ask(f"PUT {path}.partial", body=DATA).status == 201
    assert served.ask(f"MOVE {path}.partial", f"Destination: {path}").status == 204
    assert served.ask(f"GET {path}").body == DATA


@pytest.mark.parametrize(("name", "to"), [("a.img.part", "b.img"), ("c.img", "c.img.part")])
def test_move_while_it_is_sent(served: Served, path: str, name: str, to: str) -> None:
    """Whether it is published says the name that it has at the end."""
    folder = path.rpartition("/")[0]
    with closing(Wire(served.port)) as wire:
        begun(wire, served, f"{folder}/{name}")
        moved = served.ask(f"MOVE {folder}/{name}", f"Destination: {folder}/{to}")
        assert moved.status == 201
        wire.send(DATA[100_000:])
        assert wire.read().status == 201
    is_published = not to.endswith(".part")
    status = Status.ACTIVE if is_published else Status.SAVING
    assert served.image(f"{folder}/{to}").status is status


# -- any order ---------------------------------------------------------------------------


class Clients:
    """Some clients of one name, and what must be under it."""

    def __init__(self, servers: tuple[Served, Served], path: str, seed: int) -> None:
        self.path = path
        self.good: bytes | None = None
        self.in_doubt = False
        """Whether a replacement goes on or has failed: then DELETE may be its clean-up."""
        self._servers = servers
        self._choose = random.Random(seed)
        self._open: list[Wire] = []

    def ask(self, method: str, *headers: str, body: bytes = b"") -> Answer:
        """A request to one of the servers."""
        server = self._choose.choice(self._servers)
        return server.ask(f"{method} {self.path}", *headers, body=body)

    def put(self) -> None:
        """Replace it, or add it."""
        self.good = some_bytes(1000, seed=self._choose.randrange(1 << 30))
        assert self.ask("PUT", body=self.good).status in (201, 204)
        # For a minute, or while others are at it.
        self.in_doubt = self.in_doubt or bool(self._open)

    def bad(self) -> None:
        """Send what is not as announced."""
        assert self.ask("PUT", WRONG, body=DATA).status == 400
        self.in_doubt = True

    def gate(self) -> None:
        """Ask for what the present image forbids."""
        assert self.ask("PUT", "If-None-Match: *", body=DATA).status == 412
        self.in_doubt = True

    def announce(self) -> None:
        """Send nothing yet."""
        assert self.ask("PUT").status == 204
        self.in_doubt = True

    def open(self) -> None:
        """Send the beginning, and the rest perhaps never."""
        server = self._choose.choice(self._servers)
        wire = Wire(server.port)
        begun(wire, server, self.path, self._choose.randrange(1, 200_000))
        self._open.append(wire)
        self.in_doubt = True

    def cut(self) -> None:
        """Lose a connection in the middle of an upload."""
        if self._open:
            self._open.pop(self._choose.randrange(len(self._open))).close()

    def delete(self) -> None:
        """Send DELETE for the name; when it was meant, fail to write it anew."""
        answer = self.ask("DELETE")
        assert answer.status == (409 if self.in_doubt else 204)
        if not self.in_doubt:
            self.bad()

    def delete_with_tag(self) -> None:
        """Say what is meant, and put another one there."""
        tag = self.ask("HEAD").headers["etag"]
        assert self.ask("DELETE", f"If-Match: {tag}").status == 204
        self.put()

    def step(self) -> str:
        """One of these; return which."""
        chosen = self._choose.choice(
            (
                *(self.put, self.bad, self.gate, self.announce, self.open, self.cut),
                *(self.delete, self.delete, self.delete, self.delete_with_tag),
            )
        )
        chosen()
        return chosen.__name__

    def close(self) -> None:
        """Lose all connections."""
        while self._open:
            self.cut()


@pytest.mark.stress
# The server may not have noted yet that a client has read it all.
@pytest.mark.may_log("was (deleted|replaced) while in use")
@pytest.mark.parametrize("seed", range(12))
def test_any_order_of_requests(
    served: Served, beside: Served, path: str, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The image that was last complete is there, whatever is sent, unless its tag is."""
    # A server may still be about to close what its client has all of.
    caplog.set_level(logging.ERROR, "catalog.copies.uses")
    clients = Clients((served, beside), path, seed)
    clients.put()
    with closing(clients):
        for number in range(40):
            done = clients.step()
            assert clients.ask("GET").body == clients.good, (number, done)
