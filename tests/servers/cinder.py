"""OpenStack Cinder on loopback, with its volumes in Ceph and its users in Keystone.

    with cinder(folder, cluster) as server:
        ... server.identity.auth_url, server.user, server.key, server.project ...

The API, the scheduler and the volume service, each a single process, over RabbitMQ and
SQLite.  The volumes are in a pool of their own, of a Ceph user of its own.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

from tests.servers.ceph import Ceph, link_bindings
from tests.servers.keystone import Keystone, ask_json, keystone
from tests.servers.programs import environment, free_ports, running, wait_for_port
from tests.servers.rabbitmq import rabbitmq

# With the driver by which Glance keeps images there.
REQUIREMENTS = ("cinder==29.*", "glance_store[cinder]==5.*", "setuptools<81")

POOL = "volumes"
CEPH_USER = "cinder"
PROJECT = "images"
USER = "imagefs"
KEY = "member-secret"

_CONFIG = """
[DEFAULT]
transport_url = {rabbit}
auth_strategy = keystone
enabled_backends = ceph
state_path = {folder}/state
my_ip = 127.0.0.1
host = tests
osapi_volume_listen = 127.0.0.1
osapi_volume_listen_port = {port}
osapi_volume_workers = 1
api_paste_config = {etc}/api-paste.ini
rootwrap_config = {etc}/rootwrap.conf
resource_query_filters_file = {etc}/resource_filters.json
# Less often at work in SQLite, where one writer at a time gets through.
report_interval = 300
service_down_time = 3600
periodic_interval = 300
[database]
connection = sqlite:///{folder}/cinder.db?timeout=60
sqlite_synchronous = false
[oslo_concurrency]
lock_path = {folder}/lock
[coordination]
backend_url = file://{folder}/state
[keystone_authtoken]
auth_url = {identity.auth_url}
www_authenticate_uri = {identity.auth_url}
auth_type = password
username = {identity.user}
password = {identity.key}
project_name = {identity.project}
user_domain_id = default
project_domain_id = default
interface = public

[ceph]
volume_driver = cinder.volume.drivers.rbd.RBDDriver
volume_backend_name = ceph
rbd_pool = {pool}
rbd_ceph_conf = {ceph.conf}
rbd_user = {user}
rados_connect_timeout = 5
# A volume that is open is refused at once, not after half a minute.
rados_connection_retries = 1
rados_connection_interval = 1
"""

# SQLite refuses one of two that have read and then want to write: each has its turn before it
# reads, as in the databases that Cinder is made for.
_PROGRAM = """
import sys
from cinder.cmd.{name} import main
from sqlalchemy import Engine, event

@event.listens_for(Engine, "before_cursor_execute", retval=True)
def take_turns(connection, cursor, statement, parameters, context, many):
    return ("BEGIN IMMEDIATE" if statement == "BEGIN" else statement), parameters

sys.exit(main())
"""

_READY_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Cinder:
    """A running Cinder, and what it stands on."""

    folder: Path
    """`*.log` of each process are in it."""
    port: int
    """Of the API."""
    ceph: Ceph
    identity: Keystone
    project_id: str
    volume_pid: int
    """Of the service that makes and removes volumes: the parent of those who do."""
    project: str = PROJECT
    user: str = USER
    """An ordinary member of the project."""
    key: str = KEY

    @property
    def url(self) -> str:
        """Of the API, for the project."""
        return f"http://127.0.0.1:{self.port}/v3/{self.project_id}"

    def volume_pids(self) -> list[int]:
        """The processes that make and remove volumes."""
        children = Path(f"/proc/{self.volume_pid}/task/{self.volume_pid}/children")
        return [int(each) for each in children.read_text().split()]

    def ask(self, method: str, path: str, **body: Any) -> dict[str, Any]:
        """Send a request as the administrator of the cloud; return the answer's JSON."""
        return self._ask(self.identity.token, method, path, body)

    def volumes(self) -> list[dict[str, Any]]:
        """All volumes, with details."""
        return list(self.ask("GET", "/volumes/detail?all_tenants=1")["volumes"])

    def make_volume(self, status: str = "available", **asked: Any) -> str:
        """Make a volume of the project as another program does; return its id."""
        volume = self._ask_as_member("POST", "/volumes", volume=asked)["volume"]
        assert self.settled(volume["id"]) == status
        return str(volume["id"])

    def attach(self, volume: str, host: str) -> str:
        """Attach a volume to a host; return the attachment's id."""
        asked = {"volume_uuid": volume, "connector": {"host": host}, "mode": "ro"}
        made = self._ask_as_member("POST", "/attachments", attachment=asked)["attachment"]
        self._ask_as_member("POST", f"/attachments/{made['id']}/action", **{"os-complete": {}})
        return str(made["id"])

    def detach(self, attachment: str) -> None:
        """End an attachment."""
        self.ask("DELETE", f"/attachments/{attachment}")

    def act(self, volume: str, action: str, **parameters: Any) -> None:
        """Do something with a volume as the administrator."""
        self.ask("POST", f"/volumes/{volume}/action", **{action: parameters})

    def settled(self, volume: str) -> str:
        """The status of a volume, once Cinder is through with what it does to it."""
        deadline = time.monotonic() + _READY_SECONDS
        while True:
            status = str(self.ask("GET", f"/volumes/{volume}")["volume"]["status"])
            if status in ("available", "in-use") or status.startswith("error"):
                return status
            if time.monotonic() > deadline:
                raise TimeoutError(f"{volume} is {status}")
            time.sleep(0.05)

    def gone(self, volume: str) -> None:
        """Wait until a volume that is being deleted is gone."""
        deadline = time.monotonic() + _READY_SECONDS
        while any(each["id"] == volume for each in self.volumes()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{volume} is not deleted")
            time.sleep(0.05)

    def volume_type(self, **specs: str) -> str:
        """Make a type of volumes with these extra specifications; return its name."""
        name = f"type-{token_hex(4)}"
        self.ask("POST", "/types", volume_type={"name": name, "extra_specs": specs})
        return name

    @contextmanager
    def quota(self, **limits: int) -> Iterator[None]:
        """Limit the project: `gigabytes`, `volumes`, `per_volume_gigabytes`; -1 for no limit."""
        path = f"/os-quota-sets/{self.project_id}"
        before = self.ask("GET", path)["quota_set"]
        self.ask("PUT", path, quota_set=limits)
        try:
            yield
        finally:
            self.ask("PUT", path, quota_set={name: before[name] for name in limits})

    def used(self, name: str) -> int:
        """What the project has used up of a quota, as Cinder counts it."""
        path = f"/os-quota-sets/{self.project_id}?usage=True"
        counted = self.ask("GET", path)["quota_set"][name]
        return int(counted["in_use"]) + int(counted["reserved"])

    def empty(self) -> None:
        """Remove all volumes, whatever they are used for; one by one, as SQLite likes it."""
        deadline = time.monotonic() + _READY_SECONDS
        while volumes := self.volumes():
            self._force_delete(volumes[0]["id"])
            if time.monotonic() > deadline:
                raise TimeoutError(f"not deleted: {volumes}")

    def _force_delete(self, volume: str) -> None:
        with suppress(RuntimeError):  # It is gone, or being deleted.
            attachments = self.ask("GET", f"/attachments?volume_id={volume}&all_tenants=1")
            for each in attachments["attachments"]:
                self.detach(each["id"])
            self.act(volume, "os-force_delete")
        self.gone(volume)

    def _ask_as_member(self, method: str, path: str, **body: Any) -> dict[str, Any]:
        token = self.identity.token_of(self.user, self.key, self.project)
        return self._ask(token, method, path, body)

    def _ask(self, token: str, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        headers = {
            "X-Auth-Token": token,
            "Content-Type": "application/json",
            # Of 3.67: a path without a project.
            "OpenStack-API-Version": "volume 3.67",
        }
        return ask_json(f"http://127.0.0.1:{self.port}/v3{path}", method, headers, body)[1]


@contextmanager
def cinder(folder: Path, cluster: Ceph) -> Iterator[Cinder]:
    """Run Cinder in `folder` over a cluster; volumes can be made when this returns."""
    programs = environment("cinder", REQUIREMENTS)
    link_bindings(programs)
    for name in ("state", "lock", "rabbitmq", "keystone"):
        (folder / name).mkdir()
    _make_pool(cluster)
    (port,) = free_ports(1)
    with ExitStack() as servers:
        identity = servers.enter_context(keystone(folder / "keystone"))
        (folder / "cinder.conf").write_text(
            _CONFIG.format(
                ceph=cluster,
                etc=programs.parent / "etc" / "cinder",
                folder=folder,
                identity=identity,
                pool=POOL,
                port=port,
                rabbit=servers.enter_context(rabbitmq(folder / "rabbitmq")),
                user=CEPH_USER,
            )
        )
        _prepare_database(programs, folder)
        services = {
            name: servers.enter_context(_service(programs, folder, name))
            for name in ("volume", "scheduler", "api")
        }
        wait_for_port(port, services["api"], folder / "api.out", seconds=_READY_SECONDS)
        url = f"http://127.0.0.1:{port}/v3/$(project_id)s"
        identity.add_service("block-storage", url)
        project_id = identity.add_member(USER, KEY, PROJECT)
        server = Cinder(folder, port, cluster, identity, project_id, services["volume"].pid)
        _wait_for_services(server)
        yield server


def _make_pool(cluster: Ceph) -> None:
    cluster.run("ceph", "osd", "pool", "create", POOL, "4")
    cluster.run("rbd", "pool", "init", POOL)
    profile = f"profile rbd pool={POOL}"
    caps = ["mon", "profile rbd", "mgr", profile, "osd", profile]
    key = cluster.run("ceph", "auth", "get-or-create", f"client.{CEPH_USER}", *caps)
    with (cluster.folder / "keyring").open("a") as keyring:
        keyring.write(key)


def _prepare_database(programs: Path, folder: Path) -> None:
    command = [*_command(programs, folder, "manage"), "db", "sync"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"cinder-manage failed: {done.stderr}")


@contextmanager
def _service(programs: Path, folder: Path, name: str) -> Iterator[subprocess.Popen[bytes]]:
    with running(_command(programs, folder, name), folder / f"{name}.out") as process:
        yield process


def _command(programs: Path, folder: Path, name: str) -> list[str]:
    """What runs one of Cinder's programs: api, manage, scheduler, volume."""
    config = ["--config-file", str(folder / "cinder.conf")]
    return [str(programs / "python"), "-c", _PROGRAM.format(name=name), *config]


def _wait_for_services(server: Cinder) -> None:
    """Wait until a volume can be placed: the scheduler has heard of the volume service."""
    deadline = time.monotonic() + _READY_SECONDS
    while not server.ask("GET", "/scheduler-stats/get_pools")["pools"]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"Cinder knows of no pool: see {server.folder}/cinder-volume.log")
        time.sleep(0.1)
