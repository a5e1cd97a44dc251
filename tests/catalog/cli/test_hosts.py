"""`imagefs host`: which hosts serve the catalog."""

from __future__ import annotations

import json

from catalog.catalog import Catalog
from catalog.model.activity import ServiceKind
from catalog.process import Process
from catalog.rules import presence
from tests.catalog.cli.command import Run

FAR = Process("far", "another-boot/1", 4711, 1)


def test_hosts_are_listed_shown_and_forgotten(run: Run, catalog: Catalog) -> None:
    """With what they serve; one that is alive is forgotten only by force."""
    presence.register(catalog, FAR, ServiceKind.MOUNT, "/srv/images", "9.9")
    assert "alive     far" in run("host", "list").stdout
    assert "/srv/images" in run("host", "list").stdout
    (told,) = json.loads(run("host", "list", "--json").stdout)
    assert (told["host"], told["state"], told["serves"][0]["version"]) == ("far", "alive", "9.9")
    assert "pid 4711" in run("host", "show", "far").stdout
    assert "alive" in run("host", "forget", "far", code=5).stderr
    assert "forgot far: 0 uploads" in run("host", "forget", "--force", "far").stdout
    assert "no such host" in run("host", "show", "far", code=4).stderr
