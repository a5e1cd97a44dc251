"""Storing one object in Swift: small ones as they are, others as Static Large Objects.

One writer is used by one thread; it sends segments by several of its own.

    CONTAINER/KEY                           the object, or the manifest: put last, in one step
    CONTAINER_segments/KEY/UPLOAD/00000000  a segment
    CONTAINER_segments/KEY/UPLOAD/m…        a manifest of segments, when one cannot list all

Each upload has its own name UPLOAD, which the object carries in a header: segments of
which no object says that they are its own were left by an upload that died.
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
from catalog.stores.network import http_errors
from catalog.stores.policy.retry import Retry
from catalog.stores.swift.client import UPLOAD, ObjectInfo, SwiftClient, unquoted
from catalog.stores.swift.pieces import Piece, piece_of_file, piece_of_memory, piece_of_object
from catalog.stores.swift.segments import Left

_PUT_MANIFEST = {"multipart-manifest": "put"}


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be stored where."""

    container: str
    segments: str
    """The container of the segments."""
    key: str
    url: str
    """Returned by a commit."""
    segment_size: int
    """Bytes; what is larger becomes a large object."""
    concurrency: int
    """Segments in flight at once."""
    retry: Retry
    """Of a segment: nobody above could send one again, but only the whole image."""

    @property
    def path(self) -> str:
        """Of the object."""
        return f"{self.container}/{self.key}"


class SwiftWriter:
    """An upload.  `write`, or `send` and `take`, or `copy_from`; then `commit`."""

    def __init__(self, client: SwiftClient, target: Target) -> None:
        self._client = client
        self._target = target
        self._upload = secrets.token_hex(8)
        self._buffer = bytearray()
        """Of the segment that is being filled."""
        self._whole: Piece | None = None
        """What is no large object and was not written."""
        self._threads = ThreadPoolExecutor(target.concurrency, "swift-upload")
        self._segments: list[Future[dict[str, Any]]] = []
        """Those sent, as the manifest's entries."""
        self._stopped = threading.Event()
        self._check: Check | None = None
        """Of a staged file that was sent while it grew."""
        self._is_over = False
        """Whether nothing is left that `cancel` should remove."""
        self._left: Mapping[int, tuple[int, str]] = {}
        """Segments that an earlier upload has sent: size and MD5."""

    def go_on(self, left: Left) -> None:
        """Go on with an upload: what is written is compared with its segments."""
        self._upload, self._left = left.name.rpartition("/")[2], left.segments

    def write(self, data: bytes | memoryview) -> None:
        """Append `data`; returns when it is sent or in memory.

        In memory are at most `concurrency` segments.  Raises StoreFull,
        ImageTooLarge, StoreUnavailable: also what befell an earlier segment.
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
        """Begin the next segment of a file that still grows, if that is not the last one yet."""
        self._check = check
        sent, step = len(self._segments) * self._target.segment_size, self._target.segment_size
        if ready - sent <= step:
            return sent
        self._send(piece_of_file(staged, range(sent, sent + step)))
        return sent + step

    def take(self, staged: Path) -> None:
        """Send a file, or what is left of it.

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
        """Stop what is being sent and remove what was sent; what cannot be is left for fsck."""
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
        """The whole as ranges of a segment's size; an empty one is one part."""
        step = self._target.segment_size
        return [range(at, min(at + step, size)) for at in range(0, max(size, 1), step)]

    def _send_pieces(self, pieces: Sequence[Piece]) -> None:
        """Send the last pieces; one that is the only one waits for `commit`."""
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
        """Send a segment by another thread; return when one more could be sent at once.

        Raises what befell earlier ones.
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
            # Beside a container of Glance's there is none for segments.
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
        """Raise what no retry repeats when nobody wants what is sent."""
        if self._stopped.is_set():
            raise IncompleteUpload(self._target.url, "the upload was cancelled")
        if self._check is not None:
            self._check()

    def _publish(self, piece: Piece, query: Mapping[str, str] | None = None) -> None:
        """Put the object or the manifest under the key: now it is visible."""
        target = self._target
        try:
            self._put(target.path, piece, {UPLOAD: self._upload}, query)
        except StoreUnavailable:
            # The answer may have been lost, and not the request.  Should the server not
            # tell, the segments stay: an object never loses its own.
            self._is_over = True
            found = self._client.find(target.path, target.url)
            if found is None or found.upload != self._upload:
                self._is_over = False
                raise

    def _manifest(self) -> Piece:
        """The manifest's text; of more segments than one can list, of manifests of them."""
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
        """Remove the segments of the object that was replaced; fsck finds what stays."""
        if old is None or old.upload is None or not old.is_static:
            return
        prefix = f"{self._target.key}/{old.upload}/"
        with suppress(CatalogError):
            self._client.delete_prefix(self._target.segments, prefix, self._target.url)

    def _segment_name(self, name: str) -> str:
        return f"{self._target.key}/{self._upload}/{name}"

    def _segment_path(self, name: str) -> str:
        return f"{self._target.segments}/{self._segment_name(name)}"
