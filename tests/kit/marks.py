"""What a test needs besides Python, told by its fixtures: the marks `mount`, `server`, `stress`.

A test is marked by the types its fixtures return, however the fixtures are called.  A test that
starts a mount or a server by itself marks itself; `check_marked` holds it to that.  `make fast`
runs what has none of the three.
"""

from __future__ import annotations

import re
import unittest

import pytest

MOUNT, SERVER, STRESS = ALL = ("mount", "server", "stress")

_OF_TYPE = {
    "Account": SERVER,
    "Chrome": SERVER,
    "Ceph": SERVER,
    "Cinder": SERVER,
    "Daemon": MOUNT,
    "DatabaseServer": SERVER,
    "Debian": STRESS,
    "Fleet": STRESS,
    "Keystone": SERVER,
    "Kill": STRESS,
    "Libvirt": SERVER,
    "Process": STRESS,
    "Proxy": SERVER,
    "S3": SERVER,
    "Service": SERVER,
    "HangingMount": MOUNT,
    "Swift": SERVER,
    "VmwareStore": SERVER,
    "WebServer": SERVER,
}
"""What a fixture starts that returns one of these."""

_current: list[pytest.Item] = []
"""The test that runs now, at most one."""


def mark(item: pytest.Item) -> None:
    """Give a test the marks of what its fixtures start."""
    for name in marks_of(item):
        item.add_marker(name)


def marks_of(item: pytest.Item) -> set[str]:
    """The marks of what the fixtures of a test start; state machines are stress as well."""
    found = {_OF_TYPE[word] for word in _fixture_types(item) if word in _OF_TYPE}
    is_machine = isinstance(cls := getattr(item, "cls", None), type) and issubclass(
        cls, unittest.TestCase
    )
    if is_machine or item.path.name.startswith("bench_"):
        found.add(STRESS)
    return found


def _fixture_types(item: pytest.Item) -> set[str]:
    """The words of what the fixtures return, as it is written there."""
    used = item._fixtureinfo.name2fixturedefs.values() if isinstance(item, pytest.Function) else ()
    # The last of a name is the one that the test gets; it may ask for the others.
    returned = [str(each.func.__annotations__.get("return")) for found in used for each in found]
    return {word for text in returned for word in re.findall(r"\w+", text)}


def begin(item: pytest.Item) -> None:
    """Note which test runs now."""
    _current[:] = [item]


def check_marked(what: str) -> None:
    """Fail a test that starts `what` and is in nobody's way: it would be part of `make fast`."""
    for item in _current:
        marked = any(item.get_closest_marker(name) for name in ALL)
        assert marked, f"starts {what}: mark it @pytest.mark.server, mount or stress"
