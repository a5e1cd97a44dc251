"""Glance's own driver of Ceph, in an environment of its own."""

from __future__ import annotations

import subprocess

from tests.servers.ceph import Ceph, link_bindings
from tests.servers.programs import environment

_PROGRAM = """
import io, sys
from oslo_config import cfg
import glance_store
conf = cfg.ConfigOpts()
glance_store.register_opts(conf)
pool, conf_file, user, thin, command, *names = sys.argv[1:]
conf([], project="test")
for name, value in {"stores": ["rbd"], "default_store": "rbd", "rbd_store_pool": pool,
                    "rbd_store_ceph_conf": conf_file, "rbd_store_user": user,
                    "rbd_thin_provisioning": thin == "thin"}.items():
    conf.set_override(name, value, group="glance_store")
glance_store.create_stores(conf)
if command == "add":
    for name, size in zip(names[::2], names[1::2]):
        data = sys.stdin.buffer.read()
        print(glance_store.add_to_backend(conf, name, io.BytesIO(data), int(size), "rbd")[0])
elif command == "get":
    for part in glance_store.get_from_backend(names[0])[0]:
        sys.stdout.buffer.write(part)
elif command == "delete":
    glance_store.delete_from_backend(names[0])
"""


def glance(ceph: Ceph, *command: str, data: bytes = b"", thin: bool = False) -> bytes:
    """Run one of its commands: `add NAME SIZE`, `get LOCATION` or `delete LOCATION`."""
    python = environment("glance_store", ["glance_store==5.*"]) / "python"
    link_bindings(python.parent)
    arguments = [ceph.pool, str(ceph.conf), ceph.user, "thin" if thin else "", *command]
    done = subprocess.run(
        [python, "-W", "ignore", "-c", _PROGRAM, *arguments],
        input=data,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout
