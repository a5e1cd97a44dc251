"""Stores one object in Swift: a small one as it is, a larger one as a Static Large Object.

One writer is used by one thread; several threads of its own send the segments.

    CONTAINER/KEY                           the object, or the manifest: put last, in one step
    CONTAINER_segments/KEY/UPLOAD/00000000  a segment
    CONTAINER_segments/KEY/UPLOAD/m…        a manifest of segments, if one cannot list all

Each upload has a name UPLOAD of its own, which is also in a header of the object.  Segments that
belong to no object come from an unfinished upload.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalog.errors import CatalogError, IncompleteUpload, NotFound, StoreUnavailable
from catalog.stores.base import Check
from catalog.stores.http_client.errors import http_errors
from catalog.stores.policy.retry import Retry
from catalog.stores.swift.client import UPLOAD, ObjectInfo, SwiftClient, unquoted
from catalog.stores.swift.pieces import Piece, piece_of_file, piece_of_memory, piece_of_object
from catalog.stores.swift.segments import Left

_PUT_MANIFEST = {"multipart-manifest": "put"}


@dataclass(frozen=True, slots=True)
class SwiftTarget:
    """The object to store, and how."""

    container: str
    segments: str
    """The container of the segments."""
    key: str
    url: str
    """`commit` returns it."""
    segment_size: int
    """Bytes; a larger object becomes a large object."""
    concurrency: int
    """Segments in flight at the same time."""
    retry: Retry
    """For one segment: nobody above could send a single segment again, only the whole image."""

    @property
    def path(self) -> str:
        """`container/key` of the object."""
        return f"{self.container}/{self.key}"


class SwiftWriter:
    """An upload.  `write`, or `send` and `take`, or `copy_from`; then `commit`."""

    def __init__(self, client: SwiftClient, target: SwiftTarget) -> None:
        self._client = client
        self._target = target
        self._upload = secrets.token_hex(8)
        self._buffer = bytearray()
        """The segment that is being filled."""
        self._whole: Piece | None = None
        """The whole object, if it is small and comes from `take` or `copy_from`."""
        self._threads = ThreadPoolExecutor(target.concurrency, "swift-upload")
        self._segments: list[Future[dict[str, Any]]] = []
        """The segments sent so far, as entries of the manifest."""
        self._stopped = threading.Event()
        self._check: Check | None = None
        """The check of a staged file that is sent while it grows."""
        self._is_over = False
        """Whether `cancel` must not remove anything any more."""
        self._left: Mapping[int, tuple[int, str]] = {}
        """Segments of an unfinished upload, by number: size and MD5."""

    def go_on(self, left: Left) -> None:
        """Continue an unfinished upload: written bytes are compared with its segments."""
        self._upload, self._left = left.name.rpartition("/")[2], left.segments

    def write(self, data: bytes | memoryview) -> None:
        """Append `data`; returns when it is sent or in memory.

        At most `concurrency` segments are in memory.  Raises StoreFull, ImageTooLarge,
        StoreUnavailable; each may be the error of an earlier segment.
        """
        rest = memoryview(data).cast("B")
        while rest:
            room = self._target.segment_size - len(self._buffer)
            if not room:
                self._send_buffer()
                continue
            self._buffer += rest[:room]
            rest = rest[room:]

    def send(self, staged: Path, ready: int, check: Check) -> int:
        """Begin the next segment of a file that still grows, unless it may be the last one."""
        self._check = check
        sent, step = len(self._segments) * self._target.segment_size, self._target.segment_size
        if ready - sent <= step:
            return sent
        self._send(piece_of_file(staged, range(sent, sent + step)))
        return sent + step

    def take(self, staged: Path) -> None:
        """Send a file, or the rest that `send` left.

        Raises as `write`; IncompleteUpload if the file shrinks meanwhile.
        """
        with http_errors(str(staged)):
            size = staged.stat().st_size
        rest = self._parts(size)[len(self._segments) :]
        self._send_pieces([piece_of_file(staged, part) for part in rest])

    def copy_from(self, path: str, source: ObjectInfo) -> None:
        """Let the server copy another object, whatever its layout.  Raises as `write`; NotFound."""
        parts = self._parts(source.size)
        self._send_pieces([piece_of_object(path, source, part) for part in parts])

    def commit(self) -> str:
        """Send the rest, then put the object or its manifest; return the url."""
        target = self._target
        try:
            old = self._client.find(target.path, target.url)
            if self._segments:
                if self._buffer:
                    self._send_buffer()
                self._publish(self._manifest(), _PUT_MANIFEST)
            else:
                self._publish(self._whole or piece_of_memory(self._buffer))
        except BaseException:
            self.cancel()
            raise
        self._is_over = True
        self._threads.shutdown()
        self._drop_segments_of(old)
        return target.url

    def cancel(self) -> None:
        """Stop sending and remove all segments; fsck finds those that cannot be removed."""
        self._stopped.set()
        self._threads.shutdown(cancel_futures=True)
        self._buffer = bytearray()
        if self._is_over:
            return
        self._is_over = True
        with suppress(CatalogError):
            for number in {*range(len(self._segments)), *self._left}:
                self._client.delete(self._segment_path(f"{number:08d}"), self._target.url)
            if len(self._segments) > self._client.limits().segments:
                self._client.delete_prefix(
                    self._target.segments, self._segment_name("m"), self._target.url
                )

    def _parts(self, size: int) -> list[range]:
        """The object as ranges of a segment's size; an empty object is one range."""
        step = self._target.segment_size
        return [range(at, min(at + step, size)) for at in range(0, max(size, 1), step)]

    def _send_pieces(self, pieces: Sequence[Piece]) -> None:
        """Send the last pieces; a single piece waits for `commit`."""
        if len(pieces) == 1 and not self._segments:
            self._whole = pieces[0]
            return
        for piece in pieces:
            self._send(piece)
        for segment in self._segments:
            segment.result()

    def _send_buffer(self) -> None:
        piece, self._buffer = piece_of_memory(self._buffer), bytearray()
        self._send(piece)

    def _send(self, piece: Piece) -> None:
        """Send a segment in another thread; return when a thread is free for the next one.

        Raises the errors of earlier segments.
        """
        sent = len(self._segments)
        self._segments.append(self._threads.submit(self._put_segment, sent, piece))
        if sent + 1 >= self._target.concurrency:
            self._segments[sent + 1 - self._target.concurrency].result()

    def _put_segment(self, number: int, piece: Piece) -> dict[str, Any]:
        path = self._segment_path(f"{number:08d}")
        size, etag = self._left.get(number, (-1, ""))
        if size == piece.size and etag == piece.etag(self._target.url):
            return {"path": f"/{path}", "etag": etag, "size_bytes": size}
        try:
            etag = self._target.retry.repeat(lambda: self._put(path, piece))
        except NotFound:
            # Glance has made the container, and no second one for segments.
            self._client.make_container(self._target.segments)
            etag = self._target.retry.repeat(lambda: self._put(path, piece))
        return {"path": f"/{path}", "etag": etag, "size_bytes": piece.size}

    def _put(
        self,
        path: str,
        piece: Piece,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> str:
        """PUT one object; return its etag."""
        self._refuse_if_stopped()
        url = self._target.url
        is_trusted = piece.copied or query or self._client.is_tls()
        etag = "" if is_trusted else piece.etag(url)
        sent = {
            "Content-Length": "0" if piece.copied else str(piece.size),
            "Content-Type": "application/octet-stream",
            **({"ETag": etag} if etag else {}),
            **piece.copied,
            **(headers or {}),
        }
        answer, _ = self._client.do(
            "PUT",
            path,
            201,
            subject=url,
            headers=sent,
            query=query,
            body=lambda: self._unless_stopped(piece.blocks()),
        )
        return etag or unquoted(answer.get("ETag", ""))

    def _unless_stopped(self, blocks: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
        for block in blocks:
            self._refuse_if_stopped()
            yield block

    def _refuse_if_stopped(self) -> None:
        """Raise an error that no retry repeats, when nobody wants the data any more."""
        if self._stopped.is_set():
            raise IncompleteUpload(self._target.url, "the upload was cancelled")
        if self._check is not None:
            self._check()

    def _publish(self, piece: Piece, query: Mapping[str, str] | None = None) -> None:
        """Put the object or the manifest under the key, which makes it visible."""
        target = self._target
        try:
            self._put(target.path, piece, {UPLOAD: self._upload}, query)
        except StoreUnavailable:
            # Perhaps the request succeeded, and only its answer was lost.  `_is_over` is set
            # first: if `find` fails, too, the segments stay, as an object may need them.
            self._is_over = True
            found = self._client.find(target.path, target.url)
            if found is None or found.upload != self._upload:
                self._is_over = False
                raise

    def _manifest(self) -> Piece:
        """The manifest.  If there are more segments than it can list, it lists manifests."""
        entries = [segment.result() for segment in self._segments]
        limit, level = self._client.limits().segments, 0
        while len(entries) > limit:
            groups = [entries[at : at + limit] for at in range(0, len(entries), limit)]
            entries = [
                self._put_manifest(f"m{level}-{number:08d}", group)
                for number, group in enumerate(groups)
            ]
            level += 1
        return piece_of_memory(json.dumps(entries).encode())

    def _put_manifest(self, name: str, entries: list[dict[str, Any]]) -> dict[str, Any]:
        path = self._segment_path(name)
        etag = self._put(path, piece_of_memory(json.dumps(entries).encode()), query=_PUT_MANIFEST)
        size = sum(entry["size_bytes"] for entry in entries)
        return {"path": f"/{path}", "etag": etag, "size_bytes": size}

    def _drop_segments_of(self, old: ObjectInfo | None) -> None:
        """Remove the segments of the replaced object; fsck finds those that stay."""
        if old is None or old.upload is None or not old.is_static:
            return
        prefix = f"{self._target.key}/{old.upload}/"
        with suppress(CatalogError):
            self._client.delete_prefix(self._target.segments, prefix, self._target.url)

    def _segment_name(self, name: str) -> str:
        return f"{self._target.key}/{self._upload}/{name}"

    def _segment_path(self, name: str) -> str:
        return f"{self._target.segments}/{self._segment_name(name)}"
