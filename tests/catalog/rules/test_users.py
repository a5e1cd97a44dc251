"""Users and their passwords: rows, the check and its pace, members, the commands."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from catalog.catalog import Catalog
from catalog.cli.program import imagefs as program
from catalog.errors import (
    AlreadyExists,
    Forbidden,
    InvalidValue,
    NotAuthenticated,
    NotFound,
    NotSupported,
    QuotaExceeded,
    TooManyAttempts,
)
from catalog.model.access import ADMIN, Principal, Role
from catalog.rules import authentication, members, users
from catalog.rules.authentication import Authenticator
from catalog.rules.members import add_member, remove_member
from catalog.rules.users import add_user, is_password, remove_user, set_password
from catalog.settings import Settings
from catalog.tree.vfs import Vfs
from tests.kit.catalog import ALICE, BOB, image_at, put, set_fields
from tests.kit.daemon import wait_until

HERE, THERE = "192.0.2.1", "192.0.2.2"


class Clock:
    """Seconds that pass when the test says so, or when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let the time pass."""
        self.slept.append(round(seconds, 3))
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


@pytest.fixture
def login(catalog: Catalog, clock: Clock) -> Authenticator:
    """Checks passwords; there is the user alice, password `right`."""
    add_user(catalog, "alice", "right", project="web")
    return Authenticator(catalog, clock=clock, sleep=clock.sleep)


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The passwords that were hashed to be checked."""
    seen: list[str] = []

    def recorded(password_hash: str, password: str) -> bool:
        seen.append(password)
        return is_password(password_hash, password)

    monkeypatch.setattr(authentication, "is_password", recorded)
    return seen


def guess(login: Authenticator, name: str, count: int, address: str = HERE) -> None:
    """So many wrong passwords, one right after the other, each another one."""
    for _ in range(count):
        with pytest.raises(NotAuthenticated):
            login.authenticate(name, f"wrong {next(_guesses)}", address)


_guesses = count()


# -- rows ------------------------------------------------------------------------------


def test_passwords_are_kept_as_argon2_hashes(catalog: Catalog) -> None:
    """The same password has another hash for each user, and is in none."""
    add_user(catalog, "alice", "s3cret")
    add_user(catalog, "bob", "s3cret", role=Role.ADMIN, project="web")
    with catalog.read() as repository:
        alice, bob = repository.users()
    assert alice.password_hash.startswith("$argon2id$")
    assert alice.password_hash != bob.password_hash
    assert "s3cret" not in alice.password_hash
    assert alice.password_hash not in repr(alice)
    assert (alice.principal, bob.principal) == (
        Principal("alice"),
        Principal("bob", Role.ADMIN, "web"),
    )


def test_a_user_is_added_once_and_removed(catalog: Catalog) -> None:
    """What is there already, or is not there, is told."""
    add_user(catalog, "alice", "one")
    with pytest.raises(AlreadyExists):
        add_user(catalog, "alice", "two")
    remove_user(catalog, "alice")
    with pytest.raises(NotFound):
        remove_user(catalog, "alice")
    with pytest.raises(NotFound):
        set_password(catalog, "alice", "three")


@pytest.mark.parametrize("name", ["", "a:b", "a\nb", " a", "a ", "a\0", "x" * 256, "anonymous"])
def test_names_nobody_can_have(catalog: Catalog, name: str) -> None:
    """A colon ends the name in HTTP; `anonymous` is whoever gives none."""
    with pytest.raises(InvalidValue):
        add_user(catalog, name, "password")


@pytest.mark.parametrize("password", ["", "x" * 1025])
def test_passwords_nobody_can_have(catalog: Catalog, password: str) -> None:
    """An empty one is always a mistake, and so is a whole file."""
    with pytest.raises(InvalidValue):
        add_user(catalog, "alice", password)


def test_an_accent_is_the_same_however_it_is_typed() -> None:
    """Composed or not, the characters are one password (RFC 8265)."""
    assert is_password(users.hash_password("caf\u00e9"), "cafe\u0301")


def test_what_is_no_hash_matches_nothing() -> None:
    """A row somebody wrote by hand lets nobody in."""
    assert not is_password("plain", "plain")


# -- who is it ---------------------------------------------------------------------------


def test_the_right_password(login: Authenticator) -> None:
    """It becomes the principal with role and project."""
    found = login.authenticate("alice", "right", HERE)
    assert found == Principal("alice", Role.MEMBER, "web")


@pytest.mark.parametrize(
    ("name", "password"),
    [("alice", "wrong"), ("alice", ""), ("alice", "right "), ("Alice", "right"), ("", "")],
)
def test_anything_else(login: Authenticator, name: str, password: str) -> None:
    """All are refused in the same words: what was wrong is not told."""
    with pytest.raises(NotAuthenticated) as caught:
        login.authenticate(name, password, HERE)
    assert caught.value.reason == ""


def test_an_unknown_user_costs_as_much_as_a_wrong_password(
    login: Authenticator, checks: list[str]
) -> None:
    """Each is hashed once: time does not tell which names there are."""
    for name in ("alice", "nobody"):
        with pytest.raises(NotAuthenticated):
            login.authenticate(name, "wrong", HERE)
    assert checks == ["wrong", "wrong"]


def test_a_right_password_is_hashed_once(
    login: Authenticator, clock: Clock, checks: list[str]
) -> None:
    """The following requests are quick, for a while."""
    for _ in range(3):
        login.authenticate("alice", "right", HERE)
    assert checks == ["right"]
    clock.now += authentication.REMEMBERED + 1
    login.authenticate("alice", "right", HERE)
    assert checks == ["right", "right"]


def test_requests_that_begin_together_are_hashed_once(
    login: Authenticator, checks: list[str]
) -> None:
    """A client that opens many connections at once is let in with all of them."""
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: login.authenticate("alice", "right", HERE), range(16)))
    assert {principal.name for principal in found} == {"alice"}
    assert checks == ["right"]


def test_another_password_holds_at_once(login: Authenticator, catalog: Catalog) -> None:
    """What was remembered of the old one is worth nothing."""
    login.authenticate("alice", "right", HERE)
    set_password(catalog, "alice", "new")
    with pytest.raises(NotAuthenticated):
        login.authenticate("alice", "right", HERE)
    assert login.authenticate("alice", "new", HERE).name == "alice"


def test_a_removed_user_is_out_at_once(login: Authenticator, catalog: Catalog) -> None:
    """And one added anew under the name has the new role."""
    login.authenticate("alice", "right", HERE)
    remove_user(catalog, "alice")
    with pytest.raises(NotAuthenticated):
        login.authenticate("alice", "right", HERE)
    add_user(catalog, "alice", "right", role=Role.READER)
    assert login.authenticate("alice", "right", HERE).role is Role.READER


def test_guesses_have_a_pace(login: Authenticator, clock: Clock) -> None:
    """A few mistakes are free; then each guess waits for its turn, and for no longer."""
    guess(login, "alice", authentication.FREE_FAILURES)
    assert clock.slept == []
    guess(login, "alice", 20)
    assert clock.slept == [authentication.PACE] * 20


def test_the_right_password_is_not_locked_out(login: Authenticator, clock: Clock) -> None:
    """However many wrong ones came before, from wherever: it waits for its turn."""
    guess(login, "alice", 50)
    clock.slept.clear()
    assert login.authenticate("alice", "right", HERE).name == "alice"
    assert clock.slept == [authentication.PACE]
    clock.slept.clear()
    guess(login, "alice", 5, THERE)
    clock.slept.clear()
    for address in (HERE, THERE):
        assert login.authenticate("alice", "right", address).name == "alice"
    assert clock.slept == []


def test_a_user_gets_in_beside_guessers_at_the_same_address(catalog: Catalog) -> None:
    """Eight of them, without a pause, as from behind one proxy: every user's first login."""
    for name in ("alice", "bob"):
        add_user(catalog, name, "right")
    login = Authenticator(catalog)
    stopped = threading.Event()

    def attack() -> None:
        while not stopped.is_set():
            with pytest.raises(NotAuthenticated):
                login.authenticate("alice", f"wrong {next(_guesses)}", HERE)

    with ThreadPoolExecutor(8) as guessers:
        running = [guessers.submit(attack) for _ in range(8)]
        try:
            wait_until(lambda: len(login._failures) == 1, "guessing goes on")
            for name in ("bob", "alice"):
                assert login.authenticate(name, "right", HERE).name == name
        finally:
            stopped.set()
        for each in running:
            each.result()


def test_more_than_can_have_a_turn_are_refused(login: Authenticator, clock: Clock) -> None:
    """Unseen, but not at once: who comes back quickly takes no turn from others."""
    waiting: list[float] = []
    login._sleep = waiting.append  # the clock stands still: all of them wait at once
    guess(login, "alice", authentication.FREE_FAILURES)
    ahead = round(authentication.LONGEST_WAIT / authentication.PACE)
    guess(login, "alice", ahead)
    with pytest.raises(TooManyAttempts) as caught:
        login.authenticate("alice", "wrong", HERE)
    assert caught.value.retry_after == 1
    assert waiting[-1] == authentication.LONGEST_WAIT
    assert max(waiting) <= authentication.LONGEST_WAIT


def test_an_old_password_counts_once(
    login: Authenticator, clock: Clock, checks: list[str], catalog: Catalog
) -> None:
    """A mounted folder that goes on with it keeps nobody waiting, and costs nothing."""
    for _ in range(50):
        with pytest.raises(NotAuthenticated):
            login.authenticate("alice", "old", HERE)
    assert (checks, clock.slept) == (["old"], [])
    set_password(catalog, "alice", "old")
    assert login.authenticate("alice", "old", HERE).name == "alice"
    remove_user(catalog, "alice")
    with pytest.raises(NotAuthenticated):
        login.authenticate("alice", "old", HERE)


def test_a_pace_is_for_one_user_at_one_address(
    login: Authenticator, catalog: Catalog, clock: Clock
) -> None:
    """Nobody keeps somebody waiting who is elsewhere, nor a neighbour."""
    add_user(catalog, "bob", "right")
    guess(login, "alice", 4)
    clock.slept.clear()
    assert login.authenticate("bob", "right", HERE).name == "bob"
    assert login.authenticate("alice", "right", THERE).name == "alice"
    assert clock.slept == []


def test_failures_are_forgotten(login: Authenticator, clock: Clock) -> None:
    """By the right password, and by time."""
    for forget in (
        lambda: login.authenticate("alice", "right", HERE),
        lambda: clock.sleep(authentication.FORGIVEN_AFTER + 1),
    ):
        guess(login, "alice", authentication.FREE_FAILURES + 1)
        forget()
        clock.slept.clear()
        guess(login, "alice", authentication.FREE_FAILURES)
        assert clock.slept == []
        clock.now += authentication.FORGIVEN_AFTER + 1


def test_an_unknown_user_has_the_same_pace(login: Authenticator, clock: Clock) -> None:
    """Waiting does not tell either which names there are."""
    guess(login, "alice", 6)
    waited, clock.slept = clock.slept, []
    guess(login, "nobody", 6)
    assert clock.slept == waited


def test_what_is_remembered_is_bounded(
    login: Authenticator, monkeypatch: pytest.MonkeyPatch, checks: list[str]
) -> None:
    """Names made up without end push the oldest out, and nothing that was right."""
    login.authenticate("alice", "right", HERE)
    monkeypatch.setattr(authentication, "_ENTRIES", 3)
    guess(login, "alice", 3)
    for number in range(5):
        guess(login, f"nobody {number}", 1)
    assert (len(login._failures), len(login._wrong)) == (3, 3)
    assert not login._doors
    checks.clear()
    login.authenticate("alice", "right", HERE)
    assert checks == []


# -- members of shared images ------------------------------------------------------------


def test_members_are_the_owner_s_to_choose(vfs: Vfs) -> None:
    """They are listed, added once, removed; neither is for others."""
    number = put(vfs, "/file/a").number
    set_fields(vfs, "/file/a", visibility="shared")
    add_member(vfs.catalog, number, "web", ALICE)
    add_member(vfs.catalog, number, "bob", ADMIN)
    with pytest.raises(AlreadyExists):
        add_member(vfs.catalog, number, "bob", ALICE)
    assert vfs.catalog.members_of(image_at(vfs, "/file/a")) == {"web", "bob"}
    for change in (add_member, remove_member):
        with pytest.raises(Forbidden):
            change(vfs.catalog, number, "bob", BOB)
    remove_member(vfs.catalog, number, "bob", ALICE)
    with pytest.raises(NotFound):
        remove_member(vfs.catalog, number, "bob", ALICE)
    assert vfs.catalog.members_of(image_at(vfs, "/file/a")) == {"web"}


def test_only_a_shared_image_has_members(vfs: Vfs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others say what to do about it; and members have names, and are not too many."""
    number = put(vfs, "/file/a").number
    with pytest.raises(NotSupported, match="only a shared image"):
        add_member(vfs.catalog, number, "web", ALICE)
    set_fields(vfs, "/file/a", visibility="shared")
    with pytest.raises(InvalidValue):
        add_member(vfs.catalog, number, "", ALICE)
    monkeypatch.setattr(members, "MAX_MEMBERS", 1)
    add_member(vfs.catalog, number, "web", ALICE)
    with pytest.raises(QuotaExceeded):
        add_member(vfs.catalog, number, "desk", ALICE)


def test_members_are_told_to_other_processes(vfs: Vfs) -> None:
    """The change feed has it: a frontend may remember who sees an image."""
    number = put(vfs, "/file/a").number
    set_fields(vfs, "/file/a", visibility="shared")
    with vfs.catalog.read() as repository:
        before = repository.last_change()
    add_member(vfs.catalog, number, "web", ALICE)
    with vfs.catalog.read() as repository:
        assert [change.image for change in repository.changes(before, 9)] == [number]


def test_members_of_a_page_are_asked_for_once(vfs: Vfs) -> None:
    """One query tells which of many images a principal sees."""
    found = []
    for name in "abc":
        put(vfs, f"/file/{name}")
        set_fields(vfs, f"/file/{name}", visibility="shared" if name < "c" else "private")
        found.append(image_at(vfs, f"/file/{name}"))
    add_member(vfs.catalog, found[1].number, "bob", ALICE)
    assert members.visible(vfs.catalog, found, BOB) == {found[1].number}
    assert len(members.visible(vfs.catalog, found, ALICE)) == 3


# -- commands ----------------------------------------------------------------------------

Run = Callable[..., Result]


@pytest.fixture
def run(catalog: Catalog, settings: Settings, tmp_path: Path) -> Run:
    """Runs the command on the test's catalog."""
    config = tmp_path / "imagefs.toml"
    config.write_text(
        f'[catalog]\nurl = "{settings.catalog.url}"\nstaging = "{tmp_path}/staging"\n'
        f'[stores.file]\ntype = "filesystem"\npath = "{tmp_path}/file"\n'
    )

    def run(*arguments: str, stdin: str = "", code: int = 0) -> Result:
        result = CliRunner().invoke(program, ["--config", str(config), *arguments], input=stdin)
        assert result.exit_code == code, result.output
        return result

    return run


def test_user_commands(run: Run, catalog: Catalog) -> None:
    """Add, list, change the password, remove; the password is a line of standard input."""
    run("user", "add", "alice", "--role", "reader", "--project", "web", stdin="first\n")
    run("user", "add", "bob", stdin="pass word")
    assert json.loads(run("user", "list", "--json").stdout) == [
        {"name": "alice", "role": "reader", "project": "web"},
        {"name": "bob", "role": "member", "project": None},
    ]
    assert "alice" in run("user", "list").stdout
    run("user", "password", "alice", stdin="second\n")
    login = Authenticator(catalog)
    assert login.authenticate("alice", "second", HERE).role is Role.READER
    assert login.authenticate("bob", "pass word", HERE).name == "bob"
    run("user", "remove", "alice")
    assert [user["name"] for user in json.loads(run("user", "list", "--json").stdout)] == ["bob"]


def test_user_commands_refuse(run: Run) -> None:
    """No password, a name that is taken or unknown: one line and its code."""
    assert "password" in run("user", "add", "alice", code=2).stderr
    run("user", "add", "alice", stdin="x\n")
    assert "already" in run("user", "add", "alice", stdin="x\n", code=1).stderr
    assert "no user" in run("user", "password", "bob", stdin="x\n", code=4).stderr
    run("user", "remove", "bob", code=4)


def test_member_commands(run: Run, vfs: Vfs) -> None:
    """Add, list, remove; a public image is refused."""
    put(vfs, "/file/a")
    assert "only a shared" in run("member", "add", "/file/a", "web", code=1).stderr
    run("set", "/file/a", "visibility=shared")
    run("member", "add", "/file/a", "web")
    run("member", "add", "/file/a", "desk")
    assert run("member", "list", "/file/a").stdout == "desk\nweb\n"
    run("member", "remove", "/file/a", "web")
    assert json.loads(run("member", "list", "--json", "/file/a").stdout) == ["desk"]
    run("member", "remove", "/file/a", "web", code=4)
