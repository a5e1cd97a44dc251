"""docs/webdav.md: each example is run, and its tables are those of the program."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from catalog.rules.locks import DEFAULT_TIMEOUT, MAX_TIMEOUT
from tests.docs import console
from tests.kit.daemon import Daemon
from tests.kit.service import service
from web.exchange import conditions
from web.exchange.errors import STATUS
from web.exchange.limits import DEFAULT_LIMITS, KIB, MIB

pytestmark = pytest.mark.server

PAGE = Path(__file__).parents[2] / "docs/webdav.md"


def test_examples(tmp_path: Path) -> None:
    """Every command prints what the page says it prints."""
    work = tmp_path / "work"
    work.mkdir()
    catalog = Daemon(tmp_path / "host")
    with service(catalog) as running:
        environ = {
            "PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin",
            "IMAGEFS_CONFIG": str(catalog.config),
            "IMAGEFS_STATE": str(catalog.state),
            "URL": running.url,
            "LC_ALL": "C.UTF-8",
        }
        console.check(PAGE.read_text(), work, environ)


def test_every_status_is_explained() -> None:
    """The table of status codes has each that a catalog error becomes."""
    explained = {
        int(code) for code in re.findall(r"^\| (\d{3}) \|", _section("Status codes"), re.M)
    }
    assert {int(status) for status in STATUS.values()} <= explained


def test_limits_are_those_of_the_server() -> None:
    """The table of limits tells what the server is made with."""
    limits = DEFAULT_LIMITS
    told = re.findall(r"^\| [^|]+ \| ([^|]+) \| [^|]+ \|$", _section("Limits"), re.M)[1:]
    assert told == [
        f"{limits.request_line // KIB} KiB",
        f"{limits.header_fields}, {limits.header_block // KIB} KiB together",
        f"{limits.read_body // MIB} MiB",
        str(conditions.MAX_RANGES),
        f"{limits.header_seconds:g} s",
        f"{limits.idle_seconds:g} s",
        f"{limits.transfer_seconds} s",
        f"{limits.least_rate} bytes/s",
        f"{limits.connections:,}; of one client {limits.connections_of_one},"
        " idle ones and those with half a head included",
        f"{limits.workers}; of one client {limits.workers_of_one}",
    ]


def test_locks_last_as_told() -> None:
    """The times of locks are the catalog's."""
    told = re.findall(r"\ban? (hour|day)", _section("Locks"))
    seconds = {"hour": 3600, "day": 86_400}
    assert [seconds[unit] for unit in told] == [DEFAULT_TIMEOUT, MAX_TIMEOUT]


def _section(title: str) -> str:
    return PAGE.read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]
