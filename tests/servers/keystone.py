"""OpenStack Keystone on loopback: tokens of v3, over SQLite.

    with keystone(folder) as identity, swift(folder2, *identity.swift_filters()) as server:
        identity.add_swift(server.url)

One process, a user `admin` who may do all, and the project `admin`.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tests.servers.programs import environment, free_ports, running

REQUIREMENTS = ("keystone==30.*", "setuptools<81", "cheroot")

_CONFIG = """
[DEFAULT]
log_file = {folder}/keystone.log
[database]
connection = sqlite:///{folder}/keystone.db
[token]
provider = fernet
[fernet_tokens]
key_repository = {folder}/fernet
[fernet_receipts]
key_repository = {folder}/fernet
[credential]
key_repository = {folder}/credential
[cache]
enabled = false
"""

# What keystone-manage does, by a child that shares what was imported, and then the server.
_PROGRAM = """
import grp, os, pwd, sys
from cheroot.wsgi import Server
from keystone.server.wsgi import initialize_public_application

folder, port = sys.argv[1:]
config = ["keystone", "--config-file", f"{folder}/keystone.conf"]
child = os.fork()
if child == 0:
    from keystone.cmd import cli
    from keystone.conf import CONF
    user, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
    owner = ["--keystone-user", user, "--keystone-group", group]
    url = f"http://127.0.0.1:{port}/v3"
    bootstrap = ["--bootstrap-password", "secret", "--bootstrap-region-id", "R1",
                 "--bootstrap-public-url", url]
    for step in (["db_sync"], ["fernet_setup", *owner], ["credential_setup", *owner],
                 ["bootstrap", *bootstrap]):
        cli.main([*config, *step])
        CONF.reset()
    os._exit(0)
if os.waitpid(child, 0)[1]:
    sys.exit("the setup failed")
sys.argv = config
Server(("127.0.0.1", int(port)), initialize_public_application(), numthreads=4).start()
"""

_READY_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Keystone:
    """A running Keystone."""

    port: int
    token: str
    """Of `user` in `project`."""
    user: str = "admin"
    key: str = "secret"
    project: str = "admin"
    region: str = "R1"

    @property
    def auth_url(self) -> str:
        """Of v3 authentication."""
        return f"http://127.0.0.1:{self.port}/v3"

    def ask(self, method: str, path: str, **body: Any) -> dict[str, Any]:
        """Send a request to the Identity API; return the answer's JSON."""
        headers = {"X-Auth-Token": self.token, "Content-Type": "application/json"}
        return ask_json(self.auth_url + path, method, headers, body)[1]

    def add_service(self, kind: str, url: str) -> None:
        """Tell of a service; `$(project_id)s` in its URL stands for the project's id."""
        service = self.ask("POST", "/services", service={"type": kind, "name": kind})
        endpoint = {
            "service_id": service["service"]["id"],
            "interface": "public",
            "region_id": self.region,
            "url": url,
        }
        self.ask("POST", "/endpoints", endpoint=endpoint)

    def add_swift(self, url: str) -> None:
        """Tell of a Swift whose account of a project is `URL/v1/AUTH_PROJECT`."""
        self.add_service("object-store", f"{url}/v1/AUTH_$(project_id)s")

    def add_member(self, user: str, key: str, project: str) -> str:
        """Make a project and a user who is a plain member of it; return the project's id."""
        place = self.ask("POST", "/projects", project={"name": project})["project"]["id"]
        member = self.ask("POST", "/users", user={"name": user, "password": key})["user"]["id"]
        role = self.ask("GET", "/roles?name=member")["roles"][0]["id"]
        self.ask("PUT", f"/projects/{place}/users/{member}/roles/{role}")
        return str(place)

    def application_credential(self) -> tuple[str, str]:
        """Make one of the user in the project; return its id and its secret."""
        user = self.ask("GET", f"/users?name={self.user}")["users"][0]["id"]
        asked = {"name": "images", "roles": [{"name": "admin"}]}
        answer = self.ask(
            "POST", f"/users/{user}/application_credentials", application_credential=asked
        )
        credential = answer["application_credential"]
        return credential["id"], credential["secret"]

    def token_of(self, user: str, key: str, project: str) -> str:
        """A token of somebody else."""
        return _token(self.port, user, key, project)

    def revoke(self, token: str) -> None:
        """Make a token invalid; who has validated it may keep that in a cache."""
        headers = {"X-Auth-Token": self.token, "X-Subject-Token": token}
        ask_json(f"{self.auth_url}/auth/tokens", "DELETE", headers, {})

    def swift_filters(self) -> tuple[str, str]:
        """The arguments `auth` and `more` of `swift` that make it ask this Keystone."""
        return "authtoken keystoneauth", _FILTERS.format(
            url=self.auth_url, user=self.user, key=self.key, project=self.project
        )


_FILTERS = """
[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
www_authenticate_uri = {url}
auth_url = {url}
auth_type = password
username = {user}
password = {key}
project_name = {project}
user_domain_id = default
project_domain_id = default
interface = public
delay_auth_decision = true
cache = swift.cache
[filter:keystoneauth]
use = egg:swift#keystoneauth
operator_roles = admin
"""


@contextmanager
def keystone(folder: Path) -> Iterator[Keystone]:
    """Run Keystone in `folder`."""
    programs = environment("keystone", REQUIREMENTS)
    (folder / "keystone.conf").write_text(_CONFIG.format(folder=folder))
    for name in ("fernet", "credential"):
        (folder / name).mkdir(mode=0o700)
    (port,) = free_ports(1)
    command = [str(programs / "python"), "-c", _PROGRAM, str(folder), str(port)]
    log = folder / "output.log"
    with running(command, log) as process:
        _wait_ready(f"http://127.0.0.1:{port}/v3", process, log)
        yield Keystone(port, _token(port, "admin", "secret", "admin"))


def _wait_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(_READY_SECONDS * 20):
        if process.poll() is not None:
            break
        with suppress(OSError), urlopen(url, timeout=5):
            return
        time.sleep(0.05)
    raise RuntimeError(f"Keystone does not answer: see {log} and keystone.log beside it")


def _token(port: int, user: str, key: str, project: str) -> str:
    domain = {"id": "default"}
    password = {"user": {"name": user, "domain": domain, "password": key}}
    identity = {"methods": ["password"], "password": password}
    scope = {"project": {"name": project, "domain": domain}}
    url = f"http://127.0.0.1:{port}/v3/auth/tokens"
    headers = {"Content-Type": "application/json"}
    body = {"auth": {"identity": identity, "scope": scope}}
    return ask_json(url, "POST", headers, body)[0]["X-Subject-Token"]


def ask_json(
    url: str, method: str, headers: dict[str, str], body: dict[str, Any]
) -> tuple[Message, dict[str, Any]]:
    """Send a request; return the answer's headers and its JSON.  Raises RuntimeError."""
    data = json.dumps(body).encode() if body else None
    try:
        with urlopen(Request(url, data, headers, method=method), timeout=30) as answer:
            return answer.headers, json.loads(answer.read() or "{}")
    except HTTPError as error:
        raise RuntimeError(f"{method} {url}: {error.code} {error.read()!r}") from error
