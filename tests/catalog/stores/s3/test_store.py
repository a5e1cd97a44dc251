"""The s3 store against the contract on Swift's s3api and on Ceph's radosgw, and beyond it."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from catalog.errors import (
    CatalogError,
    DataChanged,
    ImageTooLarge,
    InvalidName,
    NotFound,
    StoreRefused,
    StoreUnavailable,
)
from catalog.stores.base import Usage
from catalog.stores.s3.multipart import PartsInFlight
from catalog.stores.s3.settings import S3StoreSettings
from catalog.stores.s3.store import S3Store
from catalog.stores.s3.writer import S3Writer
from catalog.uploads.sender import Sender
from tests.kit.stores.contract import (
    DATA,
    GrowingContract,
    Subject,
    WriteContract,
    nothing_is_wrong,
    put_by_writer,
    read_all,
)
from tests.kit.stores.s3_account import Account, leftovers, opened

MIB = 1 << 20
LARGE = random.Random(1).randbytes(20 * MIB + 7)
"""Three parts."""


@pytest.fixture(scope="session", params=["swift", "radosgw"])
def account(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Account:
    """An account of a real server, with one bucket."""
    folder = tmp_path_factory.mktemp("secrets")
    if request.param == "swift":
        server = request.getfixturevalue("swift_server")
        found = Account(server.s3_endpoint, server.user, server.key, folder)
    else:
        server = request.getfixturevalue("rgw")
        found = Account(server.url, server.access_key, server.secret_key, folder)
    found.make_bucket()
    return found


@pytest.fixture
def settings(account: Account) -> S3StoreSettings:
    """An empty place in the bucket."""
    return account.settings()


@pytest.fixture
def store(settings: S3StoreSettings) -> Iterator[S3Store]:
    """A store that copies by pieces beyond 1 MiB."""
    store = S3Store("s3", settings, copied_whole=MIB, copied_piece=8 * MIB)
    yield store
    store.close()


class TestContract(WriteContract, GrowingContract):
    @pytest.fixture
    def subject(self, store: S3Store) -> Subject:
        """A bucket."""
        return Subject(store, put_by_writer(store), store.url_of("missing"))


# Storing


def test_parts_make_one_object(store: S3Store) -> None:
    """What is larger than a part arrives whole, and nothing is left over."""
    writer = store.writer("a", len(LARGE))
    for start in range(0, len(LARGE), 999_999):
        writer.write(LARGE[start : start + 999_999])
    url = writer.commit()
    assert store.stat(url).size == len(LARGE)
    assert read_all(store, url) == LARGE
    assert leftovers(store) == []


def test_staged_file_is_sent_by_parts(store: S3Store, tmp_path: Path) -> None:
    """A staged file larger than a part arrives whole, before it is committed unseen."""
    staged = tmp_path / "staged"
    staged.write_bytes(LARGE)
    writer = store.writer("a")
    writer.take(staged)
    with pytest.raises(NotFound):
        store.stat(store.url_of("a"))
    assert len(leftovers(store)) == 1
    assert read_all(store, writer.commit()) == LARGE
    assert leftovers(store) == []


def test_unknown_size_is_buffered_until_a_part_is_full(store: S3Store) -> None:
    """Data of unknown size below the part for that goes out by one request."""
    writer = store.writer("a")
    writer.write(LARGE)
    assert leftovers(store) == []
    assert read_all(store, writer.commit()) == LARGE


def test_file_that_grows_beyond_all_parts(
    store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What had begun in parts too small for it is sent again in larger ones."""
    monkeypatch.setattr("catalog.stores.s3.writer._PART_UNKNOWN", 5 * MIB)
    monkeypatch.setattr("catalog.stores.s3.multipart.PARTS_MAX", 3)
    staged = tmp_path / "staged"
    staged.write_bytes(LARGE)
    writer = store.writer("a")
    while writer.send(staged, len(LARGE), nothing_is_wrong) < 15 * MIB:
        pass
    with pytest.raises(ImageTooLarge):
        writer.send(staged, len(LARGE), nothing_is_wrong)
    writer.cancel()
    assert leftovers(store) == []
    sender = Sender(store, "a", staged, lambda: None, begin=MIB, step=MIB)
    sender.after_write(len(LARGE))
    sender.finish(len(LARGE))
    assert read_all(store, sender.commit()) == LARGE
    assert leftovers(store) == []


@pytest.mark.parametrize("size", [0, 1, 8 * MIB, 8 * MIB + 1, 16 * MIB])
def test_sizes_around_a_part(store: S3Store, tmp_path: Path, size: int) -> None:
    """The last part may be as large as the others, and is never empty; both ways."""
    put_by_writer(store)("written", LARGE[:size])
    staged = tmp_path / "staged"
    staged.write_bytes(LARGE[:size])
    writer = store.writer("taken", size)
    writer.take(staged)
    for url in (store.url_of("written"), writer.commit()):
        assert read_all(store, url) == LARGE[:size]


def test_more_than_was_told(store: S3Store) -> None:
    """A size told beforehand is a hint, not a limit."""
    writer = store.writer("a", 5)
    writer.write(LARGE)
    assert read_all(store, writer.commit()) == LARGE


def test_cancelled_upload_leaves_no_part(store: S3Store, tmp_path: Path) -> None:
    """Parts that are sent or on their way are gone after a cancel."""
    staged = tmp_path / "staged"
    staged.write_bytes(LARGE)
    taking, writing = store.writer("a"), store.writer("b", len(LARGE))
    taking.take(staged)
    writing.write(LARGE)
    assert len(leftovers(store)) == 2
    taking.cancel()
    writing.cancel()
    assert leftovers(store) == []
    assert list(store.keys()) == []


def test_dead_writer_is_found(settings: S3StoreSettings, store: S3Store) -> None:
    """What a killed process began is told once old, dropped by name, and by `delete`."""
    url = store.url_of("a")
    for key in ("a", "ab"):
        dead = S3Store("s3", settings)
        dead.writer(key, len(LARGE)).write(LARGE)
    assert list(store.leftovers(3600)) == []
    assert [name.split(" ")[0] for name in leftovers(store)] == [
        f"{settings.prefix}a",
        f"{settings.prefix}ab",
    ]
    store.delete(url)
    (rest,) = leftovers(store)
    assert rest.startswith(f"{settings.prefix}ab ")
    store.drop_leftover(rest)
    store.drop_leftover(rest)
    assert leftovers(store) == []


def test_many_dead_writers(
    settings: S3StoreSettings, store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uploads are listed page by page to the last, several of one key too."""
    monkeypatch.setattr("catalog.stores.s3.multipart._PAGE", 2)
    for key in ("a", "b", "b", "b", "c"):
        S3Store("s3", settings).writer(key, len(LARGE)).write(LARGE[: 9 * MIB])
    assert len(set(leftovers(store))) == 5
    store.delete(store.url_of("b"))
    assert sorted(name.split(" ")[0][-1] for name in leftovers(store)) == ["a", "c"]


def test_staged_file_that_becomes_shorter(
    store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is made of a file that is cut off while it is sent."""
    staged = tmp_path / "staged"
    staged.write_bytes(LARGE)
    begin = S3Writer._begin

    def cut(writer: S3Writer, at_once: int) -> PartsInFlight:
        os.truncate(staged, MIB)
        return begin(writer, at_once)

    monkeypatch.setattr(S3Writer, "_begin", cut)
    writer = store.writer("a")
    with pytest.raises(StoreUnavailable, match="became shorter"):
        _take_and_commit(writer, staged)
    writer.cancel()
    assert leftovers(store) == []
    assert list(store.keys()) == []


def _take_and_commit(writer: S3Writer, staged: Path) -> str:
    writer.take(staged)
    return writer.commit()


def test_part_limit(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """More parts than S3 takes are refused, and nothing is left over."""
    monkeypatch.setattr("catalog.stores.s3.multipart.PARTS_MAX", 1)
    writer = store.writer("a", 1)
    with pytest.raises(ImageTooLarge):
        writer.write(LARGE)
    writer.cancel()
    assert leftovers(store) == []


def test_upload_that_was_aborted_elsewhere(store: S3Store) -> None:
    """A commit fails if its parts were dropped meanwhile, and no object is made."""
    writer = store.writer("a", len(LARGE))
    writer.write(LARGE)
    for name in leftovers(store):
        store.drop_leftover(name)
    with pytest.raises((StoreUnavailable, NotFound)):
        writer.commit()
    with pytest.raises(NotFound):
        store.stat(store.url_of("a"))


# Copying


def test_large_object_is_copied_by_pieces(store: S3Store) -> None:
    """Beyond what one request copies, the server copies pieces; nothing is left over."""
    url = put_by_writer(store)("a", LARGE)
    copied = store.copy(url, "b")
    store.delete(url)
    assert read_all(store, copied) == LARGE
    assert leftovers(store) == []


@pytest.mark.parametrize("data", [DATA, LARGE], ids=["whole", "by pieces"])
def test_objects_of_another_bucket_are_copied(
    account: Account, store: S3Store, data: bytes
) -> None:
    """By the server, whole or by pieces; the copy outlives the original."""
    account.make_bucket("elsewhere")
    with opened(account.settings(bucket="elsewhere")) as elsewhere:
        url = put_by_writer(elsewhere)("a", data)
        assert store.reaches(url)
        copied = store.copy(url, "a")
        elsewhere.delete(url)
        with pytest.raises(NotFound):
            store.copy(url, "b")
    assert read_all(store, copied) == data
    assert (list(store.keys()), leftovers(store)) == (["a"], [])


def test_what_is_no_bucket_of_this_server_is_not_reached(account: Account, store: S3Store) -> None:
    """Nor is our own: that needs no asking."""
    host = account.settings().host
    assert store.reaches(f"s3://{host}/another/a")
    for url in (store.url_of("a"), "s3://127.0.0.1:1/another/a", "file:///a", "s3://a"):
        assert not store.reaches(url)


def test_an_object_of_a_bucket_that_is_not_there(account: Account, store: S3Store) -> None:
    """An error: whoever asks copies in another way."""
    with pytest.raises((NotFound, StoreUnavailable)):
        store.copy(f"s3://{account.settings().host}/nowhere/a", "a")
    assert list(store.keys()) == []


def test_quarantined_object_keeps_its_bytes(store: S3Store) -> None:
    """The place that is told is a url of the same bucket."""
    put_by_writer(store)("a", DATA)
    assert read_all(store, store.quarantine("a")) == DATA


# Locations and keys


def test_glance_objects_are_read_by_their_url(account: Account) -> None:
    """A url with credentials and any key of the bucket opens; ours are used, theirs unseen."""
    store = S3Store("s3", account.settings())
    place = S3Store("glance", account.settings(prefix=""))
    host = account.endpoint.removeprefix("http://")
    for key in ("6f1c0f5c-8f0e-4d0c-b7a2-2d0f5b0e8c11", "a b%20+ü#?&=;", "d/e~f"):
        place._objects.put(key, DATA)
        for scheme in ("s3", "s3+http", "s3+https"):
            url = f"{scheme}://AK:se/cr+et=@{host}/images/{key}"
            assert read_all(store, url) == DATA
        store.delete(url)
        with pytest.raises(NotFound) as caught:
            store.stat(url)
        assert "cr+et" not in str(caught.value)
    place.close()
    store.close()


@pytest.mark.parametrize(
    "url",
    [
        *("", "a", "file:///a", "s3:/a/b/c", "s3://h/images", "s3:///images/a"),
        *("s3://AK:word/word@other/images/a", "s3://AK:word/x@{host}/other/a"),
        *("s3://AK:word@https://{host}/images/a", "s3://word@{host}/images/a"),
        *("s3://{host}/images//a", "s3://{host}/images/../a", "s3://{host}/images/./a"),
        "s3://{host}/images/a\nb",
        "s3://{host}/images/" + "k" * 1025,
    ],
)
def test_no_url_of_this_store(account: Account, store: S3Store, url: str) -> None:
    """What is not in the bucket is not reported missing; a secret in it is not shown."""
    url = url.format(host=account.endpoint.removeprefix("http://"))
    with pytest.raises(StoreUnavailable) as caught:
        store.open(url)
    assert "word" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["", ".a", "a/b", "a\n", "a@b", "k" * 201])
def test_no_key(store: S3Store, key: str) -> None:
    """A key that would not be listed again is refused."""
    with pytest.raises(InvalidName):
        store.writer(key)


def test_others_objects_are_no_keys(account: Account) -> None:
    """Below the prefix, only what lies directly there is an image; usage is not known."""
    outer = S3Store("outer", account.settings())
    inner = S3Store("inner", account.settings(prefix=f"{outer._root}inner"))
    put_by_writer(outer)("a", DATA)
    put_by_writer(inner)("b", DATA)
    assert list(outer.keys()) == ["a"]
    assert list(inner.keys()) == ["b"]
    assert outer.usage() == Usage(None, None)
    outer.close()
    inner.close()


# Credentials and settings


REQUESTS: dict[str, Callable[[S3Store, str], object]] = {
    "check": lambda store, url: store.check(),
    "stat": lambda store, url: store.stat(url),
    "open": lambda store, url: store.open(url),
    "keys": lambda store, url: list(store.keys()),
    "delete": lambda store, url: store.delete(url),
    "put": lambda store, url: put_by_writer(store)("a", DATA),
    "put by parts": lambda store, url: put_by_writer(store)("a", LARGE),
    "copy": lambda store, url: store.copy(url, "b"),
    "leftovers": lambda store, url: leftovers(store),
}


@pytest.mark.parametrize("wrong", ["access_key", "secret_key"])
@pytest.mark.parametrize("name", REQUESTS)
def test_wrong_credentials(account: Account, wrong: str, name: str) -> None:
    """One clear line, with neither of both, from whatever is asked first."""
    settings = account.settings(**{wrong: account.reference("wr0ng")})
    with opened(settings) as store:
        with pytest.raises(StoreRefused, match="refuses our credentials") as caught:
            REQUESTS[name](store, store.url_of("a"))
        text = f"{caught.value!r}{caught.value}{caught.value.__cause__!r}"
        assert not [s for s in ("wr0ng", account.secret_key, account.access_key) if s in text]
        assert "\n" not in str(caught.value)


def test_renewed_credentials_are_used(account: Account) -> None:
    """A secret that was wrong and is put right works without a restart."""
    reference = account.reference("wr0ng too")
    store = S3Store("s3", account.settings(secret_key=reference))
    with pytest.raises(StoreUnavailable):
        store.stat(store.url_of("a"))
    assert reference.file is not None
    reference.file.write_text(account.secret_key)
    url = put_by_writer(store)("a", DATA)
    assert read_all(store, url) == DATA
    store.close()


@pytest.mark.parametrize("name", REQUESTS)
def test_missing_bucket_is_not_a_missing_object(account: Account, name: str) -> None:
    """Nobody may conclude from a wrong bucket that data is lost."""
    with (
        opened(account.settings(bucket="none-such")) as store,
        pytest.raises(StoreRefused, match="the bucket does not exist"),
    ):
        REQUESTS[name](store, store.url_of("a"))


def test_environment_has_no_say(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that AWS' programs obey change nothing here."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_SESSION_TOKEN": "x",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
        "AWS_REGION": "eu-west-1",
        "AWS_BUCKET": "other",
        "AWS_SKIP_SIGNATURE": "true",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true",
        "AWS_S3_EXPRESS": "true",
    }.items():
        monkeypatch.setenv(name, value)
    store = S3Store("s3", account.settings())
    assert read_all(store, put_by_writer(store)("a", DATA)) == DATA
    store.close()


def test_many_readers_of_large_objects(store: S3Store) -> None:
    """Ranges across the parts of an object are its bytes, from many threads."""
    reader = store.open(put_by_writer(store)("a", LARGE))
    offsets = [random.Random(i).randrange(len(LARGE)) for i in range(100)]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda offset: reader.read_at(offset, 200_000), offsets))
    assert found == [LARGE[offset : offset + 200_000] for offset in offsets]


def test_changed_object_is_not_read(store: S3Store) -> None:
    """An object replaced, or removed, while it is open is an error, not other bytes."""
    put = put_by_writer(store)
    url = put("a", LARGE)
    reader = store.open(url)
    put("a", LARGE[::-1])
    with pytest.raises(DataChanged):
        reader.read_at(9 * MIB, 1000)
    store.delete(url)
    with pytest.raises(NotFound):
        reader.read_at(9 * MIB, 1000)


def test_object_replaced_while_it_is_copied(store: S3Store) -> None:
    """The server copies what was looked at, or nothing."""
    put = put_by_writer(store)
    url = put("a", LARGE)
    seen = store.stat(url)
    put("a", LARGE[::-1])
    with pytest.raises(CatalogError):
        store._copy_pieces(store._source(f"{store._root}a"), seen, f"{store._root}b")
    assert list(store.keys()) == ["a"]
    assert leftovers(store) == []
