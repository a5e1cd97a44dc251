"""Bodies of requests, decoded from bytes that arrive in every possible way."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.errors import ImageTooLarge, IncompleteUpload
from web.exchange.body import (
    CHUNK_LINE_LIMIT,
    TRAILER_LIMIT,
    Body,
    Disconnected,
    FileRange,
    Incoming,
)

LIMIT = 1024


class Arrivals:
    """Bytes that arrive in pieces; after them the connection is closed."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = [piece for piece in pieces if piece]
        self.largest = 0

    def receive(self, view: memoryview) -> int:
        """As socket.recv_into."""
        self.largest = max(self.largest, len(view))
        if not self.pieces:
            return 0
        piece = self.pieces.pop(0)
        count = min(len(piece), len(view))
        view[:count] = piece[:count]
        if piece[count:]:
            self.pieces.insert(0, piece[count:])
        return count


def body_of(*pieces: bytes, length: int | None = None) -> Body:
    """A body whose bytes arrive in these pieces."""
    return Body(Incoming(Arrivals(*pieces).receive), length, LIMIT)


def read_all(body: Body, size: int = 100) -> bytes:
    """Read to the end by blocks."""
    block = memoryview(bytearray(size))
    found = b""
    while count := body.readinto(block):
        found += block[:count]
    return found


def chunked(*chunks: bytes, trailer: bytes = b"") -> bytes:
    """The chunked coding of these chunks."""
    coded = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return coded + b"0\r\n" + trailer + b"\r\n"


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=300), max_size=8),
    cuts=st.lists(st.integers(0, 2000)),
    size=st.integers(1, 400),
)
def test_chunks_are_joined_however_they_arrive(
    chunks: list[bytes], cuts: list[int], size: int
) -> None:
    """Neither the cuts of TCP nor the reader's block size change what is read."""
    coded = chunked(*chunks)
    places = sorted({0, len(coded), *(cut for cut in cuts if cut < len(coded))})
    pieces = [coded[start:end] for start, end in pairwise(places)]
    body = body_of(*pieces)
    assert read_all(body, size) == b"".join(chunks)
    assert body.finished


@given(chunks=st.lists(st.binary(min_size=1, max_size=50), max_size=4), data=st.data())
def test_a_cut_body_is_incomplete(chunks: list[bytes], data: st.DataObject) -> None:
    """Wherever a chunked body is cut off, its reader is told; also when it asks again."""
    coded = chunked(*chunks)
    body = body_of(coded[: data.draw(st.integers(0, len(coded) - 1))])
    for _ in range(2):
        with pytest.raises(IncompleteUpload):
            read_all(body)
    assert not body.can_discard(LIMIT)


def test_what_follows_a_body_stays() -> None:
    """The next request is not read as a part of this one's body."""
    for coded, length in ((chunked(b"abc"), None), (b"abc", 3)):
        incoming = Incoming(Arrivals(coded + b"GET /").receive)
        incoming.fill()
        assert read_all(Body(incoming, length, LIMIT)) == b"abc"
        assert incoming.buffer == b"GET /"


@pytest.mark.parametrize(
    "coded",
    [
        b"3\nabc\r\n0\r\n\r\n",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"3\r\nab\r\n0\r\n\r\n",
        b"-3\r\nabc\r\n0\r\n\r\n",
        b"+3\r\nabc\r\n0\r\n\r\n",
        b"0x3\r\nabc\r\n0\r\n\r\n",
        b"3_0\r\nabc\r\n0\r\n\r\n",
        b" 3\r\nabc\r\n0\r\n\r\n",
        b"\r\nabc\r\n0\r\n\r\n",
        b"1234567890abcdef0\r\nabc",
        b"3;\0\r\nabc\r\n0\r\n\r\n",
        b"3;a\nb\r\nabc\r\n0\r\n\r\n",
        b"3;" + b"x" * CHUNK_LINE_LIMIT + b"\r\nabc\r\n0\r\n\r\n",
        b"3\r\nabc\r\n0\r\n" + b"A: b\r\n" * (TRAILER_LIMIT // 4) + b"\r\n",
    ],
)
def test_broken_chunks_are_refused(coded: bytes) -> None:
    """Framing that another program could read otherwise ends the body as incomplete."""
    with pytest.raises(IncompleteUpload):
        read_all(body_of(coded))


def test_extensions_and_trailers_are_ignored() -> None:
    """RFC 9112 §7.1.1, §7.1.2."""
    coded = b'3 ; name="value"\r\nabc\r\n0;last\r\nX-Trailer: 1\r\n\r\n'
    assert read_all(body_of(coded)) == b"abc"


def test_tiny_chunks_fill_a_block() -> None:
    """A reader gets what has arrived, not one byte per call."""
    body = body_of(chunked(*[b"x"] * 1000))
    block = memoryview(bytearray(2000))
    assert body.readinto(block) == 1000


def test_a_chunk_is_not_kept_back_for_the_next() -> None:
    """What has arrived is given at once, though the line that ends the chunk has come too."""
    body = body_of(b"1\r\nx\r\n", b"1\r\ny\r\n0\r\n\r\n")
    block = memoryview(bytearray(10))
    assert body.readinto(block) == 1
    assert body.received == 1
    assert read_all(body) == b"y"


def test_known_length_goes_straight_into_the_view() -> None:
    """Nothing is buffered between the socket and the reader's block."""
    arrivals = Arrivals(b"x" * 5000)
    body = Body(Incoming(arrivals.receive), 5000, LIMIT)
    assert body.readinto(memoryview(bytearray(10_000))) == 5000
    assert arrivals.largest == 5000


def test_an_early_end_says_how_far_it_came() -> None:
    """The reason has both numbers."""
    body = body_of(b"abc", length=10)
    with pytest.raises(IncompleteUpload, match="after 3 of 10 bytes"):
        read_all(body)


def test_a_stall_is_incomplete() -> None:
    """What the connection raises for a client that sends nothing becomes IncompleteUpload."""

    def stalled(_view: memoryview) -> int:
        raise Disconnected("no progress for too long")

    with pytest.raises(IncompleteUpload, match="no progress"):
        read_all(Body(Incoming(stalled), None, LIMIT))


def test_read_returns_small_bodies() -> None:
    """`read` gives all, or as much as is asked for."""
    assert body_of(b"ab", b"cd", length=4).read() == b"abcd"
    assert body_of(chunked(b"ab", b"cd")).read() == b"abcd"
    assert body_of(b"x" * LIMIT, length=LIMIT).read() == b"x" * LIMIT
    body = body_of(b"ab", b"cd", length=4)
    assert [body.read(3), body.read(3), body.read(3)] == [b"abc", b"d", b""]


def test_read_refuses_large_bodies() -> None:
    """A known length is refused unread, a chunked body as soon as it is too large."""
    known = body_of(b"", length=LIMIT + 1)
    with pytest.raises(ImageTooLarge):
        known.read()
    assert known.received == 0
    endless = body_of(*[b"64\r\n" + b"x" * 100 + b"\r\n"] * 100)
    with pytest.raises(ImageTooLarge):
        endless.read()
    assert endless.received <= LIMIT + 1


def test_the_client_is_asked_once_and_only_by_a_reader() -> None:
    """100 Continue goes out at the first read, and never for an empty or a too large body."""
    asked: list[int] = []

    def invite() -> None:
        asked.append(1)

    incoming = Incoming(Arrivals(b"abcd").receive)
    body = Body(incoming, 4, LIMIT, invite)
    assert not body.can_discard(LIMIT)
    assert asked == []
    assert body.read(2) + body.read(2) == b"abcd"
    assert asked == [1]
    Body(incoming, 0, LIMIT, invite).read()
    with pytest.raises(ImageTooLarge):
        Body(incoming, LIMIT + 1, LIMIT, invite).read()
    assert asked == [1]


def test_a_file_range_is_closed_or_released(tmp_path: Path) -> None:
    """Without `release` the server owns the descriptor."""
    released: list[int] = []
    fd = os.open(tmp_path, os.O_RDONLY)
    FileRange(fd, 0, 1, lambda: released.append(fd)).close()
    assert released == [fd]
    FileRange(fd, 0, 1).close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
