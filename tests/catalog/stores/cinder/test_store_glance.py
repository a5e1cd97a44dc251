"""Images that a Glance keeps in Cinder, by its own driver: glance_store with os-brick."""

from __future__ import annotations

import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.errors import NotFound
from catalog.stores.base import Stat
from catalog.stores.cinder.store import CinderStore
from tests.kit.stores.cinder_project import cinder_store
from tests.kit.stores.contract import DATA, put_by_writer, read_all
from tests.servers.cinder import REQUIREMENTS, Cinder
from tests.servers.programs import environment

PROGRAM = """
import io, sys
from types import SimpleNamespace
import glance_store
import os_brick.privileged
from oslo_config import cfg

# We are root already: no helper by way of sudo.
os_brick.privileged.default.set_client_mode(False)
auth_url, user, key, project, locks, command, *arguments = sys.argv[1:]
conf = cfg.ConfigOpts()
glance_store.register_opts(conf)
conf([], project="test")
for name, value in {"stores": ["cinder"], "default_store": "cinder",
                    "cinder_store_auth_address": auth_url, "cinder_store_user_name": user,
                    "cinder_store_password": key, "cinder_store_project_name": project,
                    "cinder_store_user_domain_name": "Default",
                    "cinder_store_project_domain_name": "Default"}.items():
    conf.set_override(name, value, group="glance_store")
from oslo_concurrency import lockutils
lockutils.set_defaults(locks)
glance_store.create_stores(conf)
context = SimpleNamespace(project_id="owner", user_id=user, service_catalog=None)
if command == "add":
    image, size = arguments
    data = io.BytesIO(sys.stdin.buffer.read())
    print(glance_store.add_to_backend(conf, image, data, int(size), "cinder", context=context)[0])
elif command == "get":
    for part in glance_store.get_from_backend(arguments[0], context=context)[0]:
        sys.stdout.buffer.write(part)
elif command == "delete":
    glance_store.delete_from_backend(arguments[0], context=context)
"""


@pytest.fixture
def store(cinder: Cinder, tmp_path: Path) -> Iterator[CinderStore]:
    """A store in an empty project."""
    with cinder_store(cinder, tmp_path) as store:
        yield store


def _glance(cinder: Cinder, folder: Path, *command: str, data: bytes = b"") -> bytes:
    """Use Glance's driver, with the cluster's keyring where os-brick looks for it."""
    etc = folder / "etc-ceph"
    etc.mkdir(exist_ok=True)
    shutil.copy(cinder.ceph.folder / "keyring", etc / "ceph.client.cinder.keyring")
    python = environment("cinder", REQUIREMENTS) / "python"
    account = [cinder.identity.auth_url, cinder.user, cinder.key, cinder.project, str(folder)]
    mount = f'mount --bind {etc} /etc/ceph && exec "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mount, "sh"]
        + [str(python), "-W", "ignore", "-c", PROGRAM, *account, *command],
        input=data,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.mark.parametrize("known", [True, False])
def test_reads_what_glance_stored(
    store: CinderStore, cinder: Cinder, tmp_path: Path, known: bool
) -> None:
    """Byte for byte, by the location that Glance keeps; and deletes it."""
    image = str(uuid.uuid4())
    size = str(len(DATA) if known else 0)
    url = _glance(cinder, tmp_path, "add", image, size, data=DATA).decode().strip()
    (volume,) = cinder.volumes()
    assert url == f"cinder://{volume['id']}"
    assert read_all(store, url) == DATA
    assert store.stat(url) == Stat(len(DATA), volume["id"])
    store.delete(url)
    assert cinder.volumes() == []
    with pytest.raises(NotFound):
        store.open(url)


def test_glance_reads_what_we_stored(store: CinderStore, cinder: Cinder, tmp_path: Path) -> None:
    """By the volume's id; and deletes it."""
    url = put_by_writer(store)(str(uuid.uuid4()), DATA)
    (volume,) = cinder.volumes()
    location = f"cinder://{volume['id']}"
    assert _glance(cinder, tmp_path, "get", location) == DATA
    _glance(cinder, tmp_path, "delete", location)
    cinder.gone(volume["id"])
    with pytest.raises(NotFound):
        store.open(url)
