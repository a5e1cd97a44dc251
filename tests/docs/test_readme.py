"""README.md and the other pages: the tour is run, and what they and the code refer to exists."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.docs import console
from tests.servers.programs import free_ports
from tests.servers.scripted import nginx

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MIRROR = "https://cloud.debian.org/images/cloud/bookworm/latest"
"""The one place the tour goes to; here a server of the test's own stands in for it."""
HTTP_STORE = '> type = "http"\n'
LISTEN = "127.0.0.1:8080"


@pytest.mark.server
@pytest.mark.skipif(os.geteuid() != 0, reason="the tour shows root's files")
def test_tour(tmp_path: Path) -> None:
    """Every command of the README prints what it says, in an empty folder."""
    page = (ROOT / "README.md").read_text()
    assert page.count(MIRROR) == page.count(HTTP_STORE) == 1
    (tmp_path / "server").mkdir()
    (tmp_path / "tour").mkdir()
    environ = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "IMAGEFS_STATE": str(tmp_path),
        "LC_ALL": "C.UTF-8",
    }
    with nginx(tmp_path / "server") as server:
        image = server.root / "debian-12-nocloud-amd64.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "2G"], check=True)
        page = page.replace(MIRROR, server.url)
        page = page.replace(LISTEN, f"127.0.0.1:{free_ports(1)[0]}")
        page = page.replace(HTTP_STORE, f'{HTTP_STORE}> allow_hosts = ["127.0.0.1"]\n')
        try:
            console.check(page, tmp_path / "tour", environ)
        finally:
            mount = tmp_path / "tour/mnt"
            subprocess.run(["umount", "-l", mount], check=False, capture_output=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Each link to a file of the project finds it, and each to a heading its heading."""
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        file, _, heading = target.partition("#")
        if "://" in file:
            continue
        found = page.parent / file if file else page
        assert found.exists(), target
        assert not heading or heading in _anchors(found), target


@cache
def _anchors(page: Path) -> frozenset[str]:
    """What the headings of a page are called in links."""
    return frozenset(map(_anchor, re.findall(r"^#+ (.*)$", page.read_text(), re.M)))


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_references_to_code_are_right(page: Path) -> None:
    """Each `path/file.py:Class.method` in the pages is defined there."""
    for file, name in re.findall(r"`([\w/]+\.py):([\w.]+)`", page.read_text()):
        assert name in _defined(ast.parse((ROOT / file).read_text())), f"{file}:{name}"


def test_references_to_pages_are_right() -> None:
    """Each page and heading that the code and the pages name as `docs/…` exists."""
    packages = [ROOT / "tests", *(file.parent for file in ROOT.glob("*/__init__.py"))]
    code = [file for package in packages for file in package.rglob("*.py")]
    found = {
        (file, ROOT / page, heading)
        for file in [*ROOT.glob("*.md"), *PAGES, *code]
        for page, heading in re.findall(r"\b(docs/[\w./-]+\.md)(?:#([\w-]+))?", file.read_text())
    }
    assert {file.suffix for file, _, _ in found} == {".md", ".py"}
    for file, page, heading in found:
        assert page.exists(), f"{file}: {page}"
        assert not heading or heading in _anchors(page), f"{file}: {page}#{heading}"


def test_each_fact_names_who_relies_on_it() -> None:
    """A fact that no code needs any more goes."""
    facts = re.findall(r"^- (?:.*\n)(?:  .*\n)*", (ROOT / "docs/facts.md").read_text(), re.M)
    assert facts
    for fact in facts:
        assert re.search(r"`[\w/]+\.py:[\w.]+`$", fact.rstrip()), fact


def _defined(tree: ast.Module) -> set[str]:
    """Functions, classes, their methods and the assigned names of a module."""
    found: set[str] = set()
    for node in tree.body:
        match node:
            case ast.ClassDef(name=name, body=body):
                methods = [each for each in body if isinstance(each, _Function)]
                found |= {name, *(f"{name}.{method.name}" for method in methods)}
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                found.add(name)
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                found.add(name)
    return found


_Function = ast.FunctionDef | ast.AsyncFunctionDef
