"""litmus, the test suite of the WebDAV protocol itself (Debian's 0.13)."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.kit.service import PASSWORD, USER, Service

SUITES = ("basic", "copymove", "props", "locks", "http")


def litmus(suite: str, *arguments: str, folder: Path) -> None:
    """Run one suite, in `folder` where it leaves its logs: no failure, no warning, no skip."""
    result = subprocess.run(
        ["litmus", *arguments],
        cwd=folder,
        env=os.environ | {"TESTS": suite},
        capture_output=True,
        text=True,
        check=False,
    )
    said = result.stdout + result.stderr
    assert result.returncode == 0, said
    assert not re.search("WARNING|SKIPPED|FAIL", said), said
    assert re.search(r"(\d+) tests run: \1 passed, 0 failed", said), said


@pytest.mark.parametrize("suite", SUITES)
def test_litmus(open_service: Service, tmp_path: Path, suite: str) -> None:
    """Every suite passes."""
    litmus(suite, f"{open_service.url}/file/", folder=tmp_path)


# litmus tests `Expect`, all of its suite `http`, only without TLS.
@pytest.mark.parametrize("suite", [suite for suite in SUITES if suite != "http"])
def test_litmus_with_tls_and_a_user(secure_service: Service, tmp_path: Path, suite: str) -> None:
    """Every suite passes over TLS, with a name and a password."""
    url = f"{secure_service.url}/file/"
    litmus(suite, url, USER, PASSWORD, folder=tmp_path)
