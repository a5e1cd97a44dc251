"""Running the console examples of a page as they stand there.

A fenced block marked `console` holds commands, each behind `$ ` and continued behind
`> `, and under each what it prints (stdout and stderr).  In the output `…` stands for
any text within a line, and a line of only `…` for any number of lines.  All blocks of a
page run in order in one bash, as somebody who reads it from top to bottom would do it.

Nobody types the next command before a server is there: one that is sent to the background
with its log in a file (`2> FILE &`) is waited for until it has written to it.  Nor is a copy read
in the same moment: what `cp` has closed on a busy machine may be published a little later
(docs/semantics.md), and is waited for, too.
"""

from __future__ import annotations

import difflib
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.M | re.S)
_SERVER = re.compile(r" 2> (\S+) &\n$")
_COPY = re.compile(r"(?:^|-- )cp (?:-\S+ )*\S+ (mnt/\S+)\n$")
_DEADLINE = 240
"""Seconds after which the examples are taken to hang."""


@dataclass(frozen=True, slots=True)
class Step:
    """One command, and what it should print."""

    line: int
    """Where the command stands in the page."""
    command: str
    expected: str


def steps(page: str) -> list[Step]:
    """All commands of a page, in order."""
    return [step for block in _BLOCK.finditer(page) for step in _steps_of(page, block)]


def _steps_of(page: str, block: re.Match[str]) -> Iterator[Step]:
    first = page.count("\n", 0, block.start(1)) + 1
    lines = block[1].splitlines(keepends=True)
    starts = [number for number, line in enumerate(lines) if line.startswith("$ ")]
    assert starts, f"line {first}: a console block without a command"
    assert starts[0] == 0, f"line {first}: output before the first command"
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        command = [lines[start]]
        while start + len(command) < end and lines[start + len(command)].startswith("> "):
            command.append(lines[start + len(command)])
        yield Step(
            first + start,
            "".join(line[2:] for line in command),
            "".join(lines[start + len(command) : end]),
        )


def run(wanted: list[Step], folder: Path, environ: Mapping[str, str]) -> list[str]:
    """Run the commands in `folder`; return what each has printed."""
    outputs = [folder / ".output" / f"{number:04}" for number in range(len(wanted))]
    outputs[0].parent.mkdir()
    script = "trap 'kill $(jobs -p) 2> /dev/null' EXIT\n" + "".join(
        f"{{ {step.command}}} > {output} 2>&1\n{_pause(step)}"
        for step, output in zip(wanted, outputs, strict=True)
    )
    subprocess.run(
        # Unlike subprocess' own time-out it ends what runs in the background, too.
        ["timeout", str(_DEADLINE), "bash", "-c", script],
        cwd=folder,
        env={**os.environ, **environ},
        stdin=subprocess.DEVNULL,
        check=False,
    )
    return [output.read_text() if output.exists() else "(not run)\n" for output in outputs]


def _pause(step: Step) -> str:
    """Wait for a server's log or a copy's end; `$?` goes from one command to the next."""
    if log := _SERVER.search(step.command):
        return f"until test -s {log[1]}; do sleep 0.1; done\n"
    if copy := _COPY.search(step.command):
        status = f"getfattr --only-values -n user.image.status {copy[1]} 2> /dev/null"
        is_saving = f'test "$({status})" = saving'
        wait = f"for _ in {{1..20}}; do {is_saving} && sleep 0.1 || break; done"
        return f"(code=$?; {wait}; exit $code)\n"
    return ""


def difference(step: Step, printed: str) -> str:
    """What the page should say instead, as a diff; empty if it is right."""
    if re.fullmatch(_pattern(step.expected), printed):
        return ""
    lines = difflib.unified_diff(
        step.expected.splitlines(),
        printed.splitlines(),
        f"line {step.line}: {step.command.strip()}",
        "printed",
        lineterm="",
    )
    return "\n".join(lines) + "\n"


def _pattern(expected: str) -> str:
    lines = []
    for line in expected.splitlines():
        if line == "…":
            lines.append(r"(.*\n)*")
        else:
            lines.append(re.escape(line).replace("…", ".*") + r"\n")
    return "".join(lines)


def check(page: str, folder: Path, environ: Mapping[str, str]) -> None:
    """Run a page's examples and fail with a diff of every one that is not true."""
    wanted = steps(page)
    printed = run(wanted, folder, environ)
    wrong = [difference(step, text) for step, text in zip(wanted, printed, strict=True)]
    assert not any(wrong), "\n" + "\n".join(filter(None, wrong))
