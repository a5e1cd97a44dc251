"""A real mount and a real server are watched: their metrics, and Grafana's dashboard of them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.kit.daemon import Daemon, wait_until
from tests.kit.service import Service, service

DASHBOARD = Path(__file__).parents[2] / "packaging/grafana/imagefs.json"


class Watched:
    """A mount and a server of one catalog; each is found by the file that it writes."""

    def __init__(self, mount: Daemon, server: Service) -> None:
        self.mount = mount
        self.server = server

    def text(self, kind: str) -> str:
        """The metrics of the mount, `mount`, or of the server, `dav`."""
        for file in (self.mount.state / "monitoring").iterdir():
            (found,) = json.loads(file.read_text())
            if found["labels"]["service"] == kind:
                with urlopen(f"http://{found['targets'][0]}/metrics", timeout=30) as answer:
                    return str(answer.read().decode())
        raise AssertionError(f"no {kind} is monitored")

    def value(self, kind: str, name: str) -> float:
        """One metric, with its labels; 0 if it is not there yet."""
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.text(kind), re.M)
        return float(found[1]) if found else 0.0


_ANY_PORT = 'metrics = "127.0.0.1:0"\n'


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Both processes, monitored."""
    state = tmp_path_factory.mktemp("watched")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMAGEFS_STATE", str(state))
        daemon = Daemon(state, sections=f"[dav]\n{_ANY_PORT}", mount=_ANY_PORT)
        with daemon.mounted(), service(daemon) as server:
            yield Watched(daemon, server)


pytestmark = pytest.mark.mount


def test_requests_of_the_kernel(watched: Watched) -> None:
    """By operation; errors by errno; the bytes that were read and written."""
    written = watched.value("mount", "imagefs_fuse_written_bytes_total")
    path = watched.mount.path / "file/a"
    path.write_bytes(b"x" * 1_000_000)
    with pytest.raises(FileNotFoundError):
        (watched.mount.path / "file/none").stat()
    assert path.read_bytes() == b"x" * 1_000_000
    value = watched.value
    assert value("mount", "imagefs_fuse_written_bytes_total") - written == 1_000_000
    assert value("mount", "imagefs_fuse_read_bytes_total") >= 1_000_000
    assert value("mount", 'imagefs_fuse_request_seconds_count{operation="create"}') == 1
    assert value("mount", 'imagefs_fuse_errors_total{errno="ENOENT",operation="lookup"}') >= 1
    assert value("mount", "imagefs_loop_late_seconds_count") > 0


def test_requests_over_http(watched: Watched) -> None:
    """By method and status, with the bytes of the bodies; a method that nobody knows is other."""
    assert watched.server.ask("PUT /file/b", body=b"y" * 100_000).status == 201
    assert watched.server.ask("GET /file/b").body == b"y" * 100_000
    assert watched.server.ask("BREW /file/b").status == 405
    counted = 'imagefs_http_responses_total{method="other",status="405"}'
    wait_until(lambda: watched.value("dav", counted) == 1, "all are counted")
    value = watched.value
    assert value("dav", 'imagefs_http_responses_total{method="PUT",status="201"}') == 1
    assert value("dav", "imagefs_http_received_bytes_total") == 100_000
    assert value("dav", "imagefs_http_sent_bytes_total") >= 100_000


def test_an_upload_in_progress(watched: Watched) -> None:
    """It is counted while its file is open, with its age."""
    with (watched.mount.path / "file/c").open("wb") as file:
        file.write(b"data")
        file.flush()
        wait_until(
            lambda: watched.value("mount", "imagefs_uploads_in_progress") == 1, "it is counted"
        )
        wait_until(
            lambda: watched.value("mount", "imagefs_uploads_oldest_seconds") > 0, "it has an age"
        )
    wait_until(lambda: watched.value("mount", "imagefs_uploads_in_progress") == 0, "it has ended")


def test_top(watched: Watched) -> None:
    """The programs that have an image open, an upload with its rate, and both processes."""
    path = watched.mount.path / "file/d"
    path.write_bytes(b"data" * 1000)
    me = f"(pid {os.getpid()})"
    with path.open("rb"), (watched.mount.path / "file/e").open("wb", buffering=0) as file:

        def is_shown() -> bool:
            file.write(b"x" * 100_000)
            found = watched.mount.command("top", "--once", "--json", "--interval", "0.2")
            uploads = {each["path"]: each for each in found["uploads"]}
            return (
                {each["service"] for each in found["processes"]} == {"mount", "dav"}
                and uploads["/file/e"]["staged"] >= 100_000
                and uploads["/file/e"]["rate"] is not None
                and any(it["path"] == "/file/d" and me in it["user"] for it in found["uses"])
            )

        wait_until(is_shown, "all of it is shown")
        told = watched.mount.command("top", "--once", "--interval", "0.1")
    for text in ("/file/d", "/file/e", "dav", f"mount {watched.mount.path}", me):
        assert text in told


def test_the_dashboard_shows_what_there_is(watched: Watched) -> None:
    """Each metric that it names is exported by one of the processes."""
    exported = set()
    for kind in ("mount", "dav"):
        for name, type_ in re.findall(r"^# TYPE (\w+) (\w+)$", watched.text(kind), re.M):
            suffixes = ("_count", "_sum", "_bucket") if type_ == "histogram" else ("",)
            exported |= {name + suffix for suffix in suffixes}
    named = {
        name
        for expression in _expressions(json.loads(DASHBOARD.read_text()))
        for name in re.findall(r"\b(?:imagefs|process)_\w+", expression)
    }
    assert len(named) > 20
    assert named - exported == set()


def _expressions(node: Any) -> Iterator[str]:
    """All of Prometheus' expressions in a dashboard."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("expr", "query") and isinstance(value, str):
                yield value
            else:
                yield from _expressions(value)
    elif isinstance(node, list):
        for each in node:
            yield from _expressions(each)
