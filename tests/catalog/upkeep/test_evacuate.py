"""Taking every image out of a store."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from catalog.catalog import Catalog
from catalog.cli.console.output import transfer_bar
from catalog.cli.program import imagefs as program
from catalog.copies.progress import Progress, no_progress
from catalog.copies.recovery import recover
from catalog.copies.replicate import replicate
from catalog.errors import Conflict, NotFound
from catalog.model.access import ADMIN
from catalog.model.image import CHUNK_SIZE, Image
from catalog.process import Process, this_process
from catalog.rules import presence
from catalog.tree.vfs import Vfs
from catalog.upkeep.evacuate import Evacuated, EvacuationResult, Shown, evacuate
from catalog.upkeep.fsck import fsck
from catalog.upkeep.verify import verify
from tests.kit.catalog import (
    begin,
    image_at,
    link,
    make_folder,
    names_in,
    put,
    read,
    remove,
    set_fields,
    some_bytes,
    staged_files,
)
from tests.kit.damage import overwrite

DATA = some_bytes(CHUNK_SIZE + 77)


def outcomes(found: list[Evacuated]) -> dict[str, EvacuationResult]:
    """What became of each image, by its name."""
    return {one.image.name: one.outcome for one in found}


def take_out(vfs: Vfs, store: str = "file", to: str = "other") -> dict[str, EvacuationResult]:
    """Evacuate, to the end."""
    return outcomes(list(evacuate(vfs.catalog, store, to)))


def keys(catalog: Catalog, store: str) -> list[str]:
    """What a store holds."""
    return list(catalog.store(store).keys())


def test_the_only_copy_is_moved_to_the_same_path(vfs: Vfs) -> None:
    """With its folders, made as needed and of the same owner; the id stays."""
    make_folder(vfs, "/file/d")
    make_folder(vfs, "/file/d/e")
    image = put(vfs, "/file/d/e/a", DATA)
    assert take_out(vfs) == {"a": EvacuationResult.MOVED}
    assert image_at(vfs, "/other/d/e/a").id == image.id
    assert read(vfs, "/other/d/e/a") == DATA
    assert vfs.folder(vfs.place("/other/d/e/x").folder).owner == "alice"
    assert (keys(vfs.catalog, "file"), names_in(vfs, "/file/d/e")) == ([], set())
    assert list(fsck(vfs.catalog, repair=False)) == []


def test_an_image_with_another_copy_just_loses_this_one(vfs: Vfs) -> None:
    """Nothing is copied."""
    put(vfs, "/file/a", DATA)
    link(vfs, "/file/a", "/memory/b")
    assert take_out(vfs) == {"b": EvacuationResult.DROPPED}
    assert keys(vfs.catalog, "other") == []
    assert read(vfs, "/memory/b") == DATA


def unnamed_copy(vfs: Vfs, path: str, store: str) -> Image:
    """A new image with a copy as `replicas` makes them."""
    image = put(vfs, path, DATA)
    replicate(vfs.catalog, image, store, None, ADMIN)
    return image


@pytest.mark.parametrize("to", ["other", "memory"])
def test_a_copy_without_a_name_gets_the_image_s(vfs: Vfs, to: str) -> None:
    """Nothing is copied, wherever the others go."""
    make_folder(vfs, "/file/d")
    image = unnamed_copy(vfs, "/file/d/a", "other")
    assert take_out(vfs, to=to) == {"a": EvacuationResult.DROPPED}
    assert image_at(vfs, "/other/d/a").id == image.id
    assert vfs.catalog.details(image.number).stores == ("other",)
    assert read(vfs, "/other/d/a") == DATA


def test_a_copy_without_a_name_is_dropped(vfs: Vfs) -> None:
    """The image has its name elsewhere."""
    image = unnamed_copy(vfs, "/memory/a", "file")
    assert take_out(vfs) == {"a": EvacuationResult.DROPPED}
    assert (keys(vfs.catalog, "file"), read(vfs, "/memory/a")) == ([], DATA)
    assert vfs.catalog.details(image.number).stores == ("memory",)


def test_the_last_good_copy_has_no_name(vfs: Vfs) -> None:
    """It is moved all the same; the image's name stays where it is."""
    image = unnamed_copy(vfs, "/memory/a", "file")
    with vfs.catalog.write() as repository:
        named, _ = repository.locations_of(image.number)
        repository.mark_damaged(named.number)
    assert take_out(vfs) == {"a": EvacuationResult.MOVED}
    assert vfs.catalog.details(image.number).stores == ("memory", "other")
    assert (names_in(vfs, "/other"), read(vfs, "/memory/a")) == (set(), DATA)


@pytest.mark.parametrize("harm", ["missing", "cut", "marked"])
def test_a_copy_that_is_not_whole_does_not_count(vfs: Vfs, tmp_path: Path, harm: str) -> None:
    """The image is moved as if there were none."""
    image = put(vfs, "/file/a", DATA)
    link(vfs, "/file/a", "/other/a")
    stored = tmp_path / "other" / image.id
    stored.chmod(0o600)
    match harm:
        case "missing":
            stored.unlink()
        case "cut":
            stored.write_bytes(DATA[:-1])
        case _:
            overwrite(stored, 0, b"\0\1\2")
            list(verify(vfs.catalog, image, ADMIN))
    assert take_out(vfs, to="memory") == {"a": EvacuationResult.MOVED}
    memory = vfs.catalog.store("memory")
    assert memory.open(memory.url_of(image.id)).read_at(0, len(DATA)) == DATA


def test_the_last_good_copy_is_never_dropped(vfs: Vfs, tmp_path: Path) -> None:
    """Not even if the target has a bad one in its way."""
    image = put(vfs, "/file/a", DATA)
    link(vfs, "/file/a", "/other/a")
    (tmp_path / "other" / image.id).unlink()
    (found,) = evacuate(vfs.catalog, "file", "other")
    assert found.outcome in (EvacuationResult.FAILED, EvacuationResult.SPARED)
    assert read(vfs, "/file/a") == DATA


def test_an_image_in_use_is_spared(vfs: Vfs) -> None:
    """By another process that lives; its reason is told, and the others go on."""
    image = put(vfs, "/file/a", DATA)
    put(vfs, "/file/b", DATA)
    elsewhere = Process("another-host", "boot/1", 4711, 1)
    presence.beat(vfs.catalog, elsewhere, [image.number])
    found = list(evacuate(vfs.catalog, "file", "other"))
    assert outcomes(found) == {"a": EvacuationResult.SPARED, "b": EvacuationResult.MOVED}
    assert isinstance(found[0].problem, Conflict)
    assert "another-host" in str(found[0].problem)
    presence.leave(vfs.catalog, elsewhere)
    assert take_out(vfs) == {"a": EvacuationResult.MOVED}


def test_one_opened_meanwhile_keeps_both_copies(vfs: Vfs) -> None:
    """Until the next time, which only drops the one."""
    image = put(vfs, "/file/a", DATA)
    elsewhere = Process("another-host", "boot/1", 4711, 1)

    @contextmanager
    def opening(_image: Image) -> Iterator[Progress]:
        presence.beat(vfs.catalog, elsewhere, [image.number])
        yield no_progress

    found = list(evacuate(vfs.catalog, "file", "other", show=opening))
    assert outcomes(found) == {"a": EvacuationResult.SPARED}
    assert vfs.catalog.details(image.number).stores == ("file", "other")
    presence.leave(vfs.catalog, elsewhere)
    assert take_out(vfs) == {"a": EvacuationResult.DROPPED}


def test_what_the_store_says_is_in_use_stays_as_it_was(
    vfs: Vfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As RBD says of an image that has clones: it is an entry again, with its data."""
    put(vfs, "/file/a", DATA)
    store = vfs.catalog.store("file")

    def refuse(url: str) -> None:
        raise Conflict(url, "has clones")

    with monkeypatch.context() as patched:
        patched.setattr(store, "delete", refuse)
        assert take_out(vfs) == {"a": EvacuationResult.SPARED}
    assert read(vfs, "/file/a") == read(vfs, "/other/a") == DATA
    assert take_out(vfs) == {"a": EvacuationResult.DROPPED}


def test_what_has_no_data_to_copy_is_spared(vfs: Vfs) -> None:
    """The trash, uploads that go on, images that are queued."""
    put(vfs, "/file/a", DATA)
    remove(vfs, "/file/a")
    begin(vfs, "/file/b", b"x")
    found = list(evacuate(vfs.catalog, "file", "other"))
    assert outcomes(found) == {"a": EvacuationResult.SPARED, "b": EvacuationResult.SPARED}
    assert ["trash" in str(one.problem) for one in found] == [True, False]


def test_a_name_that_is_taken_fails_alone(vfs: Vfs) -> None:
    """The others are moved, and nothing gives way."""
    put(vfs, "/file/a", DATA)
    put(vfs, "/file/b", DATA)
    put(vfs, "/other/a", b"another")
    assert take_out(vfs) == {"a": EvacuationResult.FAILED, "b": EvacuationResult.MOVED}
    assert (read(vfs, "/other/a"), read(vfs, "/file/a")) == (b"another", DATA)


def test_a_damaged_image_is_not_moved(vfs: Vfs, tmp_path: Path) -> None:
    """It stays where its owner finds it."""
    image = put(vfs, "/file/a", DATA)
    overwrite(tmp_path / "file" / image.id, 0, b"\0\1\2")
    assert take_out(vfs) == {"a": EvacuationResult.FAILED}
    assert (keys(vfs.catalog, "other"), staged_files(tmp_path)) == ([], [])


def test_protected_and_deactivated_images_are_moved_as_such(vfs: Vfs) -> None:
    """It is no deletion."""
    put(vfs, "/file/a", DATA)
    set_fields(vfs, "/file/a", protected="true", status="deactivated")
    assert take_out(vfs) == {"a": EvacuationResult.MOVED}
    after = image_at(vfs, "/other/a")
    assert (after.protected, after.status) == (True, "deactivated")


def test_interrupted_it_goes_on_where_it_was(vfs: Vfs, tmp_path: Path) -> None:
    """At the second image: the first is away, the second is whole where it was."""
    for name in "abc":
        put(vfs, f"/file/{name}", DATA)
    going = evacuate(vfs.catalog, "file", "other", show=interrupt_at("b"))
    assert next(going).outcome is EvacuationResult.MOVED
    with pytest.raises(KeyboardInterrupt):
        next(going)
    assert names_in(vfs, "/other") == {"a"}
    assert staged_files(tmp_path) == []
    assert take_out(vfs) == {"b": EvacuationResult.MOVED, "c": EvacuationResult.MOVED}
    recover(vfs.catalog)
    assert list(fsck(vfs.catalog, repair=False)) == []


def interrupt_at(name: str) -> Shown:
    """Progress that interrupts the copy of one image."""

    def interrupt(_size: int) -> None:
        raise KeyboardInterrupt

    @contextmanager
    def show(image: Image) -> Iterator[Progress]:
        yield interrupt if image.name == name else no_progress

    return show


def test_a_removal_that_was_begun_is_ended(vfs: Vfs) -> None:
    """The process died between the entry and the data."""
    image = put(vfs, "/file/a", DATA)
    link(vfs, "/file/a", "/other/a")
    with vfs.catalog.write() as repository:
        repository.detach_location(repository.locations_of(image.number)[0])
    assert take_out(vfs) == {"a": EvacuationResult.DROPPED}
    assert keys(vfs.catalog, "file") == []


def test_a_store_that_is_not_there(vfs: Vfs) -> None:
    """NotFound, before anything is moved."""
    with pytest.raises(NotFound):
        list(evacuate(vfs.catalog, "nonsense", "other"))
    with pytest.raises(NotFound):
        list(evacuate(vfs.catalog, "file", "nonsense"))


# -- the commands ----------------------------------------------------------------------

CONFIG = """
[catalog]
url = "sqlite:///{0}/catalog.db"
staging = "{0}/staging"
[stores.file]
type = "filesystem"
path = "{0}/file"
[stores.other]
type = "filesystem"
path = "{0}/other"
"""

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a command on a catalog with two file stores."""
    config = tmp_path / "imagefs.toml"
    config.write_text(CONFIG.format(tmp_path))

    def run(*arguments: str, stdin: bytes | None = None, code: int = 0) -> Result:
        result = CliRunner().invoke(program, ["--config", str(config), *arguments], input=stdin)
        assert result.exit_code == code, result.output
        return result

    run("init")
    return run


def added(run: Run, name: str, data: bytes = b"some data") -> str:
    """The id of a new image /file/NAME."""
    return str(json.loads(run("add", "-", "--name", name, "--json", stdin=data).stdout)["id"])


def test_the_command_tells_each_image_and_a_summary(run: Run) -> None:
    """A line each, and one for all."""
    first, second = added(run, "a"), added(run, "b")
    run("replicate", second, "other")
    lines = run("evacuate", "file", "--to", "other").stdout.splitlines()
    assert lines == [
        f"moved     {first}  a",
        f"dropped   {second}  b",
        "file: 1 moved, 1 dropped, 0 spared, 0 failed (9 B moved to other)",
    ]
    assert run("evacuate", "file", "--to", "other").stdout.splitlines() == [
        "file: 0 moved, 0 dropped, 0 spared, 0 failed (0 B moved to other)"
    ]


def test_its_exit_code_says_whether_all_are_away(run: Run) -> None:
    """3 if some are, 1 or 5 if none of several is, 2 without another store to go to."""
    image = added(run, "a")
    run("evacuate", "file", code=2)
    run("evacuate", "nonsense", code=4)
    run("evacuate", "file", "--to", "nonsense", code=4)
    run("add", "-", "--name", "a", "--store", "other", stdin=b"another")
    run("evacuate", "file", "--to", "other", code=1)
    added(run, "b")
    (first, _) = json.loads(run("evacuate", "file", "--to", "other", "--json", code=3).stdout)
    assert first == {
        "id": image,
        "name": "a",
        "size": 9,
        "outcome": "failed",
        "message": "a: already exists",
    }
    run("delete", image)
    run("evacuate", "file", "--to", "other", code=5)


def test_replicate_to_another_name(run: Run) -> None:
    """A path in that store; its folder has to be there."""
    image = added(run, "a")
    assert run("replicate", image, "other", "--name", "b").stdout == f"{image}  /other/b\n"
    run("delete", "/other/b")
    run("replicate", image, "other", "--name", "d/b", code=4)


def test_verify_repairs(run: Run, tmp_path: Path) -> None:
    """0 once all is good; the bad chunks are still named."""
    image = added(run, "a")
    run("replicate", image, "other")
    overwrite(tmp_path / "file" / image, 3, b"\0")
    run("verify", image, code=3)
    lines = run("verify", "--repair", image).stdout.splitlines()
    assert lines[0].startswith(f"repaired    {image}  file/a")
    assert "offset 0, 9 bytes" in lines[1]
    assert lines[2].startswith("intact")
    run("verify", image)


def test_progress_is_for_terminals(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes and their rate; nothing of it in a pipe."""
    image = added(run, "a")
    assert run("replicate", image, "other").stderr == ""
    shown: list[str] = []

    class Terminal:
        """A terminal that remembers."""

        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

        def write(self, text: str) -> int:
            shown.append(text)
            return len(text)

        def flush(self) -> None:
            pass

    monkeypatch.setattr(sys, "stderr", Terminal())
    with transfer_bar("a\x1b", 4096) as progress:
        progress(2048)
        progress(2048)
    text = "".join(shown)
    assert "4.0 KiB" in text
    assert "/s" in text
    assert "\\x1b" in text


def test_this_process_is_a_user_too(vfs: Vfs) -> None:
    """What this process itself holds open spares an image as any other does."""
    image = put(vfs, "/file/a", DATA)
    presence.beat(vfs.catalog, this_process(), [image.number])
    assert take_out(vfs) == {"a": EvacuationResult.SPARED}
