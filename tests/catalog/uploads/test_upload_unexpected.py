"""Whatever goes wrong when an upload ends: the image is killed at once, and says why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from catalog.model.status import Status
from catalog.tree.vfs import Vfs
from tests.kit.catalog import begin, image_at, staged_files


def _fail(*_arguments: Any, **_options: Any) -> NoReturn:
    raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")


def _break_the_gate(monkeypatch: pytest.MonkeyPatch, _vfs: Vfs) -> None:
    monkeypatch.setattr("catalog.formats.gate.inspect_file", _fail)


def _break_the_store(monkeypatch: pytest.MonkeyPatch, vfs: Vfs) -> None:
    monkeypatch.setattr(vfs.catalog.store("file"), "writer", _fail)


def _break_the_catalog(monkeypatch: pytest.MonkeyPatch, vfs: Vfs) -> None:
    monkeypatch.setattr("catalog.rules.uploads.finish_upload", _fail)


@pytest.mark.parametrize("broken", [_break_the_gate, _break_the_store, _break_the_catalog])
def test_an_exception_of_anybody_kills(
    vfs: Vfs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    broken: Callable[[pytest.MonkeyPatch, Vfs], None],
) -> None:
    """Nothing stays `saving` without a writer, nothing is staged any more."""
    upload = begin(vfs, "/file/a", b"data")
    broken(monkeypatch, vfs)
    with pytest.raises(UnicodeDecodeError):
        upload.commit()
    found = image_at(vfs, "/file/a")
    assert found.status is Status.KILLED
    assert found.message.startswith("it failed unexpectedly: UnicodeDecodeError: ")
    assert staged_files(tmp_path) == []


@pytest.mark.parametrize("broken", [_break_the_gate, _break_the_store])
def test_so_does_one_before_the_rename(
    vfs: Vfs,
    monkeypatch: pytest.MonkeyPatch,
    broken: Callable[[pytest.MonkeyPatch, Vfs], None],
) -> None:
    """Under a temporary name an upload is finished, and published later."""
    upload = begin(vfs, "/file/a", b"data")
    broken(monkeypatch, vfs)
    with pytest.raises(UnicodeDecodeError):
        upload.finish()
    assert image_at(vfs, "/file/a").status is Status.KILLED
