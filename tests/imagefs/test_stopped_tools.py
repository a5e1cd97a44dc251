"""What tools leave that are stopped, or whose source fails: the table in docs/semantics.md.

The data is raw, of which nothing tells that it is cut.
"""

from __future__ import annotations

import os
import re
import signal
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from tests.kit.daemon import wait_until
from tests.kit.tools import MIB, run, some_bytes

SIGNALS = (signal.SIGINT, signal.SIGTERM)
DOCS = Path(__file__).parents[2] / "docs/semantics.md"
HALF = some_bytes(2 * MIB)
NOTHING = ""
"""No file of that name."""

# What is written to $OUT, and what there is then: stopped by SIGINT, by SIGTERM, at a cut source.
COMMANDS = {
    "curl -o": ("curl -sS -o $OUT $URL/stall", "curl -sS -o $OUT $URL/cut"),
    "curl >": ("curl -sS $URL/stall > $OUT", "curl -sS $URL/cut > $OUT"),
    "curl --remove-on-error -o": (
        "curl -sS --remove-on-error -o $OUT $URL/stall",
        "curl -sS --remove-on-error -o $OUT $URL/cut",
    ),
    "cat >": ("cat $PIPE > $OUT", "cat $HALF $HALF.missing > $OUT"),
    "dd of=": ("dd of=$OUT bs=64k < $PIPE", None),
    "tee": ("tee $OUT < $PIPE", None),
    "gzip -dc >": ("gzip -dc < $PIPE.gz > $OUT", "gzip -dc < $HALF.gz > $OUT"),
    "xz -dc >": ("xz -dc < $PIPE.xz > $OUT", "xz -dc < $HALF.xz > $OUT"),
    "zstd -dc >": ("zstd -dc < $PIPE.zst > $OUT", "zstd -dc < $HALF.zst > $OUT"),
    "zstd -d -o": ("zstd -q -d -o $OUT < $PIPE.zst", "zstd -q -d $HALF.zst -o $OUT"),
    "SOURCE \\| cat >": (None, "curl -sS $URL/cut | cat > $OUT"),
    "(SOURCE; false) >": (None, "(cat $HALF; false) > $OUT"),
    "curl -o NAME.part && mv": (
        "curl -sS -o $OUT.part $URL/stall && mv $OUT.part $OUT",
        "curl -sS -o $OUT.part $URL/cut && mv $OUT.part $OUT",
    ),
}


def _table() -> dict[str, tuple[str, str, str]]:
    """The rows of the page: what is there after SIGINT, SIGTERM, at a source that fails."""
    section = DOCS.read_text().partition("### Tools that are stopped or fail")[2]
    rows = re.findall(r"^\| `(.*)` \| ([^|]*) \| ([^|]*) \| ([^|]*) \|$", section, re.M)
    return {name: (on_int, on_term, at_cut) for name, on_int, on_term, at_cut in rows}


class _Server(BaseHTTPRequestHandler):
    """Sends half of what it has announced, and then waits or hangs up."""

    protocol_version = "HTTP/1.1"
    stopping = threading.Event()

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(2 * len(HALF)))
        self.end_headers()
        self.wfile.write(HALF)
        if self.path == "/stall":
            self.stopping.wait(60)
        self.close_connection = True

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The address of a server that fails."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        _Server.stopping.set()
        server.shutdown()


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half of a file, as it is and of each compression."""
    folder = tmp_path_factory.mktemp("sources")
    (folder / "whole").write_bytes(HALF * 2)
    (folder / "half").write_bytes(HALF)
    for suffix, command in (("gz", "gzip -kc"), ("xz", "xz -0 -kc"), ("zst", "zstd -q -c")):
        packed = subprocess.run(
            [*command.split(), str(folder / "whole")], check=True, capture_output=True
        ).stdout
        (folder / f"half.{suffix}").write_bytes(packed[: len(packed) // 2])
    return folder


@pytest.fixture
def environ(folder: Path, sources: Path, url: str, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The names that `COMMANDS` use; what is read from $PIPE stops in the middle and stays open."""
    feeders = []
    for suffix in ("", ".gz", ".xz", ".zst"):
        pipe = tmp_path / f"pipe{suffix}"
        os.mkfifo(pipe)
        script = 'exec > "$1"; cat "$2"; exec sleep 60'
        feeder = ["sh", "-c", script, "sh", pipe, sources / f"half{suffix}"]
        feeders.append(subprocess.Popen([str(word) for word in feeder], start_new_session=True))
    yield {
        **os.environ,
        "OUT": str(folder / "image"),
        "URL": url,
        "HALF": str(sources / "half"),
        "PIPE": str(tmp_path / "pipe"),
    }
    for feeder_process in feeders:
        os.killpg(feeder_process.pid, signal.SIGKILL)
        feeder_process.wait()


def _outcome(folder: Path) -> str:
    try:
        return os.getxattr(folder / "image", "user.image.status").decode()
    except FileNotFoundError:
        return NOTHING


def _told(outcome: str) -> str:
    return {"killed": "`killed`", "active": "**`active`**", NOTHING: "no such image"}[outcome]


def _has_come(folder: Path) -> bool:
    return any(path.stat().st_size >= MIB for path in folder.iterdir())


def _stopped() -> Iterator[ParameterSet]:
    says = pytest.mark.mount_says("was (killed by signal|interrupted)")
    for tool, (command, _) in COMMANDS.items():
        for number, expected in zip(SIGNALS, _table().get(tool, ("", "")), strict=False):
            if command is not None:
                marks = says if expected == _told("killed") else ()
                yield pytest.param(tool, number, expected, marks=marks, id=f"{tool}-{number.name}")


@pytest.mark.parametrize(("tool", "number", "expected"), list(_stopped()))
def test_stopped(
    folder: Path, environ: dict[str, str], tool: str, number: signal.Signals, expected: str
) -> None:
    """As by Ctrl-C, and by kill: what the page says is there."""
    command = COMMANDS[tool][0]
    assert command is not None
    process = subprocess.Popen(
        ["bash", "-c", command],
        env=environ,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: _has_come(folder), "data arrives")
    os.killpg(process.pid, number)
    process.wait()
    wait_until(lambda: _told_or_waits(folder) == expected, f"{_told_or_waits(folder)}")


def _told_or_waits(folder: Path) -> str:
    outcome = _outcome(folder)
    return "not yet" if outcome == "saving" else _told(outcome)


@pytest.mark.mount_says("exited with status")
def test_the_reason_is_told(folder: Path, environ: dict[str, str]) -> None:
    """A shell that ends with an error has not closed the file it redirected to."""
    subprocess.run(["bash", "-c", "false > $OUT; (cat $HALF; false) > $OUT"], env=environ)
    assert "exited with status 1" in os.getxattr(folder / "image", "user.image.message").decode()


@pytest.mark.parametrize("tool", [name for name, (_, cut) in COMMANDS.items() if cut])
def test_source_fails(folder: Path, environ: dict[str, str], tool: str) -> None:
    """What the page says is there when the source ends too soon."""
    command = COMMANDS[tool][1]
    subprocess.run(["bash", "-c", str(command)], env=environ, check=False, capture_output=True)
    expected = _table()[tool][2]
    wait_until(lambda: _told_or_waits(folder) == expected, f"{_told_or_waits(folder)}")


def test_the_page_names_what_is_tested() -> None:
    """Each row is run."""
    assert _table().keys() == COMMANDS.keys()


@pytest.mark.mount_says("announced")
def test_a_size_stops_what_no_writer_tells(folder: Path, environ: dict[str, str]) -> None:
    """Said beforehand, as a digest can be, it keeps half a file from being an image."""
    run("touch", folder / "image")
    os.setxattr(folder / "image", "user.image.size", str(2 * len(HALF)).encode())
    command = COMMANDS["curl -o"][1]
    subprocess.run(["bash", "-c", str(command)], env=environ, check=False, capture_output=True)
    assert _outcome(folder) == "killed"
