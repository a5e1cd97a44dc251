"""A copy that was cut off by kill -9 goes on where it was."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from catalog.copies.recovery import recover
from catalog.model.access import ADMIN
from catalog.model.image import CHUNK_SIZE, Image
from catalog.model.tree import LocationState
from catalog.service.bootstrap import open_catalog
from catalog.service.configuration import load
from catalog.stores.folder.writer import FilesystemWriter
from catalog.stores.s3.multipart import Multipart
from catalog.stores.swift.client import SwiftClient
from catalog.stores.swift.store import SwiftStoreSettings
from catalog.stores.swift.writer import SwiftWriter
from catalog.tree.vfs import Vfs
from catalog.upkeep.evacuate import evacuate
from catalog.upkeep.fsck import fsck
from catalog.upkeep.scrub import scrub
from catalog.upkeep.verify import Verdict, verify
from tests.kit.catalog import ALICE, link, new_catalog, put, read, remove, some_bytes, staged_files
from tests.kit.configuration import configure
from tests.kit.damage import overwrite
from tests.kit.stores.s3_account import Account
from tests.kit.stores.swift_account import section
from tests.servers.swift import Swift

pytestmark = pytest.mark.stress

DATA = some_bytes(8 * CHUNK_SIZE + 77)
PART = 8 << 20
"""Of a bucket; four are sent at once."""

_S3 = """\
[stores.s3]
type = "s3"
endpoint = "{server.s3_endpoint}"
bucket = "images"
prefix = "resumed"
access_key = {{ file = "{user}" }}
secret_key = {{ file = "{key}" }}
"""

# Copies the only image, and is killed when so many bytes are done.
_KILLED = """
import os, signal, sys
from pathlib import Path
from catalog.model.access import ADMIN
from catalog.service.bootstrap import open_catalog
from catalog.copies.replicate import replicate
from catalog.service.configuration import load
from catalog.tree.vfs import Vfs

config, store, wanted = sys.argv[1:]
catalog = open_catalog(load(Path(config)))
done = 0

def progress(size):
    global done
    done += size
    if done >= int(wanted):
        os.kill(os.getpid(), signal.SIGKILL)

place = Vfs(catalog).place(f"/{store}/a")
replicate(catalog, catalog.image(1), store, place, ADMIN, progress=progress)
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Two folders."""
    return configure(tmp_path)


@pytest.fixture
def vfs(config: Path) -> Iterator[Vfs]:
    """The tree."""
    catalog = new_catalog(load(config))
    yield Vfs(catalog)
    catalog.close()


def cut_off(config: Path, vfs: Vfs, store: str, done: int, data: bytes = DATA) -> Image:
    """An image, and what is left of a copy of it that was killed when `done` bytes were given."""
    image = put(vfs, "/file/a", data)
    command = [sys.executable, "-c", _KILLED, str(config), store, str(done)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert recover(vfs.catalog) == []
    return vfs.catalog.image(image.number)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes each write to a folder of this process has."""
    found: list[int] = []
    original = FilesystemWriter.write

    def write(self: FilesystemWriter, data: bytes | memoryview) -> None:
        found.append(len(data))
        original(self, data)

    monkeypatch.setattr(FilesystemWriter, "write", write)
    return found


def check_whole(vfs: Vfs, image: Image) -> None:
    """All copies are, and nothing is left over."""
    assert {one.verdict for one in verify(vfs.catalog, image, ADMIN)} == {Verdict.INTACT}
    assert list(fsck(vfs.catalog, repair=False)) == []
    assert vfs.catalog.image(image.number).message == ""


@pytest.mark.parametrize("how", ["ln", "mv", "evacuate"])
def test_a_folder_keeps_what_is_right(
    config: Path, vfs: Vfs, written: list[int], tmp_path: Path, how: str
) -> None:
    """Neither read nor written again; the message tells that it is worth repeating."""
    image = cut_off(config, vfs, "other", 7 * CHUNK_SIZE)
    assert "goes on if repeated" in image.message
    done: list[int] = []
    match how:
        case "ln":
            vfs.link(image.number, vfs.place("/other/a"), ALICE, progress=done.append)
            assert sum(done) == len(DATA)
        case "mv":
            vfs.rename(vfs.place("/file/a"), vfs.place("/other/a"), ALICE)
        case _:
            list(evacuate(vfs.catalog, "file", "other"))
    assert sum(written) == len(DATA) - 7 * CHUNK_SIZE
    assert read(vfs, "/other/a") == DATA
    assert staged_files(tmp_path) == []
    check_whole(vfs, image)


@pytest.mark.parametrize("harm", [0, CHUNK_SIZE + 5, 7 * CHUNK_SIZE - 1])
def test_what_is_left_is_not_believed(
    config: Path, vfs: Vfs, written: list[int], tmp_path: Path, harm: int
) -> None:
    """A power failure may have cost any of it: from the first chunk that is bad all is copied."""
    image = cut_off(config, vfs, "other", 7 * CHUNK_SIZE)
    (left,) = (tmp_path / "other" / ".staging").iterdir()
    overwrite(left, harm, bytes([left.read_bytes()[harm] ^ 1]))
    link(vfs, "/file/a", "/other/a")
    assert sum(written) == len(DATA) - harm // CHUNK_SIZE * CHUNK_SIZE
    assert read(vfs, "/other/a") == DATA
    check_whole(vfs, image)


def test_a_folder_on_a_server_goes_on_as_well(
    config: Path, vfs: Vfs, tmp_path: Path, written: list[int]
) -> None:
    """Through its time-outs and its policy."""
    image = cut_off(config, vfs, "other", 7 * CHUNK_SIZE)
    folder = f'path = "{tmp_path}/other"\n'
    config.write_text(config.read_text().replace(folder, f"{folder}io_timeout = 30\n"))
    catalog = open_catalog(load(config))
    there = Vfs(catalog)
    link(there, "/file/a", "/other/a")
    assert sum(written) == len(DATA) - 7 * CHUNK_SIZE
    assert read(there, "/other/a") == DATA
    check_whole(there, image)
    catalog.close()


def test_killed_behind_the_last_byte(config: Path, vfs: Vfs, written: list[int]) -> None:
    """It only has to be published."""
    image = cut_off(config, vfs, "other", len(DATA))
    link(vfs, "/file/a", "/other/a")
    assert written == []
    check_whole(vfs, image)


@pytest.mark.parametrize("how", ["day", "fsck", "purge"])
def test_what_is_not_gone_on_with_is_removed(
    config: Path, vfs: Vfs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """By the scrub of the next day, by `fsck --repair`, with the image."""
    cut_off(config, vfs, "other", 7 * CHUNK_SIZE)
    assert staged_files(tmp_path)
    match how:
        case "day":
            monkeypatch.setattr("catalog.upkeep.scrub.ABANDONED_AFTER", timedelta())
            list(scrub(vfs.catalog))
        case "fsck":
            list(fsck(vfs.catalog, repair=True))
        case _:
            remove(vfs, "/file/a")
            remove(vfs, "/file/.trash/a")
    assert staged_files(tmp_path) == []
    assert list(fsck(vfs.catalog, repair=False)) == []


@pytest.fixture
def s3(swift_server: Swift, tmp_path: Path) -> Iterator[tuple[Path, Vfs]]:
    """A configuration with a bucket beside the folders, and its tree."""
    account = Account(swift_server.s3_endpoint, swift_server.user, swift_server.key, tmp_path)
    account.make_bucket()
    user, key = (account.reference(each).file for each in (account.access_key, account.secret_key))
    sections = _S3.format(server=swift_server, user=user, key=key)
    config = configure(tmp_path, sections=sections)
    catalog = new_catalog(load(config))
    yield config, Vfs(catalog)
    catalog.close()


@pytest.fixture
def swift(swift_server: Swift, tmp_path: Path) -> Iterator[tuple[Path, Vfs]]:
    """A configuration with a container beside the folders, and its tree."""
    config = configure(tmp_path, sections=section(swift_server, tmp_path / "swift", "swift"))
    catalog = new_catalog(load(config))
    catalog.store("swift").initialize()
    yield config, Vfs(catalog)
    catalog.close()


@pytest.mark.parametrize("harm", [False, True])
def test_segments_that_a_container_has_are_not_sent_again(
    swift: tuple[Path, Vfs], monkeypatch: pytest.MonkeyPatch, harm: bool
) -> None:
    """Those whose MD5 is that of what is read anew; another is."""
    config, vfs = swift
    data = some_bytes(8 * PART + 77)
    # The seventh segment is on its way: the third must be there.
    image = cut_off(config, vfs, "swift", 7 * PART + CHUNK_SIZE, data)
    store = vfs.catalog.store("swift")
    (left,) = store.leftovers(-60)
    settings = load(config).stores["swift"]
    assert isinstance(settings, SwiftStoreSettings)
    client = SwiftClient("swift", settings)
    segments = f"{settings.container}_segments"
    second = f"{segments}/{left}/00000001"
    if harm:
        client.do("PUT", second, 201, subject="harm", body=lambda: [bytes(PART)])
    sent: list[int] = []
    original = SwiftWriter._put

    def put(self: SwiftWriter, path: str, *arguments: object) -> str:
        if path.startswith(f"{segments}/"):
            sent.append(int(path.rpartition("/")[2]))
        return original(self, path, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(SwiftWriter, "_put", put)
    link(vfs, "/file/a", "/swift/a")
    assert {7, 8} <= set(sent) <= {*range(3, 9), *([1] if harm else [])}
    assert (1 in sent) == harm
    assert read(vfs, "/swift/a") == data
    check_whole(vfs, image)
    remove(vfs, "/swift/a")
    assert list(client.listing(segments)) == []


def test_parts_that_a_bucket_has_are_not_sent_again(
    s3: tuple[Path, Vfs], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those whose MD5 is that of what is read anew."""
    config, vfs = s3
    data = some_bytes(8 * PART + 77)
    # The seventh part is on its way: the third must be there.
    image = cut_off(config, vfs, "s3", 7 * PART + CHUNK_SIZE, data)
    sent: list[int] = []
    original = Multipart.put_part

    def put_part(self: Multipart, key: str, upload: str, number: int, body: object) -> str:
        sent.append(number)
        return original(self, key, upload, number, body)  # type: ignore[arg-type]

    monkeypatch.setattr(Multipart, "put_part", put_part)
    with vfs.catalog.read() as repository:
        states = {x.store: x.state for x in repository.locations_of(image.number)}
    assert states == {"file": LocationState.ACTIVE, "s3": LocationState.PENDING}
    link(vfs, "/file/a", "/s3/a")
    assert {8, 9} <= set(sent) <= set(range(4, 10))
    assert read(vfs, "/s3/a") == data
    check_whole(vfs, image)
    remove(vfs, "/s3/a")
    assert list(vfs.catalog.store("s3").leftovers(-60)) == []
