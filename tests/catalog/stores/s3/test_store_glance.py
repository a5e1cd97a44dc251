"""The s3 store and Glance's own driver, on one bucket."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from catalog.stores.s3.store import S3Store
from tests.kit.stores.contract import DATA, put_by_writer, read_all
from tests.kit.stores.s3_account import Account, leftovers, opened
from tests.servers.ceph import S3
from tests.servers.glance_s3 import glance

LARGE = random.Random(2).randbytes((20 << 20) + 7)
"""Multipart, for both."""


def with_credentials(account: Account, url: str) -> str:
    """The location as older Glances keep it."""
    scheme, _, path = url.partition("://")
    return f"{scheme}://{account.access_key}:{account.secret_key}@{path}"


@pytest.fixture(scope="module")
def account(rgw: S3, tmp_path_factory: pytest.TempPathFactory) -> Account:
    """An account of radosgw: those of Swift hold a colon, which Glance cannot parse."""
    folder = tmp_path_factory.mktemp("secrets")
    found = Account(rgw.url, rgw.access_key, rgw.secret_key, folder)
    found.make_bucket("glance")
    return found


@pytest.fixture
def store(account: Account) -> Iterator[S3Store]:
    """A store on Glance's bucket."""
    with opened(account.settings(bucket="glance", prefix="")) as found:
        yield found


@pytest.mark.parametrize("data", [DATA, LARGE], ids=["whole", "multipart"])
def test_reads_what_glance_stored(account: Account, store: S3Store, data: bytes) -> None:
    """Byte for byte, by the location that Glance keeps, of old with credentials; deletes it."""
    url = glance(account, "add", "of-glance", data).decode().strip()
    assert url == store.url_of("of-glance")
    assert read_all(store, url) == data
    assert read_all(store, with_credentials(account, url)) == data
    assert list(store.keys()) == ["of-glance"]
    store.delete(url)
    assert list(store.keys()) == []


@pytest.mark.parametrize("data", [DATA, LARGE], ids=["whole", "multipart"])
def test_glance_reads_what_we_stored(account: Account, store: S3Store, data: bytes) -> None:
    """By our location, with credentials or without; and deletes it."""
    url = put_by_writer(store)("ours", data)
    assert glance(account, "get", url) == data
    assert glance(account, "get", with_credentials(account, url)) == data
    glance(account, "delete", url)
    assert list(store.keys()) == []
    assert leftovers(store) == []
