"""The log of a mount: a file that names the request, and SIGHUP."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.kit.daemon import Daemon, wait_until
from tests.kit.service import service
from tests.kit.tools import attempt, field

Make = Callable[..., Daemon]


def _lines(file: Path, pattern: str) -> list[str]:
    return [line for line in file.read_text().splitlines() if re.search(pattern, line)]


@pytest.mark.mount
def test_a_line_names_who_and_what(tmp_path: Path) -> None:
    """Mount, host, request, principal, image and store of an open(2) that fails."""
    file = tmp_path / "imagefs.log"
    made = Daemon(tmp_path / "state", sections=f'[log]\nfile = "{file}"\nlevel = "debug"\n')
    try:
        process = made.spawn()
        wait_until(lambda: file.exists() and _lines(file, "mounted at"), "the mount answers")
        _check_lines(made, file, process.pid)
        assert made.stop() == 0
    finally:
        made.end()


def _check_lines(made: Daemon, file: Path, pid: int) -> None:
    path = made.path / "file/a"
    path.write_bytes(b"data" * 1000)
    image = field(path, "id")
    assert attempt("dd", "if=/dev/null", f"of={path}", "conv=notrunc").returncode != 0
    (line,) = _lines(file, "open: ")
    for told in (f"mount={made.path}", "service=mount", f"pid={pid}", "store=file"):
        assert f" {told}" in line
    assert re.search(r" level=debug .* host=\S+ principal=\S+ request=\d+ image=", line)
    assert f" image={image}" in line


def test_sighup_reads_the_levels_again(daemon: Make) -> None:
    """The mount goes on, with a level that was not there at its start."""
    made = daemon()
    with made.mounted():
        (made.path / "file/a").write_bytes(b"data")
        with made.config.open("a") as config:
            config.write('[log]\nlevels = {"imagefs.operations" = "debug"}\n')
        assert made.process is not None
        made.process.send_signal(signal.SIGHUP)
        wait_until(lambda: _lines(made.log, "settings were read again"), "it is read")
        with suppress(FileNotFoundError):
            (made.path / "file/none").stat()
        wait_until(lambda: _lines(made.log, "lookup: "), "the level holds")
        assert (made.path / "file/a").read_bytes() == b"data"


def test_a_server_reads_the_levels_again(daemon: Make) -> None:
    """It goes on, too, and logs no more of each request."""
    made = daemon()
    with service(made) as server:
        assert server.ask("GET /file/").status == 200
        with made.config.open("a") as config:
            config.write('[log]\nlevels = {"dav.access" = "warning"}\n')
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: _lines(server.log, "settings were read again"), "it is read")
        before = len(_lines(server.log, " GET /file/ "))
        assert server.ask("GET /file/").status == 200
        assert len(_lines(server.log, " GET /file/ ")) == before == 1
        server.log.write_text("")
