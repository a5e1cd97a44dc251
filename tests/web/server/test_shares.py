"""One client leaves room for the others: connections and workers have a share for each address."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.kit.daemon import wait_until
from tests.kit.wire import Process, Served, Wire, head, make_certificate, process, serving
from web.exchange.forwarded import Proxies
from web.exchange.limits import DEFAULT_LIMITS, Limits
from web.server.shares import Shares
from web.settings import DavSettings

HOG, OTHER, PROXY = "127.0.0.2", "127.0.0.3", "127.0.0.9"
LIMITS = Limits(connections=40, connections_of_one=6, workers=12, workers_of_one=4)
HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n"


def make_huge(folder: Path) -> None:
    """A file that no socket's buffer holds."""
    with (folder / "huge").open("wb") as file:
        file.truncate(1 << 30)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A server with small shares that trusts a proxy."""
    make_huge(tmp_path)
    trusted = DavSettings.model_validate({"trusted_proxies": [PROXY]}).trusted_proxies
    with serving(tmp_path, limits=LIMITS, proxies=Proxies(trusted)) as served:
        yield served


@pytest.fixture
def opened() -> Iterator[Callable[[Wire], Wire]]:
    """Connections that stay open for the test."""
    with ExitStack() as stack:
        yield stack.enter_context


def refused(wire: Wire) -> bool:
    """Whether the client is told to come back, on a connection that ends."""
    answer = wire.read()
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["connection"] == "close"
    return answer.status == 503


def test_open_heads_of_one_client_keep_nobody_out(
    served: Served, opened: Callable[[Wire], Wire]
) -> None:
    """Its newest connections are refused; when an older one ends there is room again."""
    heads = [opened(served.connect(HOG)) for _ in range(LIMITS.connections_of_one)]
    for wire in heads:
        wire.send(HEAD)
    wait_until(lambda: len(served.server.open_connections) == len(heads), "they are open")
    for _ in range(3 * LIMITS.connections):
        with served.connect(HOG) as wire:
            assert refused(wire)
    with served.connect(OTHER) as wire:
        assert wire.ask("GET /").status == 200
    heads[0].close()
    wait_until(lambda: len(served.server.open_connections) < len(heads), "one has ended")
    assert opened(served.connect(HOG)).ask("GET /").status == 200


def test_idle_connections_count(served: Served, opened: Callable[[Wire], Wire]) -> None:
    """They wait for their next request and take no worker, but a place."""
    for _ in range(LIMITS.connections_of_one):
        assert opened(served.connect(HOG)).ask("GET /").status == 200
    with served.connect(HOG) as wire:
        assert refused(wire)
    with served.connect(OTHER) as wire:
        assert wire.ask("GET /").status == 200


def test_several_clients_leave_room(served: Served, opened: Callable[[Wire], Wire]) -> None:
    """Each takes all it can, first connections and then workers: the next one is served."""
    hogs = [f"127.0.1.{number}" for number in range(12)]
    for sent, count in ((HEAD, LIMITS.connections_of_one), (head("GET /huge"), 2)):
        for hog in hogs * count:
            with suppress(ConnectionError):  # it has been refused already
                opened(served.connect(hog)).send(sent)
        with served.connect(OTHER) as wire:
            assert wire.ask("GET /").status == 200


def test_slow_readers_of_one_client_leave_workers(
    served: Served, opened: Callable[[Wire], Wire]
) -> None:
    """A further request is refused at once, also on a connection that is there already."""
    early = opened(served.connect(HOG))
    assert early.ask("GET /").status == 200
    for _ in range(LIMITS.workers_of_one):
        wire = opened(served.connect(HOG))
        wire.send(head("GET /huge"))
        assert wire.read(head_only=True).status == 200
    early.send(head("GET /"))
    assert refused(early)
    with served.connect(OTHER) as wire:
        assert wire.ask("GET /").status == 200


def test_what_was_taken_is_given_back(served: Served) -> None:
    """However the requests and connections end."""
    for request in (head("GET /"), head("GET /huge"), b"nonsense\r\n\r\n", b""):
        for _ in range(2 * LIMITS.connections_of_one):
            with served.connect(HOG) as wire:
                wire.send(request)
                if request:
                    assert wire.read(head_only=True).status != 503
            wait_until(lambda: not served.server.open_connections, "it has ended")
    assert not served.server.connection_shares._taken
    assert not served.server.worker_shares._taken


def test_behind_a_trusted_proxy_each_client_has_its_share(
    served: Served, opened: Callable[[Wire], Wire]
) -> None:
    """The proxy may have many connections; a client's requests count for itself."""
    hog, other = (f"X-Forwarded-For: 6.6.6.6, {address}" for address in (HOG, OTHER))
    for _ in range(LIMITS.workers_of_one):
        wire = opened(served.connect(PROXY))
        wire.send(head("GET /huge", hog))
        assert wire.read(head_only=True).status == 200
    for _ in range(LIMITS.connections_of_one):
        assert opened(served.connect(PROXY)).ask("GET /", other).status == 200
    with served.connect(PROXY) as wire:
        wire.send(head("GET /", hog))
        assert refused(wire)


def test_a_stranger_s_word_about_himself_makes_no_share(
    served: Served, opened: Callable[[Wire], Wire]
) -> None:
    """`X-Forwarded-For` of who is no proxy of ours is nothing."""
    for number in range(LIMITS.workers_of_one + 1):
        wire = opened(served.connect(HOG))
        wire.send(head("GET /huge", f"X-Forwarded-For: 10.0.0.{number}"))
        if number < LIMITS.workers_of_one:
            assert wire.read(head_only=True).status == 200
    assert refused(wire)


def test_handshakes_of_one_client_keep_nobody_out(
    tmp_path: Path, opened: Callable[[Wire], Wire]
) -> None:
    """Over TLS a client that says nothing has a place too, and one too many is hung up on."""
    files = make_certificate(tmp_path)
    with serving(tmp_path, tls=files, limits=LIMITS) as served:
        for _ in range(LIMITS.connections_of_one):
            opened(served.connect(HOG))
        wait_until(lambda: len(served.server.open_connections) == 6, "they are open")
        with served.connect(HOG) as wire:
            assert wire.at_end()
        with Wire(served.server.port, files.certificate, OTHER) as wire:
            assert wire.ask("GET /").status == 200


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Process]:
    """A server in a process of its own, with the shares it really has."""
    make_huge(tmp_path)
    with process(tmp_path) as server:
        yield server


def test_one_client_with_all_it_has(alone: Process, opened: Callable[[Wire], Wire]) -> None:
    """510 slow readers, then 1,100 open heads: others are served in between and after."""
    for count, sent in ((510, head("GET /huge")), (1100, HEAD)):
        for _ in range(count):
            wire = Wire(alone.port, address=HOG)
            try:
                wire.send(sent)
            except ConnectionError:  # it has been refused already
                wire.close()
                continue
            opened(wire)
        for _ in range(3):
            with Wire(alone.port, address=OTHER) as wire:
                assert wire.ask("GET /").status == 200


def test_shares_are_a_part() -> None:
    """Else they would be none."""
    assert DEFAULT_LIMITS.connections_of_one <= DEFAULT_LIMITS.connections // 4
    assert DEFAULT_LIMITS.workers_of_one <= DEFAULT_LIMITS.workers // 4


@pytest.mark.parametrize("clients", [1, 4, 5, 10, 50])
@pytest.mark.parametrize(
    ("limit", "total"),
    [
        (DEFAULT_LIMITS.connections_of_one, DEFAULT_LIMITS.connections),
        (DEFAULT_LIMITS.workers_of_one, DEFAULT_LIMITS.workers),
    ],
)
def test_whoever_takes_all_they_can_leave_room(clients: int, limit: int, total: int) -> None:
    """One has its limit, several have less each; who comes next has as much as they have."""
    shares = Shares(limit, total)
    taken = [0] * clients
    for number in list(range(clients)) * total:
        taken[number] += shares.take(str(number))
    if clients == 1:
        assert taken == [limit]
    assert sum(taken) < total
    assert max(taken) - min(taken) <= 1
    assert all(shares.take("next") for _ in range(min(taken) // 2))
    for number, count in enumerate(taken):
        for _ in range(count):
            shares.give_back(str(number))
    assert all(shares.take("next") for _ in range(limit - min(taken) // 2))
    assert not shares.take("next")


def test_a_share_of_many_threads() -> None:
    """None is lost and none given twice."""
    shares = Shares(3, 6)
    most = [0]
    inside = threading.Semaphore(3)

    def work() -> None:
        for _ in range(1000):
            with shares.one("a") as has_room:
                if has_room:
                    assert inside.acquire(blocking=False)
                    most[0] += 1
                    inside.release()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] > 0
    assert not shares._taken
