"""`imagefs log`."""

from __future__ import annotations

import getpass
import json
import os

from tests.catalog.cli.command import DATA, SHA256, Run


def test_a_life_in_words(run: Run) -> None:
    """A line for each event, in words; the same as JSON; and by its id when it is gone."""
    run("add", "-", "--name", "a", stdin=DATA)
    run("set", "/file/a", "os_distro=debian", "visibility=private")
    run("deactivate", "/file/a")
    run("reactivate", "/file/a")
    (image,) = json.loads(run("list", "--json").stdout)
    run("delete", "/file/a")
    run("restore", image["id"])
    lines = run("log", "/file/a").stdout.splitlines()
    assert lines[0].split() == ["WHEN", "(UTC)", "WHO", "THROUGH", "HOST", "WHAT"]
    host = os.uname().nodename[:12]
    assert all(f" {getpass.getuser()} " in line for line in lines[1:])
    assert all(f"  command   {host}" in line for line in lines[1:])
    told = "\n".join(lines)
    for words in (
        "created as ",
        "upload begun",
        f"published, 1.0 MiB, sha256 {SHA256}",
        "property.os_distro=debian",
        "visibility=private",
        "deactivated",
        "reactivated",
        "deleted: in the trash",
        "restored: active",
    ):
        assert words in told
    as_json = json.loads(run("log", "--json", image["id"]).stdout)
    assert len(as_json) == len(lines) - 1
    assert as_json[0]["kind"] == "created"
    run("delete", "--now", "/file/a")
    assert "deleted for good" in run("log", image["id"]).stdout
    run("log", "00000000-0000-0000-0000-000000000000", code=4)
    run("log", "/file/none", code=4)
