"""Credentials by reference."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from catalog.errors import StoreUnavailable
from catalog.stores.secret import SecretReference

WORD = "hUnter/2+="


def written(path: Path, content: bytes = WORD.encode(), mode: int = 0o600) -> Path:
    """A file with that content and mode."""
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_file_is_read_without_its_newline(tmp_path: Path, end: str, mode: int) -> None:
    """Editors end a file with a newline, which is no part of the secret."""
    path = written(tmp_path / "secret", (WORD + end).encode(), mode)
    assert SecretReference(file=path).read() == WORD


def test_environment_and_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other two ways; systemd's file is its own business to guard."""
    written(tmp_path / "s3.key", mode=0o440)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("S3_KEY", WORD)
    assert SecretReference(credential="s3.key").read() == WORD
    assert SecretReference(env="S3_KEY").read() == WORD


def test_changed_secret_is_seen(tmp_path: Path) -> None:
    """Nothing is remembered."""
    reference = SecretReference(file=written(tmp_path / "secret", b"old"))
    assert reference.read() == "old"
    written(tmp_path / "secret", b"new")
    assert reference.read() == "new"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_file_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    """A secret that others can read or change is not used, and how to mend it is said."""
    path = written(tmp_path / "secret", mode=mode)
    with pytest.raises(StoreUnavailable, match=f"mode {mode:04o}.*chmod 600") as caught:
        SecretReference(file=path).read()
    assert WORD not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"\n", "empty"),
        (WORD.encode() + b"\nanother\n", "one line"),
        (WORD.encode() + b"\0", "one line"),
        (WORD.encode() + b"\xff", "one line"),
        (WORD.encode() * 10_000, "not a file with one secret"),
    ],
)
def test_what_is_no_secret(tmp_path: Path, content: bytes, reason: str) -> None:
    """One clear line names the file and what is wrong, and shows nothing of it."""
    path = written(tmp_path / "secret", content)
    with pytest.raises(StoreUnavailable, match=reason) as caught:
        SecretReference(file=path).read()
    assert str(caught.value).startswith(str(path))
    assert WORD not in repr(caught.value)
    assert caught.value.__cause__ is None


def test_what_is_no_file(tmp_path: Path) -> None:
    """A missing file, a folder and a FIFO are refused, at once."""
    os.mkfifo(tmp_path / "fifo", 0o600)
    for name, reason in [("none", "No such"), ("", "Is a directory"), ("fifo", "not a file")]:
        with pytest.raises(StoreUnavailable, match=reason):
            SecretReference(file=tmp_path / name).read()


def test_nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unset variable, and a credential outside of a service, are said to be that."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.delenv("NOT_SET", raising=False)
    with pytest.raises(StoreUnavailable, match=r"\$NOT_SET: is not set"):
        SecretReference(env="NOT_SET").read()
    with pytest.raises(StoreUnavailable, match="credential x: only a systemd service"):
        SecretReference(credential="x").read()


@pytest.mark.parametrize(
    "table",
    [
        "{}",
        '{"env": "A", "file": "/a"}',
        '{"file": "relative"}',
        '{"env": "A=B"}',
        '{"credential": "../x"}',
        '{"credential": ".."}',
        '{"value": "hUnter"}',
        '"hUnter"',
    ],
)
def test_no_reference(table: str) -> None:
    """Exactly one way is given; a secret in the settings themselves is not taken."""
    with pytest.raises(ValidationError):
        SecretReference.model_validate_json(table, strict=True)


def test_names_where_not_what(tmp_path: Path) -> None:
    """Neither text nor representation nor JSON of a reference holds the secret."""
    reference = SecretReference(file=written(tmp_path / "secret"))
    reference.read()
    shown = f"{reference} {reference!r} {reference.model_dump_json()}"
    assert str(tmp_path) in shown
    assert WORD not in shown
