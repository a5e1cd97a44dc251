"""The s3 store and Glance's own driver, on one bucket."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator

import pytest

from catalog.stores.s3.store import S3Store
from tests.kit.stores.contract import DATA, put_by_writer, read_all
from tests.kit.stores.s3_account import Account, leftovers, opened
from tests.servers.ceph import S3
from tests.servers.programs import environment

LARGE = random.Random(2).randbytes((20 << 20) + 7)
"""Multipart, for both."""

GLANCE = """
import io, sys
from oslo_config import cfg
import glance_store
conf = cfg.ConfigOpts()
glance_store.register_opts(conf)
host, access, secret, command, name = sys.argv[1:]
conf([], project="test")
for option, value in {"stores": ["s3"], "default_store": "s3", "s3_store_host": host,
                      "s3_store_access_key": access, "s3_store_secret_key": secret,
                      "s3_store_bucket": "glance", "s3_store_bucket_url_format": "path",
                      "s3_store_region_name": "us-east-1",
                      "s3_store_large_object_size": 5,
                      "s3_store_large_object_chunk_size": 5}.items():
    conf.set_override(option, value, group="glance_store")
glance_store.create_stores(conf)
if command == "add":
    data = sys.stdin.buffer.read()
    file = io.BytesIO(data)
    add = glance_store.add_to_backend_with_multihash
    print(add(conf, name, file, len(data), "sha256", "s3")[0])
elif command == "get":
    for part in glance_store.get_from_backend(name)[0]:
        sys.stdout.buffer.write(part)
elif command == "delete":
    glance_store.delete_from_backend(name)
"""


def glance(account: Account, command: str, name: str, data: bytes = b"") -> bytes:
    """Use Glance's own driver, in an environment of its own."""
    python = environment("glance_store_s3", ["glance_store==5.*", "boto3"]) / "python"
    arguments = [account.endpoint, account.access_key, account.secret_key, command, name]
    done = subprocess.run(
        [python, "-W", "ignore", "-c", GLANCE, *arguments],
        input=data,
        capture_output=True,
        check=False,
        # Newer versions of boto3 send checksums that only AWS knows.
        env=os.environ | {"AWS_REQUEST_CHECKSUM_CALCULATION": "when_required"},
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


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
