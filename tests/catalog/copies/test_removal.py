"""The store is asked before the catalog forgets: what it refuses stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from catalog.copies.purge import finish_deletions, purge
from catalog.copies.replicate import replicate
from catalog.errors import (
    CatalogError,
    Conflict,
    NotFound,
    ReadOnlyStore,
    StoreRefused,
    StoreUnavailable,
)
from catalog.model.access import ADMIN
from catalog.model.tree import LocationState
from catalog.tree.vfs import Vfs
from catalog.upkeep.evacuate import EvacuationResult, evacuate
from catalog.upkeep.fsck import fsck
from catalog.upkeep.scrub import scrub
from tests.kit.catalog import (
    ALICE,
    begin,
    entry,
    image_at,
    keys_in,
    link,
    names_in,
    new_catalog,
    put,
    read,
    remove,
    rename,
    settings_at,
)

ANSWERS = [
    StoreRefused("file", "retention"),
    Conflict("file", "has a clone"),
    ReadOnlyStore("file"),
]
NO_ANSWER = StoreUnavailable("file", "timed out")


@pytest.fixture
def eager(tmp_path: Path) -> Vfs:
    """A tree whose trash is emptied by every scrub."""
    return Vfs(new_catalog(settings_at(tmp_path, scrub_time=0)))


def refuse(vfs: Vfs, store: str, error: CatalogError, *, after: bool = False) -> Callable[[], None]:
    """Let a store answer each deletion with an error, `after` it was done; returns what ends it."""
    real = vfs.catalog.store(store)
    delete = real.delete

    def refused(url: str) -> None:
        if after:
            delete(url)
        raise error

    real.delete = refused  # type: ignore[method-assign]
    return lambda: setattr(real, "delete", delete)


def states(vfs: Vfs, number: int) -> dict[str, LocationState]:
    """What the rows say of each copy, by store."""
    with vfs.catalog.read() as repository:
        return {each.store: each.state for each in repository.locations_of(number)}


# The trash


@pytest.mark.parametrize("error", [*ANSWERS, NO_ANSWER], ids=lambda error: type(error).__name__)
def test_what_scrub_keeps_can_be_restored(eager: Vfs, error: CatalogError) -> None:
    """It is told, it is in the trash as before, its message says why, and its data is read."""
    image = put(eager, "/file/a", b"data")
    remove(eager, "/file/a")
    allow = refuse(eager, "file", error)
    (kept,) = scrub(eager.catalog)
    assert kept.problem is error
    trashed = image_at(eager, "/file/.trash/a")
    assert (trashed.id, trashed.status) == (image.id, "pending_delete")
    assert str(error) in trashed.message
    rename(eager, "/file/.trash/a", "/file/a")
    assert read(eager, "/file/a") == b"data"
    assert image_at(eager, "/file/a").message == ""
    allow()
    assert list(scrub(eager.catalog)) == []
    assert list(fsck(eager.catalog, repair=True)) == []
    assert read(eager, "/file/a") == b"data"


@pytest.mark.parametrize("error", ANSWERS, ids=lambda error: type(error).__name__)
def test_what_a_store_refuses_to_delete_is_still_read(eager: Vfs, error: CatalogError) -> None:
    """Whoever may read it in the trash can, after the refusal as before."""
    image = put(eager, "/file/a", b"data")
    remove(eager, "/file/a")
    refuse(eager, "file", error)
    with pytest.raises(CatalogError):
        remove(eager, "/file/.trash/a")
    assert states(eager, image.number) == {"file": LocationState.ACTIVE}
    assert read(eager, "/file/.trash/a", ADMIN) == b"data"


def test_scrub_asks_again(eager: Vfs) -> None:
    """What was refused, or not answered, goes as soon as the store agrees."""
    put(eager, "/file/a")
    remove(eager, "/file/a")
    for error in (ANSWERS[0], NO_ANSWER, ANSWERS[1], NO_ANSWER):
        allow = refuse(eager, "file", error)
        (kept,) = scrub(eager.catalog)
        assert kept.problem is error
        allow()
    (done,) = scrub(eager.catalog)
    assert done.problem is None
    assert (keys_in(eager), names_in(eager, "/file/.trash")) == (set(), set())


@pytest.mark.parametrize("begun", ["queued", "killed"])
def test_an_image_without_data_stays_in_the_trash_too(eager: Vfs, begun: str) -> None:
    """Its reason is not overwritten by that of the deletion."""
    if begun == "queued":
        eager.create(eager.place("/file/a"), ALICE)
    else:
        begin(eager, "/file/a").cancel("its reason")
    remove(eager, "/file/a")
    refuse(eager, "file", ANSWERS[0])
    with pytest.raises(StoreRefused):
        remove(eager, "/file/.trash/a")
    rename(eager, "/file/.trash/a", "/file/a")
    assert image_at(eager, "/file/a").status == begun
    assert image_at(eager, "/file/a").message == ("its reason" if begun == "killed" else "")


def test_of_several_copies_the_named_one_goes_last(eager: Vfs) -> None:
    """Whichever store refuses, the image is restored with what it still has."""
    image = put(eager, "/file/a", b"data")
    replicate(eager.catalog, image, "other", None, ADMIN)
    remove(eager, "/file/a")
    allow = refuse(eager, "other", ANSWERS[0])
    with pytest.raises(StoreRefused):
        purge(eager.catalog, eager.catalog.image(image.number))
    assert states(eager, image.number) == dict.fromkeys(("file", "other"), LocationState.ACTIVE)
    allow()
    refuse(eager, "file", ANSWERS[0])
    with pytest.raises(StoreRefused):
        purge(eager.catalog, eager.catalog.image(image.number))
    assert states(eager, image.number) == {"file": LocationState.ACTIVE}
    assert keys_in(eager, "other") == set()
    rename(eager, "/file/.trash/a", "/file/a")
    assert read(eager, "/file/a") == b"data"


def test_a_restore_notices_that_the_data_is_gone(eager: Vfs) -> None:
    """The store removed it and its answer was lost: nothing without data becomes active."""
    image = put(eager, "/file/a")
    remove(eager, "/file/a")
    allow = refuse(eager, "file", NO_ANSWER, after=True)
    with pytest.raises(StoreUnavailable):
        remove(eager, "/file/.trash/a")
    allow()
    with pytest.raises(NotFound, match="deleted for good"):
        rename(eager, "/file/.trash/a", "/file/a")
    assert eager.catalog.image(image.number).status == "pending_delete"
    (done,) = scrub(eager.catalog)
    assert done.problem is None
    assert eager.catalog.image(image.number).status == "deleted"


def test_a_restore_waits_for_a_store_that_can_tell(eager: Vfs, tmp_path: Path) -> None:
    """While nobody knows whether the data is there, the image stays in the trash."""
    put(eager, "/file/a", b"data")
    remove(eager, "/file/a")
    refuse(eager, "file", NO_ANSWER)
    with pytest.raises(StoreUnavailable):
        remove(eager, "/file/.trash/a")
    (tmp_path / "file").rename(tmp_path / "unmounted")
    with pytest.raises(StoreUnavailable):
        rename(eager, "/file/.trash/a", "/file/a")
    (tmp_path / "unmounted").rename(tmp_path / "file")
    rename(eager, "/file/.trash/a", "/file/a")
    assert read(eager, "/file/a") == b"data"


def test_a_restore_in_the_middle_of_a_deletion_is_refused(eager: Vfs) -> None:
    """One of them wins: the image is never active with its data half gone."""
    put(eager, "/file/a")
    remove(eager, "/file/a")
    refusals: list[CatalogError] = []
    real = eager.catalog.store("file")
    delete = real.delete

    def restore_meanwhile(url: str) -> None:
        for attempt in (
            lambda: rename(eager, "/file/.trash/a", "/file/a"),
            lambda: remove(eager, "/file/.trash/a"),
        ):
            with pytest.raises(Conflict) as refused:
                attempt()
            refusals.append(refused.value)
        delete(url)

    real.delete = restore_meanwhile  # type: ignore[method-assign]
    remove(eager, "/file/.trash/a")
    assert len(refusals) == 2
    assert (keys_in(eager), names_in(eager, "/file"), names_in(eager, "/file/.trash")) == (
        set(),
        set(),
        set(),
    )


# One of several names


@pytest.mark.parametrize("error", ANSWERS, ids=lambda error: type(error).__name__)
def test_rm_of_a_link_that_is_refused_leaves_the_link(vfs: Vfs, error: CatalogError) -> None:
    """It is told, and both names read as before."""
    image = put(vfs, "/file/a", b"data")
    link(vfs, "/file/a", "/other/b")
    refuse(vfs, "other", error)
    with pytest.raises(type(error)):
        remove(vfs, "/other/b")
    assert states(vfs, image.number) == dict.fromkeys(("file", "other"), LocationState.ACTIVE)
    assert read(vfs, "/other/b") == read(vfs, "/file/a") == b"data"


def test_rm_of_a_link_without_an_answer_is_finished_later(vfs: Vfs) -> None:
    """The name stays until its data is known to be gone; another rm, or scrub, goes on."""
    put(vfs, "/file/a", b"data")
    link(vfs, "/file/a", "/other/b")
    allow = refuse(vfs, "other", NO_ANSWER)
    with pytest.raises(StoreUnavailable):
        remove(vfs, "/other/b")
    assert read(vfs, "/other/b") == b"data"
    with pytest.raises(Conflict):
        remove(vfs, "/file/a")
    allow()
    finish_deletions(vfs.catalog)
    assert (names_in(vfs, "/other"), keys_in(vfs, "other")) == (set(), set())
    assert read(vfs, "/file/a") == b"data"


def test_rm_spares_the_only_copy_that_is_whole(vfs: Vfs, tmp_path: Path) -> None:
    """The other name's data has gone from its folder behind our back."""
    image = put(vfs, "/file/a", b"data")
    link(vfs, "/file/a", "/other/b")
    (tmp_path / "other" / image.id).unlink()
    with pytest.raises(Conflict, match="other"):
        remove(vfs, "/file/a")
    assert read(vfs, "/file/a") == b"data"


def test_a_move_tells_of_data_that_stays(vfs: Vfs) -> None:
    """The image is where it was moved to; what the old store kept is told and goes later."""
    image = put(vfs, "/file/a", b"data")
    allow = refuse(vfs, "file", ANSWERS[0])
    rename(vfs, "/file/a", "/other/a")
    assert read(vfs, "/other/a") == b"data"
    assert keys_in(vfs) == {image.id}
    assert "store file: file: retention" in image_at(vfs, "/other/a").message
    allow()
    finish_deletions(vfs.catalog)
    assert (keys_in(vfs), image_at(vfs, "/other/a").message) == (set(), "")


@pytest.mark.parametrize("error", ANSWERS, ids=lambda error: type(error).__name__)
def test_evacuate_leaves_what_the_store_keeps(vfs: Vfs, error: CatalogError) -> None:
    """Named as before, with its copy elsewhere; the next evacuation asks again."""
    put(vfs, "/file/a", b"data")
    allow = refuse(vfs, "file", error)
    (told,) = evacuate(vfs.catalog, "file", "other")
    assert told.problem is error
    assert told.outcome in (EvacuationResult.FAILED, EvacuationResult.SPARED)
    assert read(vfs, "/file/a") == read(vfs, "/other/a") == b"data"
    allow()
    assert [each.outcome for each in evacuate(vfs.catalog, "file", "other")] == [
        EvacuationResult.DROPPED
    ]
    assert (names_in(vfs, "/file"), keys_in(vfs)) == (set(), set())


def test_evacuate_asks_the_store_before_it_changes_anything(
    vfs: Vfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that is gone keeps its copies: a scrub would remove later what was told as failed."""
    image = put(vfs, "/file/a", b"data")
    link(vfs, "/file/a", "/other/b")

    def gone() -> None:
        raise NO_ANSWER

    monkeypatch.setattr(vfs.catalog.store("file"), "check", gone)
    (told,) = evacuate(vfs.catalog, "file", "other")
    assert (told.outcome, told.problem) == (EvacuationResult.FAILED, NO_ANSWER)
    assert states(vfs, image.number) == dict.fromkeys(("file", "other"), LocationState.ACTIVE)


def test_fsck_tells_what_a_store_refuses(eager: Vfs) -> None:
    """It claims no repair that was not made."""
    put(eager, "/file/a")
    remove(eager, "/file/a")
    refuse(eager, "file", NO_ANSWER)
    with pytest.raises(StoreUnavailable):
        remove(eager, "/file/.trash/a")
    (finding,) = fsck(eager.catalog, repair=True)
    assert (finding.kind, finding.repaired) == ("leftover", "")


# Force


def test_force_forgets_what_is_not_removed_and_says_so(eager: Vfs) -> None:
    """The image is gone from the catalog; what is left, and where, is returned."""
    image = put(eager, "/file/a")
    url = entry(eager, "/file/a").location.url
    remove(eager, "/file/a")
    refuse(eager, "file", ANSWERS[0])
    trashed = eager.catalog.image(image.number)
    (left,) = purge(eager.catalog, trashed, force=True)
    assert (left.store, left.url, left.reason) == ("file", url, ANSWERS[0])
    assert eager.catalog.image(image.number).status == "deleted"
    assert keys_in(eager) == {image.id}
