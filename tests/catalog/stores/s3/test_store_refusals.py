"""What a bucket or a server of S3 refuses: told as what it is, and worked around where we can.

A proxy before a real server answers as S3 does where a bucket has Object Lock, and as servers
do that lack a request.
"""

from __future__ import annotations

import base64
import hashlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from catalog.errors import NotSupported, StoreRefused, StoreUnavailable
from catalog.model.access import ADMIN
from catalog.settings import Settings
from catalog.stores.s3.store import S3Store
from catalog.tree.vfs import Vfs
from catalog.upkeep.findings import FindingKind
from catalog.upkeep.fsck import fsck
from catalog.upkeep.scrub import scrub
from tests.kit.catalog import begin, image_at, new_catalog, put, read, remove, rename, settings_at
from tests.kit.stores.contract import DATA, put_by_writer, read_all
from tests.kit.stores.s3_account import Account, opened
from tests.servers.network.breaking_proxy import Fault, Plan, Proxy, Request, always, never

MIB = 1 << 20
LARGE = random.Random(2).randbytes(17 * MIB + 5)
"""Three parts."""

DENIED = Fault(
    status=403,
    body=b"<Error><Code>AccessDenied</Code><Message>Access Denied because object protected by"
    b" object lock.</Message></Error>",
)
NO_CHECKSUM = Fault(
    status=400,
    body=b"<Error><Code>InvalidRequest</Code><Message>Content-MD5 OR x-amz-checksum- HTTP header"
    b" is required for Put Object requests with Object Lock parameters</Message></Error>",
)
NOT_IMPLEMENTED = Fault(
    status=501,
    body=b"<Error><Code>NotImplemented</Code><Message>A header you provided implies functionality"
    b" that is not implemented</Message></Error>",
)
LOCKED = Fault(
    status=200,
    body=b"<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule>"
    b"<DefaultRetention><Mode>COMPLIANCE</Mode><Days>30</Days></DefaultRetention></Rule>"
    b"</ObjectLockConfiguration>",
)
VERSIONED = Fault(
    status=200,
    body=b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>",
)


@pytest.fixture
def store(account: Account, between: Proxy) -> Iterator[S3Store]:
    """A store behind the proxy."""
    with opened(account.by_way_of(between.url).settings(policy={"attempts": 2})) as found:
        yield found


@pytest.fixture
def vfs(account: Account, between: Proxy, tmp_path: Path) -> Iterator[Vfs]:
    """A tree with that store and two folders, whose trash is emptied by every scrub."""
    plain = settings_at(tmp_path, scrub_time=0)
    section = account.by_way_of(between.url).settings(policy={"attempts": 2})
    settings = Settings("test", plain.catalog, {**plain.stores, "s3": section})
    found = Vfs(new_catalog(settings))
    yield found
    between.set_plan(never)
    found.close()


def locks(request: Request) -> Fault | None:
    """A bucket with default retention: no body is taken without a checksum."""
    has_body = request.method == "PUT" and "x-amz-copy-source" not in request.headers
    has_checksum = "content-md5" in request.headers or "x-amz-checksum-sha256" in request.headers
    return NO_CHECKSUM if has_body and not has_checksum else None


def lacks_list(request: Request) -> Fault | None:
    """A server without ListMultipartUploads."""
    is_list = request.method == "GET" and "uploads=" in request.target
    return NOT_IMPLEMENTED if is_list else None


def put_staged(store: S3Store, key: str, data: bytes, folder: Path) -> str:
    """Store a staged file, as uploads do."""
    (folder / key).write_bytes(data)
    writer = store.writer(key, len(data))
    writer.take(folder / key)
    return writer.commit()


@pytest.mark.parametrize("is_staged", [True, False])
@pytest.mark.parametrize("data", [DATA, LARGE], ids=["at once", "by parts"])
def test_a_bucket_that_wants_checksums_gets_them(
    store: S3Store, between: Proxy, data: bytes, is_staged: bool, tmp_path: Path
) -> None:
    """Each body goes with its MD5, and the server, which compares it, has the data."""
    between.set_plan(locks)

    def put_one(key: str) -> str:
        if is_staged:
            return put_staged(store, key, data, tmp_path)
        return put_by_writer(store)(key, data)

    assert read_all(store, put_one("a")) == data
    sums = [each.headers.get("content-md5") for each in between.requests]
    if data is DATA:
        assert base64.b64encode(hashlib.md5(DATA).digest()).decode() in sums
    refused = [each for each in between.requests if locks(each) is not None]
    assert 1 <= len(refused) <= 4  # those that were under way at once
    put_one("b")
    assert len([each for each in between.requests if locks(each) is not None]) == len(refused)


def test_no_checksum_is_sent_where_none_is_wanted(store: S3Store, between: Proxy) -> None:
    """SHA-256 in the signature, or TLS, guards each body already."""
    between.set_plan(never)
    put_by_writer(store)("a", DATA)
    assert not any("content-md5" in each.headers for each in between.requests)


@pytest.mark.parametrize(
    ("method", "doing"), [("DELETE", "delete"), ("PUT", "write"), ("GET", "read")]
)
def test_a_refused_object_is_told_as_that(
    store: S3Store, between: Proxy, method: str, doing: str
) -> None:
    """The credentials are good: the reason is the bucket's own, with its words."""
    url = put_by_writer(store)("a", DATA)
    reader = store.open(url)
    between.set_plan(always(DENIED, method))
    requests: dict[str, Callable[[], object]] = {
        "DELETE": lambda: store.delete(url),
        "PUT": lambda: put_by_writer(store)("b", DATA),
        "GET": lambda: reader.read_at(0, 100),
    }
    with pytest.raises(StoreRefused, match="object lock") as caught:
        requests[method]()
    assert "credentials" not in str(caught.value)
    if method != "GET":  # obstore tells less of what it did
        assert f"forbids us to {doing} this (AccessDenied: Access Denied because" in str(
            caught.value
        )


def test_an_upload_that_cannot_be_aborted_costs_no_object(store: S3Store, between: Proxy) -> None:
    """What died before is removed first: a refusal leaves the object whole."""
    url = put_by_writer(store)("a", DATA)
    store._multipart.create(store._key_of(url))
    between.set_plan(lambda asked: DENIED if "uploadId=" in asked.target else None)
    with pytest.raises(StoreRefused, match="object lock"):
        store.delete(url)
    assert read_all(store, url) == DATA
    between.set_plan(never)
    store.delete(url)
    assert list(store.keys()) == []


@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"])
def test_refused_credentials_are_told_as_that(store: S3Store, between: Proxy, code: str) -> None:
    """Whoever reads it looks at the keys."""
    url = put_by_writer(store)("a", DATA)
    between.set_plan(always(Fault(status=403, body=f"<Error><Code>{code}</Code></Error>".encode())))
    with pytest.raises(StoreRefused, match=rf"refuses our credentials \({code}\)"):
        store.delete(url)


def test_a_clock_that_is_wrong_is_told(store: S3Store, between: Proxy) -> None:
    """The keys are good then."""
    skewed = b"<Error><Code>RequestTimeTooSkewed</Code><Message>too large</Message></Error>"
    between.set_plan(always(Fault(status=403, body=skewed)))
    with pytest.raises(StoreRefused, match="RequestTimeTooSkewed: too large"):
        store.check()


def test_the_first_error_is_the_one_that_is_told(vfs: Vfs, between: Proxy) -> None:
    """The upload is refused, and so is cleaning up after it: the upload's own reason counts."""
    full = Fault(status=507, body=b"<Error><Code>QuotaExceeded</Code></Error>")

    def refuse(request: Request) -> Fault | None:
        return {"PUT": full, "DELETE": DENIED}.get(request.method)

    between.set_plan(refuse)
    upload = begin(vfs, "/s3/a", DATA)
    with pytest.raises(Exception, match="QuotaExceeded"):
        upload.commit()
    assert image_at(vfs, "/s3/a").status == "killed"
    assert "QuotaExceeded" in image_at(vfs, "/s3/a").message
    assert "lock" not in image_at(vfs, "/s3/a").message


def test_what_a_bucket_keeps_stays_in_the_trash(vfs: Vfs, between: Proxy) -> None:
    """It is told as kept, can be restored, and is read; the next scrub asks again."""
    put(vfs, "/s3/a", DATA)
    remove(vfs, "/s3/a")
    between.set_plan(always(DENIED, "DELETE"))
    (kept,) = scrub(vfs.catalog)
    assert "object lock" in str(kept.problem)
    assert "object lock" in image_at(vfs, "/s3/.trash/a").message
    rename(vfs, "/s3/.trash/a", "/s3/a")
    assert read(vfs, "/s3/a", ADMIN) == DATA
    remove(vfs, "/s3/a")
    between.set_plan(never)
    (gone,) = scrub(vfs.catalog)
    assert gone.problem is None


def test_fsck_goes_on_without_what_a_server_lacks(vfs: Vfs, between: Proxy) -> None:
    """All else is examined, and that something is not is told as no fault."""
    image = put(vfs, "/s3/a", DATA)
    store = vfs.catalog.store("s3")
    store.delete(store.url_of(image.id))
    between.set_plan(lacks_list)
    found = {finding.kind: finding.detail for finding in fsck(vfs.catalog, repair=False)}
    assert found.keys() == {FindingKind.MISSING_DATA, FindingKind.NOT_EXAMINED}
    assert "501" in found[FindingKind.NOT_EXAMINED]


def test_a_server_without_that_list_is_used_all_the_same(store: S3Store, between: Proxy) -> None:
    """Storing, deleting and going on need it only for what died before."""
    between.set_plan(lacks_list)
    url = put_by_writer(store)("a", LARGE)
    writer, have = store.resume("b", len(DATA), 1, lambda _index, _data: False)
    writer.write(DATA)
    assert (have, read_all(store, writer.commit())) == (0, DATA)
    store.delete(url)
    assert list(store.keys()) == ["b"]
    with pytest.raises(NotSupported):
        list(store.leftovers(0))


@pytest.mark.parametrize("data", [DATA, LARGE], ids=["at once", "by parts"])
def test_a_bucket_that_takes_nothing_says_why(store: S3Store, between: Proxy, data: bytes) -> None:
    """A bucket that wants something else: its words reach who uploads."""
    other = Fault(
        status=400, body=b"<Error><Code>InvalidRequest</Code><Message>no</Message></Error>"
    )
    between.set_plan(always(other, "PUT"))
    with pytest.raises(StoreUnavailable, match="400: InvalidRequest: no"):
        put_by_writer(store)("a", data)


def settings_of_bucket(lock: Fault | None, versions: Fault | None) -> Plan:
    """What the bucket says of itself."""

    def plan(request: Request) -> Fault | None:
        if "object-lock" in request.target:
            return lock
        return versions if "versioning" in request.target else None

    return plan


def test_doctor_is_told_what_deleting_will_mean(vfs: Vfs, between: Proxy) -> None:
    """Of Object Lock and of versions; through the store's policy as well."""
    store = vfs.catalog.store("s3")
    between.set_plan(settings_of_bucket(LOCKED, VERSIONED))
    lock, versions = store.advice()  # type: ignore[attr-defined]
    assert "for 30 days (compliance)" in lock
    assert "older versions" in versions


@pytest.mark.parametrize("answer", [NOT_IMPLEMENTED, DENIED, Fault(status=404), Fault(status=400)])
def test_a_bucket_that_does_not_tell_has_no_advice(
    store: S3Store, between: Proxy, answer: Fault
) -> None:
    """Most servers know neither, or do not tell everybody."""
    between.set_plan(settings_of_bucket(answer, answer))
    assert list(store.advice()) == []
