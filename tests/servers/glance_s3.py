"""Glance's own driver of S3, in an environment of its own."""

from __future__ import annotations

import os
import subprocess

from tests.kit.stores.s3_account import Account
from tests.servers.programs import environment

_PROGRAM = """
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
    """Run one of its commands: `add`, of an image's id, `get` or `delete`, of its location."""
    python = environment("glance_store_s3", ["glance_store==5.*", "boto3"]) / "python"
    arguments = [account.endpoint, account.access_key, account.secret_key, command, name]
    done = subprocess.run(
        [python, "-W", "ignore", "-c", _PROGRAM, *arguments],
        input=data,
        capture_output=True,
        check=False,
        # Newer versions of boto3 send checksums that only AWS knows.
        env=os.environ | {"AWS_REQUEST_CHECKSUM_CALCULATION": "when_required"},
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout
