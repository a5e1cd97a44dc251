"""PostgreSQL and MariaDB on loopback, each with as many databases as a test wants.

    with postgresql(folder) as server:
        url = server.database("first")

Nothing of theirs has to survive a power failure.
Both end by their process ids.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pymysql

from tests.servers.programs import free_ports, program, running, wait_for_port

_KEPT = 8
"""Databases of one server that stay, when a test asks for another one."""


@dataclass
class DatabaseServer:
    """One running server."""

    kind: str
    port: int
    process: subprocess.Popen[bytes]
    execute: Callable[..., None]
    """Run statements on the server, or on the database whose name comes first."""
    _names: list[str] = field(default_factory=list)

    def url(self, name: str) -> str:
        """The url of a database that exists."""
        driver = {"postgresql": "postgresql+psycopg", "mariadb": "mysql+pymysql"}[self.kind]
        user = {"postgresql": "postgres", "mariadb": "root"}[self.kind]
        return f"{driver}://{user}@127.0.0.1:{self.port}/{name}"

    def database(self, name: str, template: str | None = None) -> str:
        """The url of a database, which is made if it is not there; others of long ago go."""
        if name not in self._names:
            self._names.append(name)
            like = f" TEMPLATE {template}" if template and self.kind == "postgresql" else ""
            self.execute(None, f"CREATE DATABASE {name}{like}")
        while len(self._names) > _KEPT:
            self.drop(self._names[0])
        return self.url(name)

    def drop(self, name: str) -> None:
        """Drop a database, whoever uses it."""
        self._names.remove(name)
        force = " WITH (FORCE)" if self.kind == "postgresql" else ""
        self.execute(None, f"DROP DATABASE IF EXISTS {name}{force}")


@contextmanager
def home() -> Iterator[Path]:
    """A folder for servers, in memory where there is some.

    PostgreSQL runs as another user, who may not look into the folders of the tests.
    """
    memory = Path("/dev/shm")
    with TemporaryDirectory(
        prefix="imagefs-test-",
        dir=memory if memory.is_dir() else None,
        ignore_cleanup_errors=True,
    ) as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


@contextmanager
def postgresql(
    folder: Path, port: int | None = None, network: int | None = None
) -> Iterator[DatabaseServer]:
    """Run a PostgreSQL with its data in `folder`, which is kept for the next one there.

    `network` is a process: the server listens on all addresses of that one's network, and this
    process reaches it by a socket in `folder`.
    """
    programs = _postgresql_programs()
    port = free_ports(1)[0] if port is None else port
    data = folder / "data"
    if not data.exists():
        folder.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
        made = [str(programs / "initdb"), "-D", str(data), "-A", "trust", "-U", "postgres", "-N"]
        made += ["-E", "UTF8", "--locale=C.UTF-8"]
        subprocess.run(_as_postgres(made), check=True, stdout=subprocess.DEVNULL, cwd="/")
        with (data / "pg_hba.conf").open("a") as access:
            access.write("host all all samenet trust\n")
    values = {
        "listen_addresses": "127.0.0.1" if network is None else "*",
        "unix_socket_directories": "" if network is None else str(folder),
        "max_connections": "200",
        "fsync": "off",
        "autovacuum": "off",
        "shared_buffers": "32MB",
    }
    command = [str(programs / "postgres"), "-D", str(data), "-p", str(port)]
    for name, value in values.items():
        command += ["-c", f"{name}={value}"]
    log = folder / "log"

    def execute(database: str | None, *statements: str) -> None:
        host = "127.0.0.1" if network is None else folder
        where = f"host={host} port={port} user=postgres dbname={database or 'postgres'}"
        with psycopg.connect(where, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    there = [] if network is None else ["nsenter", "--net", f"--target={network}", "--"]
    with running([*there, *_as_postgres(command)], log) as process:
        if network is None:
            wait_for_port(port, process, log)
        # It listens before it has read its journal, and answers nobody until then.
        while True:
            if process.poll() is not None:
                raise RuntimeError(f"PostgreSQL is not up: {log.read_text()}")
            try:
                execute(None)
                break
            except psycopg.OperationalError:
                time.sleep(0.05)
        try:
            yield DatabaseServer("postgresql", port, process, execute)
        finally:
            process.send_signal(signal.SIGINT)  # fast: whoever is connected is cut off


@contextmanager
def mariadb(folder: Path, port: int | None = None) -> Iterator[DatabaseServer]:
    """Run a MariaDB with its data in `folder`, which is kept for the next one there."""
    daemon = program("mariadbd", "mariadb-server")
    install = program("mariadb-install-db", "mariadb-server")
    port = free_ports(1)[0] if port is None else port
    data = folder / "data"
    if not data.exists():
        folder.mkdir(parents=True, exist_ok=True)
        made = ["--no-defaults", "--user=root", f"--datadir={data}", "--skip-test-db"]
        made += ["--auth-root-authentication-method=normal"]
        subprocess.run([install, *made], check=True, stdout=subprocess.DEVNULL)
    log = folder / "log"
    command = [
        daemon,
        "--no-defaults",
        "--user=root",
        f"--datadir={data}",
        f"--socket={folder / 'socket'}",
        "--bind-address=127.0.0.1",
        f"--port={port}",
        f"--pid-file={folder / 'pid'}",
        "--innodb-flush-log-at-trx-commit=2",
        "--innodb-buffer-pool-size=64M",
        "--max-connections=200",
    ]

    def execute(database: str | None, *statements: str) -> None:
        connection = pymysql.connect(
            host="127.0.0.1", port=port, user="root", database=database, autocommit=True
        )
        with connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    with running(command, log) as process:
        wait_for_port(port, process, log)
        yield DatabaseServer("mariadb", port, process, execute)


STARTS = {"postgresql": postgresql, "mariadb": mariadb}
"""Kind of database -> what runs one."""


def _postgresql_programs() -> Path:
    """Debian has them aside, a folder for each version."""
    there = Path("/usr/lib/postgresql")
    if not there.exists():
        program("pg_ctl", "postgresql")
    newest = max(there.iterdir(), key=lambda each: int(each.name))
    return newest / "bin"


def _as_postgres(command: list[str]) -> list[str]:
    """PostgreSQL does not run as root."""
    if os.geteuid() != 0:
        return command
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *command]
