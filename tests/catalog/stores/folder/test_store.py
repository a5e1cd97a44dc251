"""The filesystem store against the contract, and against crashes and missing disks."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from catalog.errors import InvalidName, NotFound, ReadOnlyStore, StoreFull, StoreUnavailable
from catalog.stores.folder.marker import MARKER
from catalog.stores.folder.store import FilesystemStore, FilesystemStoreSettings
from tests.kit.stores.contract import DATA, Subject, WriteContract, put_by_writer, read_all

MIB = 1 << 20


def store_at(path: Path, name: str = "file") -> FilesystemStore:
    """A store of a folder that need not be there."""
    return FilesystemStore(name, FilesystemStoreSettings(path=path))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the store will be: nothing yet."""
    return tmp_path / "images"


@pytest.fixture
def store(path: Path) -> FilesystemStore:
    """An initialized store."""
    store = store_at(path)
    store.initialize()
    return store


@pytest.fixture
def disk(path: Path) -> Iterator[Path]:
    """`path` as the mount point of a file system of 2 MiB."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(path)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mount is not permitted here: {done.stderr.strip()}")
    yield path
    subprocess.run(["umount", "-l", str(path)], capture_output=True, check=False)


class TestContract(WriteContract):
    @pytest.fixture
    def subject(self, store: FilesystemStore) -> Subject:
        """An empty folder."""
        return Subject(store, put_by_writer(store), store.url_of("missing"))


# The folder and its marker


def test_initialize_makes_the_folder_and_its_marker(path: Path) -> None:
    """The marker names the store and an id, and a second initialize leaves it alone."""
    store_at(path).initialize()
    marker = (path / MARKER).read_text()
    assert json.loads(marker)["store"] == "file"
    store_at(path).initialize()
    assert (path / MARKER).read_text() == marker


def test_initialize_takes_a_new_file_system(path: Path) -> None:
    """`lost+found`, and what a killed initialize left, do not count as content."""
    (path / "lost+found").mkdir(parents=True)
    (path / f"{MARKER}.1234").touch()
    store_at(path).initialize()
    store_at(path).check()


def test_initialize_refuses_somebody_elses_folder(path: Path) -> None:
    """A folder with content and no marker is left as it is."""
    path.mkdir()
    (path / "letter.txt").touch()
    with pytest.raises(StoreUnavailable, match=r"letter\.txt"):
        store_at(path).initialize()
    assert [entry.name for entry in path.iterdir()] == ["letter.txt"]


def test_folder_of_another_store_is_unavailable(store: FilesystemStore, path: Path) -> None:
    """The wrong disk at a mount point is noticed by the name in its marker."""
    other = store_at(path, "other")
    for attempt in (other.check, other.initialize):
        with pytest.raises(StoreUnavailable, match="belongs to the store 'file'"):
            attempt()


@pytest.mark.parametrize("content", ["", "no json", "[]", '"text"', "{}", "\xff"])
def test_damaged_marker_is_unavailable(store: FilesystemStore, path: Path, content: str) -> None:
    """A marker that cannot be read marks nothing."""
    (path / MARKER).write_text(content, encoding="latin-1")
    with pytest.raises(StoreUnavailable, match="damaged"):
        store.check()


def every_use(store: FilesystemStore) -> dict[str, Callable[[], object]]:
    """One call of each method that touches the folder."""
    url = store.url_of("a")
    return {
        "check": store.check,
        "open": lambda: store.open(url),
        "stat": lambda: store.stat(url),
        "writer": lambda: store.writer("b"),
        "delete": lambda: store.delete(url),
        "copy": lambda: store.copy(url, "b"),
        "usage": store.usage,
        "keys": lambda: list(store.keys()),
        "staging_folder": store.staging_folder,
        "quarantine": lambda: store.quarantine("a"),
    }


@pytest.mark.parametrize("use", list(every_use(store_at(Path("/absent")))))
def test_unmounted_disk_is_unavailable(disk: Path, use: str) -> None:
    """No method works in, or draws conclusions from, the mount point beneath."""
    store = store_at(disk)
    store.initialize()
    put_by_writer(store)("a", DATA)
    subprocess.run(["umount", str(disk)], check=True)
    with pytest.raises(StoreUnavailable, match="is its disk mounted"):
        every_use(store)[use]()
    assert list(disk.iterdir()) == []


def test_disk_unmounted_while_writing(disk: Path) -> None:
    """A writer whose disk went away commits nothing and leaves the mount point empty."""
    store = store_at(disk)
    store.initialize()
    writer = store.writer("a")
    writer.write(DATA)
    subprocess.run(["umount", "-l", str(disk)], check=True)
    with pytest.raises(StoreUnavailable):
        writer.commit()
    assert list(disk.iterdir()) == []


def test_absent_folder_is_unavailable(path: Path) -> None:
    """A folder that is not there is not made by use."""
    with pytest.raises(StoreUnavailable):
        store_at(path).writer("a")
    assert not path.exists()


def test_full_disk(disk: Path) -> None:
    """A write past the end of the disk is StoreFull, and cancel gives the room back."""
    store = store_at(disk)
    store.initialize()
    free = store.usage().free
    writer = store.writer("a")
    with pytest.raises(StoreFull):
        writer.write(bytes(3 * MIB))
    writer.cancel()
    assert store.usage().free == free
    assert list(store.keys()) == []


def test_full_disk_while_copying(disk: Path, tmp_path: Path) -> None:
    """A staged file larger than the disk is StoreFull too."""
    staged = tmp_path / "staged"
    staged.write_bytes(os.urandom(3 * MIB))
    store = store_at(disk)
    store.initialize()
    writer = store.writer("a")
    with pytest.raises(StoreFull):
        writer.take(staged)
    writer.cancel()
    assert list((disk / ".staging").iterdir()) == []


def test_read_only_disk(disk: Path) -> None:
    """A disk mounted read-only is read, and refuses the rest."""
    store = store_at(disk)
    store.initialize()
    url = put_by_writer(store)("a", DATA)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert read_all(store, url) == DATA
    with pytest.raises(ReadOnlyStore):
        store.writer("b")
    with pytest.raises(ReadOnlyStore):
        store.delete(url)


def test_delete_removes_what_a_dead_writer_has_left(store: FilesystemStore, path: Path) -> None:
    """The file of a writer that was never ended goes with the object; others' stay."""
    for key in ("a", "b"):
        store.writer(key).write(DATA)
    store.delete(store.url_of("a"))
    assert [left.name.partition(".")[0] for left in (path / ".staging").iterdir()] == ["b"]


# Names


@pytest.mark.parametrize("key", ["", ".", "..", ".imagefs-store", "a/b", "../a", "a\0", "a" * 201])
def test_key_stays_in_the_folder(store: FilesystemStore, key: str) -> None:
    """A key that is no plain file name is refused everywhere."""
    for attempt in (store.writer, store.url_of, store.quarantine):
        with pytest.raises(InvalidName):
            attempt(key)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "http://a/b", "{}/../a", "{}/x/a", "a", ""])
def test_url_outside_the_folder_is_unavailable(
    store: FilesystemStore, path: Path, url: str
) -> None:
    """A url of another place is neither read nor deleted, nor is its data called lost."""
    url = url.format(f"file://{path}")
    for attempt in (store.open, store.stat, store.delete):
        with pytest.raises(StoreUnavailable):
            attempt(url)


def test_url_is_as_glance_writes_it(store: FilesystemStore, path: Path) -> None:
    """`file://` and the plain path."""
    assert store.url_of("1f2e") == f"file://{path}/1f2e"


def test_url_is_read_as_glance_reads_it(store: FilesystemStore, path: Path) -> None:
    """The driver's name as a scheme means the same."""
    (path / "a").write_bytes(DATA)
    assert read_all(store, f"filesystem://{path}/a") == DATA


def test_link_or_folder_is_no_object(store: FilesystemStore, path: Path) -> None:
    """Only regular files are opened and listed."""
    (path / "link").symlink_to("/etc/passwd")
    (path / "folder").mkdir()
    with pytest.raises(StoreUnavailable):
        store.open(store.url_of("link"))
    with pytest.raises(NotFound):
        store.open(store.url_of("folder"))
    assert list(store.keys()) == []


def test_path_must_be_absolute() -> None:
    """A relative path would depend on where the program was started."""
    with pytest.raises(ValidationError, match="absolute"):
        FilesystemStoreSettings(path=Path("images"))


# Files


def test_modes(store: FilesystemStore, path: Path) -> None:
    """Objects are read-only, and what is not finished is the owner's alone."""
    writer = store.writer("a")
    (unfinished,) = (path / ".staging").iterdir()
    assert stat.S_IMODE((path / ".staging").stat().st_mode) == 0o700
    assert stat.S_IMODE(unfinished.stat().st_mode) == 0o600
    writer.commit()
    assert stat.S_IMODE((path / "a").stat().st_mode) == 0o440


def sparse_file(path: Path) -> bytes:
    """Make a file of data, a hole, data and a hole at the end; return its bytes."""
    with path.open("wb") as file:
        file.write(DATA)
        file.seek(20 * MIB)
        file.write(DATA)
        file.truncate(40 * MIB)
    return path.read_bytes()


def test_taken_file_keeps_its_holes(store: FilesystemStore, tmp_path: Path, path: Path) -> None:
    """A file copied into the store occupies no more than it did before."""
    staged = tmp_path / "sparse"
    data = sparse_file(staged)
    writer = store.writer("a")
    writer.take(staged)
    assert read_all(store, writer.commit()) == data
    assert (path / "a").stat().st_blocks <= staged.stat().st_blocks


def test_taken_file_of_another_file_system(store: FilesystemStore, path: Path) -> None:
    """Holes are kept across file systems too."""
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == path.stat().st_dev:
        pytest.skip("there is no second file system")
    staged = shared / f"imagefs-test-{os.getpid()}"
    try:
        data = sparse_file(staged)
        writer = store.writer("a")
        writer.take(staged)
        assert read_all(store, writer.commit()) == data
    finally:
        staged.unlink()
    assert (path / "a").stat().st_blocks * 512 < 2 * len(DATA) + MIB


def test_copy_keeps_holes(store: FilesystemStore, tmp_path: Path, path: Path) -> None:
    """A duplicate occupies no more than its original."""
    staged = tmp_path / "sparse"
    data = sparse_file(staged)
    writer = store.writer("a")
    writer.take(staged)
    assert read_all(store, store.copy(writer.commit(), "b")) == data
    assert (path / "b").stat().st_blocks <= (path / "a").stat().st_blocks


def test_truncated_object_is_not_read_short(store: FilesystemStore, path: Path) -> None:
    """A file that shrinks while it is open is an error, not the end of the object."""
    reader = store.open(put_by_writer(store)("a", DATA))
    os.truncate(path / "a", 1000)
    assert reader.read_at(0, 1000) == DATA[:1000]
    with pytest.raises(StoreUnavailable, match="cut off"):
        reader.read_at(0, 2000)
    reader.close()


def test_quarantine_keeps_the_bytes(store: FilesystemStore) -> None:
    """Objects of one key quarantined one after the other are both kept."""
    put = put_by_writer(store)
    places = []
    for data in (DATA, DATA[::-1]):
        put("a", data)
        places.append(Path(store.quarantine("a")))
    assert [place.read_bytes() for place in places] == [DATA, DATA[::-1]]


# Crashes

COMMIT_FOR_EVER = """
import itertools, sys
from pathlib import Path
from catalog.stores.folder.store import FilesystemStore, FilesystemStoreSettings
store = FilesystemStore("file", FilesystemStoreSettings(path=Path(sys.argv[1])))
for number in itertools.count():
    writer = store.writer(str(number))
    for _ in range(20):
        writer.write(b"x" * 10_000)
    print(writer.commit(), flush=True)
"""


@pytest.mark.parametrize("moment", range(5))
def test_killed_process_leaves_whole_objects(
    store: FilesystemStore, path: Path, moment: int
) -> None:
    """After a kill every committed object is there, and every object there is whole."""
    process = subprocess.Popen(
        [sys.executable, "-c", COMMIT_FOR_EVER, str(path)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
    )
    with process:
        assert process.stdout is not None
        urls = [process.stdout.readline().strip()]
        time.sleep(moment * 0.0137)
        process.send_signal(signal.SIGKILL)
        urls += process.stdout.read().split()
    found = [store.url_of(key) for key in list(store.keys())]
    assert set(found) >= set(urls)
    assert {read_all(store, url) for url in found} == {b"x" * 200_000}


def test_killed_writer_leaves_nothing_visible(store: FilesystemStore, path: Path) -> None:
    """A process killed between its writes and its commit published nothing."""
    pid = os.fork()
    if pid == 0:
        try:
            store.writer("a").write(DATA)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert list(store.keys()) == []
    assert [entry.name.split(".")[0] for entry in (path / ".staging").iterdir()] == ["a"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files that belong to another")
def test_what_root_stores_is_the_store_owners(store: FilesystemStore, path: Path) -> None:
    """A mount of root and a server with a user of its own work on one store."""
    os.chown(path, 65534, 65534)
    put_by_writer(store)("a", DATA)
    assert (path / "a").stat().st_uid == 65534
    assert store.staging_folder().stat().st_uid == 65534
