"""Taking over what lies in a store already: the rows, the rules and the command."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from uuid import UUID

import pytest
from click.testing import CliRunner, Result

from catalog.cli.program import imagefs as program
from catalog.errors import (
    AlreadyExists,
    CatalogError,
    DataDamaged,
    Forbidden,
    InvalidImage,
    InvalidName,
    InvalidValue,
    NotFound,
    Protected,
)
from catalog.model.access import ADMIN
from catalog.model.image import CHUNK_SIZE, Visibility
from catalog.model.status import Status
from catalog.service.bootstrap import open_catalog
from catalog.service.configuration import load
from catalog.tree.adopt import Adopted, Adoption, AdoptionResult, Terms
from catalog.tree.vfs import Vfs
from catalog.upkeep.fsck import fsck
from catalog.upkeep.verify import Verdict, verify
from tests.kit.catalog import (
    READER,
    begin,
    entry,
    image_at,
    keys_in,
    make_folder,
    names_in,
    put,
    read,
    remove,
    some_bytes,
)
from tests.kit.configuration import configure
from tests.kit.images.samples import short_overlay
from tests.kit.stores.contract import put_by_writer

DATA = some_bytes(CHUNK_SIZE + 77)
ID, OTHER_ID = (str(UUID(int=number)) for number in (11, 12))
STORES = ("file", "memory")
TERMS = Terms(Visibility.PRIVATE, protected=False)

Run = Callable[..., Result]


def store_object(vfs: Vfs, store: str, key: str = ID, data: bytes = DATA) -> str:
    """Put data into a store without a word to the catalog; return its url."""
    return put_by_writer(vfs.catalog.store(store))(key, data)


def take(
    vfs: Vfs, path: str, image_id: str = ID, terms: Terms = TERMS, *, dry_run: bool = False
) -> Adopted:
    """Adopt, as root."""
    _, store, rest = path.split("/", 2)
    return Adoption(vfs, store, terms, ADMIN).adopt(image_id, rest, dry_run=dry_run)


def unknown(vfs: Vfs) -> list[str]:
    """The ids that may be adopted from the store `file`."""
    return list(Adoption(vfs, "file", TERMS, ADMIN).unknown())


def disk(path: Path, *options: str) -> bytes:
    """A qcow2 image of 1 GiB, from qemu-img."""
    command = ["qemu-img", "create", "-q", "-f", "qcow2", *options, str(path), "1G"]
    subprocess.run(command, check=True)
    return path.read_bytes()


# -- what becomes an image -----------------------------------------------------------------


@pytest.mark.parametrize("store", STORES)
def test_an_object_becomes_the_image_of_its_key(vfs: Vfs, store: str) -> None:
    """Active and read in place, and no stray to fsck."""
    url = store_object(vfs, store)
    found = take(vfs, f"/{store}/a")
    assert found == Adopted(ID, f"/{store}/a", AdoptionResult.ADOPTED, len(DATA), "raw")
    image = image_at(vfs, f"/{store}/a")
    assert (image.id, image.name, image.status) == (ID, "a", Status.ACTIVE)
    assert (image.size, image.virtual_size, image.owner) == (len(DATA), len(DATA), "root")
    assert (image.visibility, image.protected) == (Visibility.PRIVATE, False)
    assert entry(vfs, f"/{store}/a").location.url == url
    assert read(vfs, f"/{store}/a") == DATA
    assert list(fsck(vfs.catalog, repair=True)) == []


def test_it_is_unverified_until_it_is_verified(vfs: Vfs) -> None:
    """Its digests are recorded by `verify`, and compared from then on."""
    store_object(vfs, "file")
    take(vfs, "/file/a")
    image = image_at(vfs, "/file/a")
    assert image.os_hash_value is None
    assert [one.verdict for one in verify(vfs.catalog, image, ADMIN)] == [Verdict.RECORDED]
    image = image_at(vfs, "/file/a")
    assert [one.verdict for one in verify(vfs.catalog, image, ADMIN)] == [Verdict.INTACT]


def test_the_content_tells_the_format(vfs: Vfs, tmp_path: Path) -> None:
    """As of an upload."""
    store_object(vfs, "file", data=disk(tmp_path / "disk"))
    assert take(vfs, "/file/a").disk_format == "qcow2"
    assert image_at(vfs, "/file/a").virtual_size == 1 << 30


def test_the_terms_are_the_images(vfs: Vfs) -> None:
    """A protected one cannot be deleted by mistake."""
    store_object(vfs, "file")
    take(vfs, "/file/a", terms=Terms(Visibility.PUBLIC, protected=True))
    assert image_at(vfs, "/file/a").visibility is Visibility.PUBLIC
    with pytest.raises(Protected):
        remove(vfs, "/file/a", ADMIN)


def test_once_adopted_it_is_deleted_with_its_image(vfs: Vfs) -> None:
    """Only once it is removed from the trash."""
    store_object(vfs, "file")
    take(vfs, "/file/a")
    remove(vfs, "/file/a", ADMIN)
    assert keys_in(vfs) == {ID}
    remove(vfs, "/file/.trash/a", ADMIN)
    assert keys_in(vfs) == set()


@pytest.mark.parametrize("store", STORES)
def test_an_object_that_changes_in_place_is_judged_at_each_open(
    vfs: Vfs, tmp_path: Path, store: str
) -> None:
    """Until it has digests: one that has become an overlay is read by nobody."""
    store_object(vfs, store)
    take(vfs, f"/{store}/a")
    image = image_at(vfs, f"/{store}/a")
    vfs.open(image.number, ADMIN).close()
    overlay = short_overlay(tmp_path).read_bytes()
    store_object(vfs, store, data=overlay.ljust(len(DATA), b"\0"))
    with pytest.raises(DataDamaged, match=r"another now.*backing file"):
        vfs.open(image.number, ADMIN)
    assert [one.verdict for one in verify(vfs.catalog, image, ADMIN)] == [Verdict.DAMAGED]
    store_object(vfs, store)
    assert read(vfs, f"/{store}/a") == DATA


# -- what changes nothing ------------------------------------------------------------------


def test_what_is_an_image_stays_as_it_is(vfs: Vfs) -> None:
    """Whatever it was adopted or uploaded as, in the trash too."""
    store_object(vfs, "file")
    take(vfs, "/file/a")
    uploaded = put(vfs, "/file/b", DATA)
    remove(vfs, "/file/b", ADMIN)
    before = vfs.catalog.version()
    assert take(vfs, "/file/c") == Adopted(ID, "/file/a", AdoptionResult.PRESENT, len(DATA), "raw")
    assert take(vfs, "/file/c", uploaded.id).path == "/file/.trash/b"
    assert vfs.catalog.version() == before


def test_a_dry_run_only_tells(vfs: Vfs) -> None:
    """Also what would be refused."""
    store_object(vfs, "file")
    put(vfs, "/file/taken")
    before = vfs.catalog.version()
    found = take(vfs, "/file/a", dry_run=True)
    assert found == Adopted(ID, "/file/a", AdoptionResult.FIT, len(DATA), "raw")
    with pytest.raises(AlreadyExists):
        take(vfs, "/file/taken", dry_run=True)
    assert vfs.catalog.version() == before


def test_ids_are_those_of_nobody(vfs: Vfs) -> None:
    """Other keys than ids are no images of a Glance; those of an upload are its own."""
    for key in (ID, OTHER_ID, "notes", ID.replace("-", ""), f"{OTHER_ID}-00001"):
        store_object(vfs, "file", key)
    put(vfs, "/file/a")
    begin(vfs, "/file/b", DATA).finish()
    take(vfs, "/file/c", OTHER_ID)
    assert unknown(vfs) == [ID]


def test_two_that_adopt_at_once_make_one_image(vfs: Vfs) -> None:
    """Whoever comes second is told so."""
    store_object(vfs, "file")
    together = Barrier(4)

    def race(number: int) -> AdoptionResult | None:
        together.wait()
        try:
            return take(vfs, f"/file/{number}").outcome
        except AlreadyExists:
            return None

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(race, range(4)))
    assert outcomes.count(AdoptionResult.ADOPTED) == 1
    assert set(outcomes) <= {AdoptionResult.ADOPTED, AdoptionResult.PRESENT, None}
    assert len(names_in(vfs, "/file")) == 1


# -- what is refused -----------------------------------------------------------------------


@pytest.mark.parametrize("store", STORES)
def test_there_has_to_be_an_object(vfs: Vfs, store: str) -> None:
    """No image without data, whether none was stored or nothing was stored in it."""
    with pytest.raises(NotFound, match=f"{ID}: store {store} has no complete object"):
        take(vfs, f"/{store}/a")
    store_object(vfs, store, data=b"")
    with pytest.raises(InvalidImage, match=f"{ID}: there is no data"):
        take(vfs, f"/{store}/a")
    assert names_in(vfs, f"/{store}") == set()


def test_the_format_gate_holds(vfs: Vfs, tmp_path: Path) -> None:
    """An overlay stays what it is: an object that the catalog does not serve."""
    store_object(vfs, "file", data=disk(tmp_path / "disk", "-b", "/etc/passwd", "-F", "raw"))
    with pytest.raises(InvalidImage, match=f"{ID}: .*backing file"):
        take(vfs, "/file/a")
    assert (names_in(vfs, "/file"), keys_in(vfs)) == (set(), {ID})


@pytest.mark.parametrize(
    "key", ["", "notes", ID.replace("-", ""), ID.replace("b", "B"), f"../{ID}"]
)
def test_an_id_is_one_as_glance_spells_it(vfs: Vfs, key: str) -> None:
    """Another spelling would be another key."""
    with pytest.raises(InvalidValue):
        take(vfs, "/file/a", key)


def test_the_id_of_another_image_is_refused(vfs: Vfs) -> None:
    """One that has its data in another store, none yet, or none any more."""
    elsewhere = put(vfs, "/other/a").id
    unfinished = begin(vfs, "/file/b", DATA).image.id
    deleted = put(vfs, "/file/c").id
    remove(vfs, "/file/c", ADMIN)
    remove(vfs, "/file/.trash/c", ADMIN)
    for image_id in (elsewhere, unfinished, deleted):
        store_object(vfs, "file", image_id)
        with pytest.raises(AlreadyExists, match=r"without data in file"):
            take(vfs, "/file/d", image_id)


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/file/taken", AlreadyExists),
        ("/file/folder", AlreadyExists),
        ("/file/.hidden", InvalidName),
        ("/file/a.part", InvalidName),
        ("/file/folder.tmp/a", InvalidName),
        ("/file/.trash/a", Forbidden),
        ("/file/nowhere/a", NotFound),
        ("/nowhere/a", NotFound),
    ],
)
def test_the_name_is_one_of_an_image(vfs: Vfs, path: str, error: type[CatalogError]) -> None:
    """A name that is free, in a folder that is there, and not a temporary one."""
    store_object(vfs, "file")
    put(vfs, "/file/taken")
    make_folder(vfs, "/file/folder")
    make_folder(vfs, "/file/folder.tmp")
    with pytest.raises(error):
        take(vfs, path)
    assert unknown(vfs) == [ID]


def test_a_reader_adopts_nothing(vfs: Vfs) -> None:
    """As it adds nothing."""
    store_object(vfs, "file")
    with pytest.raises(Forbidden):
        Adoption(vfs, "file", TERMS, READER)


# -- the command ---------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration with two file stores and one of the web."""
    return configure(tmp_path)


@pytest.fixture
def run(config: Path) -> Run:
    """Runs a command with that configuration; the catalog is yet to be made."""

    def run(*arguments: str, stdin: bytes | None = None, code: int = 0) -> Result:
        result = CliRunner().invoke(program, ["--config", str(config), *arguments], input=stdin)
        assert result.exit_code == code, result.output
        return result

    return run


@pytest.fixture
def glance(run: Run, tmp_path: Path) -> Path:
    """The folder of a Glance, with two images, that is made the store `file`: docs/stores.md."""
    folder = tmp_path / "file"
    folder.mkdir()
    for key in (ID, OTHER_ID):
        (folder / key).write_bytes(DATA)
        (folder / key).chmod(0o640)
    assert "is not empty" in run("init", code=5).stderr
    (folder / ".imagefs-store").write_text('{"store": "file"}\n')
    run("init")
    return folder


def test_a_glance_is_taken_over(run: Run, glance: Path) -> None:
    """A line each, and one for all; the second time there is nothing left."""
    for arguments, outcome in (("--dry-run",), "would adopt"), ((), "adopted"):
        assert run("adopt", "file", "--all", *arguments).stdout.splitlines() == [
            f"{outcome}  {ID}  /file/{ID}: raw, 4.0 MiB",
            f"{outcome}  {OTHER_ID}  /file/{OTHER_ID}: raw, 4.0 MiB",
            f"file: 2 {outcome}",
        ]
    assert run("adopt", "file", "--all").stdout == "file: nothing adopted\n"
    assert run("adopt", "file", ID).stdout.splitlines() == [
        f"present  {ID}  /file/{ID}: raw, 4.0 MiB",
        "file: 1 present",
    ]
    run("verify")
    assert run("fsck").stdout == ""
    assert (glance / ID).read_bytes() == DATA


def test_a_lost_catalog_is_made_anew_from_its_store(run: Run, tmp_path: Path) -> None:
    """The data is all there; names and properties are not in the store."""
    run("init")
    image = json.loads(run("add", "-", "--name", "a", "--json", stdin=DATA).stdout)["id"]
    for file in tmp_path.glob("catalog.db*"):
        file.unlink()
    run("init")
    (found,) = json.loads(
        run("adopt", "file", "--all", "--visibility", "public", "--protected", "--json").stdout
    )
    assert found == {
        "id": image,
        "path": f"/file/{image}",
        "outcome": "adopted",
        "size": len(DATA),
        "disk_format": "raw",
    }
    shown = json.loads(run("show", image, "--json").stdout)
    assert (shown["visibility"], shown["protected"]) == ("public", True)
    run("export", image, str(tmp_path / "data"))
    assert (tmp_path / "data").read_bytes() == DATA


def test_a_name_and_a_folder(run: Run, glance: Path, config: Path) -> None:
    """A folder has to be there; a location of Glance's database means its id."""
    first, second = f"file://{glance}/{ID}", OTHER_ID
    refused = run("adopt", "file", first, "--folder", "/old/", code=4)
    assert refused.stderr == "imagefs: /file/old: not found\n"
    vfs = Vfs(open_catalog(load(config)))
    make_folder(vfs, "/file/old", ADMIN)
    vfs.close()
    run("adopt", "file", first, "--folder", "/old/", "--name", "debian")
    run("adopt", "file", second, "--folder", "old")
    listed = json.loads(run("list", "--json").stdout)
    assert {image["path"] for image in listed} == {"/file/old/debian", f"/file/old/{second}"}


def test_each_failure_is_a_line_and_a_code(run: Run, glance: Path) -> None:
    """Of several, 3 if some succeeded; nothing of a URL that may be a secret is told."""
    missing = str(UUID(int=13))
    (glance / OTHER_ID).write_bytes(b"")
    result = run("adopt", "file", ID, OTHER_ID, missing, "s3://KEY:SEC/RET@host/b/k", code=3)
    assert result.stdout.splitlines() == [
        f"adopted  {ID}  /file/{ID}: raw, 4.0 MiB",
        "file: 1 adopted",
    ]
    assert result.stderr.splitlines() == [
        f"imagefs: {OTHER_ID}: there is no data",
        f"imagefs: {missing}: store file has no complete object of it",
        "imagefs: s3://…: is read by a store of type 's3', not 'filesystem'",
    ]
    run("adopt", "file", OTHER_ID, code=1)
    run("adopt", "file", missing, code=4)
    run("adopt", "file", "notes", code=2)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("file",), 2),
        (("file", ID, "--all"), 2),
        (("file", ID, OTHER_ID, "--name", "a"), 2),
        (("file", "--all", "--name", "a"), 2),
        (("nowhere", "--all"), 4),
        (("nowhere", ID), 4),
        (("web", "--all"), 1),
        (("web", ID), 1),
        (("file", ID, "--folder", os.fsdecode(b"\xff")), 2),
    ],
)
def test_wrong_usage(run: Run, glance: Path, arguments: tuple[str, ...], code: int) -> None:
    """Ids or all, a name for one, and a store that holds data."""
    assert len(run("adopt", *arguments, code=code).stderr.splitlines()) == 1


def test_only_an_administrator_adopts(
    run: Run, glance: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It makes what lies there, whosever it was, an image of its own."""
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    run("adopt", "file", "--all", code=12)
