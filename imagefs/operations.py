"""The FUSE request handlers: translate, delegate to a thread, translate back.

Scope: one method for each request, and nothing else.  What a name means is in `tree`, what an open
file means is in `handles`.  Threading: everything here runs in the trio loop, and never waits
itself for a disk, a database or the network.  What `at_once` knows needs no thread.
"""

from __future__ import annotations

import errno
import functools
import itertools
import logging
import mmap
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, ParamSpec, TypeVar, cast

import pyfuse3
from pyfuse3 import (
    EntryAttributes,
    FileHandleT,
    FileInfo,
    FileNameT,
    FlagT,
    FUSEError,
    InodeT,
    ModeT,
    ReaddirToken,
    RequestContext,
    SetattrFields,
    StatvfsData,
    XAttrNameT,
)

from catalog import cause, errors
from catalog.errors import CatalogError
from catalog.model.access import Principal
from catalog.model.names import MAX_BYTES
from catalog.tree.vfs import Vfs
from imagefs import attributes, metrics
from imagefs.at_once import AtOnce
from imagefs.errors import to_errno
from imagefs.files.handle import Handle
from imagefs.files.handles import Handles
from imagefs.files.listing import Listings
from imagefs.inodes import InodeKind, Inodes, kind_of
from imagefs.threads import Arguments, Threads
from imagefs.tree import Tree

log = logging.getLogger(__name__)

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
_Handler = Callable[Parameters, Coroutine[Any, Any, Result]]

_numbers = itertools.count(1)
"""The requests of this process, for the lines that they log."""

# Errors that an operator wants to see in the log; all others are normal for programs.
_WORTH_A_WARNING = (
    errors.IncompleteUpload,
    errors.InvalidImage,
    errors.DigestMismatch,
    errors.StoreFull,
    errors.StoreUnavailable,
    errors.CatalogUnavailable,
    errors.Spared,
)


def handler(function: _Handler[Parameters, Result]) -> _Handler[Parameters, Result]:
    """Let only FUSEError leave a handler: any other exception would end the mount."""
    observe = metrics.REQUESTS.labels(function.__name__).observe

    @functools.cache
    def errors_of(number: int) -> Callable[[], None]:
        name = errno.errorcode.get(number, str(number))
        return metrics.ERRORS.labels(function.__name__, name).inc

    @functools.wraps(function)
    async def guarded(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        number = next(_numbers)
        cause.begin("mount", number)
        begun = metrics.waiting[number] = time.perf_counter()
        try:
            return await function(*args, **kwargs)
        except FUSEError as error:
            errors_of(error.errno)()
            raise
        except CatalogError as error:
            level = logging.WARNING if isinstance(error, _WORTH_A_WARNING) else logging.DEBUG
            log.log(level, "%s: %s", function.__name__, error)
            code = to_errno(error)
            errors_of(code)()
            raise FUSEError(code) from error
        except Exception as error:
            log.exception("%s failed unexpectedly", function.__name__)
            errors_of(errno.EIO)()
            raise FUSEError(errno.EIO) from error
        finally:
            del metrics.waiting[number]
            observe(time.perf_counter() - begun)

    return guarded


class Operations(pyfuse3.Operations):
    """One mount's handlers."""

    supports_dot_lookup = True
    enable_writeback_cache = False
    enable_acl = False

    def __init__(self, vfs: Vfs, threads: Threads) -> None:
        super().__init__()
        self.inodes = Inodes()
        self.handles = Handles(vfs)
        self._tree = Tree(vfs)
        self._at_once = AtOnce(self._tree)
        self._threads = threads
        self._listings = Listings(self._tree, self._at_once, threads)
        # One block for all reads: it is filled and sent without a checkpoint of trio in between, so
        # that no other task can run and overwrite it.
        self._block = memoryview(_huge_page())

    # -- names -------------------------------------------------------------------------

    @handler
    async def lookup(
        self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        if len(name) > MAX_BYTES:
            # Enough for all handlers: the kernel looks a name up before it uses it.
            raise FUSEError(errno.ENAMETOOLONG)
        is_dot = name in (b".", b"..")
        found = None if is_dot else self._at_once.lookup(parent_inode, name)
        if found is None:
            work = self._tree.dot if is_dot else self._tree.lookup
            found = await self._looked_up(work, parent_inode, name)
        return self._remembered(found)

    async def _looked_up(
        self, work: Callable[[*Arguments], EntryAttributes], *arguments: *Arguments
    ) -> EntryAttributes:
        """What is looked up in the database; the kernel keeps it only if it is still so.

        The feed may tell the kernel of a change after the row was read, and before the kernel has
        this answer.  It would then keep the old row for minutes, and nobody would tell it again.
        """
        known = self._tree.vfs.known
        drops = known.drops
        found = await self._threads.names(work, *arguments)
        if drops != known.drops:
            found.entry_timeout = found.attr_timeout = 0
        return found

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        self.inodes.forget(inode_list)

    @handler
    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        found = self._at_once.getattr(inode)
        if found is None:
            found = await self._looked_up(self._tree.getattr, inode)
        return found

    @handler
    async def setattr(
        self,
        inode: InodeT,
        attr: EntryAttributes,
        fields: SetattrFields,
        fh: FileHandleT | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        # Mode and owner follow status and visibility: chmod and chown succeed and do
        # nothing, because cp, install and rsync call them after close
        # (docs/facts.md#tools-that-copy).
        kind, number = kind_of(inode)
        if kind is InodeKind.IMAGE and fields.update_size:
            principal = await self._threads.names(self._tree.principal, ctx.uid)
            stores = await self._threads.names(self.handles.stores, number)
            await self._threads.commits(
                stores, self.handles.truncate, number, fh, attr.st_size, principal, ctx.pid, stores
            )
        if kind is InodeKind.IMAGE and fields.update_mtime:
            await self._threads.names(self._tree.set_mtime, number, attr.st_mtime_ns, ctx.uid)
        return await self._looked_up(self._tree.getattr, inode)

    @handler
    async def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        return await self._threads.names(self._tree.readlink, inode)

    @handler
    async def mknod(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        found = await self._threads.names(self._tree.make_node, parent_inode, name, mode, ctx.uid)
        return self._remembered(found)

    @handler
    async def mkdir(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, ctx: RequestContext
    ) -> EntryAttributes:
        found = await self._threads.names(self._tree.make_folder, parent_inode, name, ctx.uid)
        return self._remembered(found)

    @handler
    async def unlink(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        await self._threads.commits("", self._tree.remove, parent_inode, name, ctx.uid)

    @handler
    async def rmdir(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        await self._threads.names(self._tree.remove_folder, parent_inode, name, ctx.uid)

    @handler
    async def symlink(
        self, parent_inode: InodeT, name: FileNameT, target: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        found = await self._threads.commits(
            "", self._tree.symlink, parent_inode, name, target, ctx.uid
        )
        return self._remembered(found)

    @handler
    async def rename(
        self,
        parent_inode_old: InodeT,
        name_old: FileNameT,
        parent_inode_new: InodeT,
        name_new: FileNameT,
        flags: FlagT,
        ctx: RequestContext,
    ) -> None:
        if flags & ~pyfuse3.RENAME_NOREPLACE:
            raise FUSEError(errno.EINVAL)
        try:
            await self._threads.commits(
                "",
                self._tree.rename,
                (parent_inode_old, name_old),
                (parent_inode_new, name_new),
                ctx.uid,
                not flags & pyfuse3.RENAME_NOREPLACE,
            )
        except errors.NotSupported:
            # At EXDEV mv copies and deletes, as between two file systems.
            raise FUSEError(errno.EXDEV) from None

    @handler
    async def link(
        self,
        inode: InodeT,
        new_parent_inode: InodeT,
        new_name: FileNameT,
        ctx: RequestContext,
    ) -> EntryAttributes:
        found = await self._threads.commits(
            "", self._tree.link, inode, new_parent_inode, new_name, ctx.uid
        )
        return self._remembered(found)

    def _remembered(self, found: EntryAttributes) -> EntryAttributes:
        self.inodes.remember(found.st_ino)
        return found

    # -- open files --------------------------------------------------------------------

    @handler
    async def create(
        self,
        parent_inode: InodeT,
        name: FileNameT,
        mode: ModeT,
        flags: FlagT,
        ctx: RequestContext,
    ) -> tuple[FileInfo, EntryAttributes]:
        if self.handles.draining:
            raise errors.Conflict(ascii(name), "the mount is being stopped")
        fh, found = await self._threads.names(self._create, parent_inode, name, flags, ctx)
        return FileInfo(fh=FileHandleT(fh)), self._remembered(found)

    def _create(
        self, parent: InodeT, name: FileNameT, flags: int, ctx: RequestContext
    ) -> tuple[int, EntryAttributes]:
        principal = self._tree.principal(ctx.uid)
        # Before the image is made: if the process may not write, no empty image stays behind.
        trail = self.handles.trail_of_writer(ctx.pid, ascii(name))
        entry, found = self._tree.create(parent, name, principal)
        return self.handles.open_created(entry, flags, principal, trail, ctx.pid), found

    @handler
    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        kind, number = kind_of(inode)
        if kind is not InodeKind.IMAGE:
            raise FUSEError(errno.ELOOP)
        known = self._at_once.who_and_where(ctx.uid, number)
        if known is None:
            known = await self._threads.names(self._who_and_where, ctx.uid, number)
        principal, stores = known
        try:
            fh, keep_cache = await self._threads.opens(
                stores, self.handles.open, number, flags, principal, ctx.pid, stores
            )
        except errors.ImageKilled:
            if flags & os.O_ACCMODE != os.O_RDONLY:
                raise
            # A killed image has nothing to read.  At EIO or EACCES libvirt stops the whole pool,
            # and tar and rsync fail.  A file that seems to have vanished is skipped.
            raise FUSEError(errno.ENOENT) from None
        return FileInfo(fh=FileHandleT(fh), keep_cache=keep_cache)

    def _handle(self, fh: FileHandleT) -> Handle:
        """An open file, which the request is about."""
        handle = self.handles[fh]
        cause.note(handle.principal.name, handle.image_id, handle.stores)
        return handle

    def _who_and_where(self, uid: int, number: int) -> tuple[Principal, str]:
        """The principal that opens an image, and the names of the stores that have it."""
        return self._tree.principal(uid), self.handles.stores(number)

    @handler
    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        handle = self._handle(fh)
        if handle.fd is not None:
            data = self._read_cached(handle.fd, off, size)
            if data is not None:
                metrics.READ.inc(len(data))
                return cast(bytes, data)  # pyfuse3 takes whatever has a buffer
        found = await self._threads.reads(handle.stores, self.handles.read, handle, off, size)
        metrics.READ.inc(len(found))
        return cast(bytes, found)

    def _read_cached(self, fd: int, offset: int, size: int) -> memoryview | None:
        """The bytes from the page cache, without waiting; None if it does not have all of them."""
        try:
            done = os.preadv(fd, [self._block[:size]], offset, os.RWF_NOWAIT)
        except OSError:
            return None
        return self._block[:size] if done == size else None

    @handler
    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        done = await self._threads.writes(self.handles.write, self._handle(fh), off, buf)
        metrics.WRITTEN.inc(done)
        return done

    @handler
    async def flush(self, fh: FileHandleT) -> None:
        handle = self._handle(fh)
        if handle.writable:
            await self._threads.commits(handle.stores, self.handles.flush, handle)

    @handler
    async def release(self, fh: FileHandleT) -> None:
        await self._threads.commits(self._handle(fh).stores, self.handles.release, fh)

    @handler
    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        handle = self._handle(fh)
        await self._threads.commits(handle.stores, self.handles.sync, handle)

    # -- folders -----------------------------------------------------------------------

    @handler
    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        return FileHandleT(self._listings.open(inode))

    @handler
    async def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        async for cookie, name, found in self._listings.members(fh, start_id):
            if not pyfuse3.readdir_reply(token, FileNameT(name), found, cookie):
                return
            self.inodes.remember(found.st_ino)

    @handler
    async def releasedir(self, fh: FileHandleT) -> None:
        self._listings.close(fh)

    @handler
    async def fsyncdir(self, fh: FileHandleT, datasync: bool) -> None:
        """Does nothing: every change of a folder is durable before it is answered."""

    @handler
    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        # pyfuse3 does not pass on the inode, so the answer is about the default store.
        return await self._threads.room(self._tree.statfs)

    @handler
    async def access(self, inode: InodeT, mode: ModeT, ctx: RequestContext) -> bool:
        # The option default_permissions is always on: the kernel answers access(2) itself.
        return True

    # -- extended attributes -----------------------------------------------------------

    @handler
    async def getxattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> bytes:
        if not name.startswith(b"user."):
            # Answered from memory: the kernel asks for security.capability at every write(2).
            # EOPNOTSUPP and not ENODATA: after it ls does not ask for other files any more.
            raise FUSEError(errno.EOPNOTSUPP)
        found = await self._threads.names(self._tree.xattrs, inode, ctx.uid)
        value = found.get(name.decode(errors="replace"))
        if value is None:
            raise FUSEError(pyfuse3.ENOATTR)
        return value.encode()

    @handler
    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[XAttrNameT]:
        found = await self._threads.names(self._tree.listed_xattrs, inode, ctx.uid)
        return [XAttrNameT(name.encode()) for name in found]

    @handler
    async def setxattr(
        self, inode: InodeT, name: XAttrNameT, value: bytes, ctx: RequestContext
    ) -> None:
        known = _catalog_name(name)
        await self._threads.names(self._tree.set_xattr, inode, known, value, ctx.uid)

    @handler
    async def removexattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> None:
        known = _catalog_name(name)
        try:
            await self._threads.names(self._tree.set_xattr, inode, known, None, ctx.uid)
        except errors.NotFound:
            raise FUSEError(pyfuse3.ENOATTR) from None


def _huge_page() -> mmap.mmap:
    """2 MiB of memory, as one huge page if the host has them: the kernel copies it faster."""
    memory = mmap.mmap(-1, 2 * attributes.BLOCK, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def _catalog_name(name: bytes) -> str:
    try:
        known = attributes.catalog_name(name.decode())
    except UnicodeDecodeError:
        raise errors.InvalidName(ascii(name), "a name is UTF-8") from None
    if known is None:
        raise FUSEError(errno.EOPNOTSUPP)
    return known
