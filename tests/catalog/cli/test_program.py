"""The command as a whole: its parts, its options, and how it ends."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from catalog.cli.program import Program
from catalog.cli.program import imagefs as program
from catalog.repository.schema import SCHEMA
from catalog.service.bootstrap import open_catalog
from catalog.service.configuration import load
from tests.catalog.cli.command import DATA, Run, process


def test_every_command_is_there_and_has_help() -> None:
    """The commands the issue names, each explained."""
    names = set(
        "init list show add export set unset tag deactivate reactivate delete restore "
        "replicate verify scrub fsck store config doctor mount umount".split()
    )
    listed = program.list_commands(program.make_context("imagefs", ["doctor"]))
    assert names <= set(listed)
    for name in listed:
        assert CliRunner().invoke(program, [name, "--help"]).exit_code == 0


def test_without_a_catalog(bare: Run) -> None:
    """The line says what to do, and the code is its own."""
    assert "imagefs init" in bare("list", code=10).stderr


def test_newer_schema_is_refused(bare: Run, config: Path) -> None:
    """A catalog that only a newer program may use is not touched."""
    bare("init")
    catalog = open_catalog(load(config))
    with catalog.write() as repository:
        newer = f"{int(SCHEMA) + 1:04}"
        for place in ("alembic_version SET version_num", "schema_floor SET oldest"):
            repository.connection.exec_driver_sql(f"UPDATE {place} = '{newer}'")
    catalog.close()
    for command in ("list", "init"):
        assert "newer" in bare(command, code=13).stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--nonsense"],
        ["list", "--sort", "nonsense"],
        ["list", "--property", "nonsense"],
        ["set", "/file/a"],
        ["nonsense"],
        [],
    ],
)
def test_wrong_usage(run: Run, arguments: list[str]) -> None:
    """One line that leads to the help."""
    assert "--help" in run(*arguments, code=2).stderr


def test_bad_configuration(bare: Run, config: Path) -> None:
    """The file and the key are named."""
    config.write_text("[catalog]\nnonsense = 1\n")
    line = bare("config", "check", code=2).stderr
    assert str(config) in line
    assert "nonsense" in line


def test_each_program_checks_its_own_section(bare: Run, config: Path) -> None:
    """A mistake in [dav] stops `imagefs dav` and `config check`, and nothing else."""
    config.write_text(config.read_text() + "[dav]\nlisten = 8080\n")
    bare("init")
    bare("add", "-", "--name", "a", stdin=DATA)
    assert "dav.listen" in bare("config", "check", code=2).stderr
    assert "dav.listen" in bare("dav", code=2).stderr
    checks = bare("doctor", "--json", code=1).stdout
    assert "dav.listen" in checks


def test_a_broken_package_costs_only_its_own_commands(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line names it; the other commands work."""
    points = [
        importlib.metadata.EntryPoint("catalog", "catalog.cli:commands", "imagefs.commands"),
        importlib.metadata.EntryPoint("broken", "nonexistent.cli:commands", "imagefs.commands"),
    ]
    monkeypatch.setattr("catalog.cli.program.entry_points", lambda group: points)
    result = CliRunner().invoke(Program("imagefs"), ["--help"])
    assert result.exit_code == 0
    assert result.stderr.count("\n") == 1
    assert "nonexistent" in result.stderr
    assert "replicate" in result.stdout


@pytest.mark.stress
def test_closed_pipe_is_quiet(run: Run, image: str, config: Path) -> None:
    """A reader that has enough, as head(1), is no error worth a word."""
    reading, writing = os.pipe()
    os.close(reading)
    for arguments in (["list"], ["export", image, "-"]):
        child = process(config, *arguments, stdout=writing)
        _, stderr = child.communicate()
        assert stderr == b""
        assert child.returncode == 1
    os.close(writing)


def test_nothing_heavy_is_loaded_for_help() -> None:
    """Help, and the shell's completion, wait for no database, store or server."""
    script = (
        "import sys\nfrom catalog.cli.program import imagefs\n"
        "try: imagefs.main(['--help'])\n"
        "finally: print({'sqlalchemy', 'pydantic', 'urllib3', 'trio', 'wsgidav'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout.endswith(b"set()\n")


def test_alembic_is_not_loaded_to_list(run: Run, config: Path) -> None:
    """What only a migration needs is not imported on the usual path."""
    script = (
        "import sys\nfrom catalog.cli.program import imagefs\n"
        "try: imagefs.main(sys.argv[1:])\n"
        "finally: print('alembic' in sys.modules, 'sqlalchemy' in sys.modules)"
    )
    command = [sys.executable, "-c", script, "--config", str(config), "list"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stdout.endswith(b"False True\n")
