"""The storage contract in an SQLite file: durable without a server, for one host.

One thread writes and one reads, each on its own connection; the event loop waits for neither. Several processes of one
host may use one file: each transaction takes the write lock first. The file must lie on a local disk.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from saga.checks import is_number, refuse
from saga.clock import SystemClock
from saga.exceptions import SagaStorageUnavailableError, SagaValidationError
from saga.storage import _sqlite_reader as reader
from saga.storage._checks import check_query
from saga.storage._group_commit import GroupCommit, value_of
from saga.storage._grouped import GroupedStorage
from saga.storage._sqlite_database import Database
from saga.storage._sqlite_errors import translated
from saga.storage._sqlite_guest import create_on
from saga.storage._sqlite_writer import Writer
from saga.storage._writes import release
from saga.storage.cursor import EntryPlace, RowPlace, read_cursor

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from concurrent.futures import Future

    from saga.clock import Clock
    from saga.storage._writes import Create, Write
    from saga.storage.base import Appended, Entry, StoredSaga
    from saga.types import Page, SagaFilter, SagaRecord, SagaStatistics

T = TypeVar("T")


class SQLiteSagaStorage(GroupedStorage):
    """Keeps sagas in one SQLite file, with `synchronous=FULL`: what is answered survives the loss of power."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        clock: Clock | None = None,
        busy_timeout: float = 5.0,
        answer_timeout: float = 30.0,
    ) -> None:
        """Name the file; it is created when the storage is entered, readable by its owner only.

        Args:
            path: The file. It must lie on a local disk, in a folder that exists.
            clock: Stamps what is stored and judges leases; the system's clock by default.
            busy_timeout: For how many seconds to wait while another process writes.
            answer_timeout: After how many seconds a call is told that the disk does not answer.

        Raises:
            SagaValidationError: If a value is none of these.
        """
        if not isinstance(path, str | os.PathLike) or not os.fspath(path):
            refuse("path", path, "the path of a file")
        if os.fspath(path) == ":memory:":
            refuse("path", path, "the path of a file; InMemorySagaStorage keeps sagas in memory")
        for what, value in (("busy_timeout", busy_timeout), ("answer_timeout", answer_timeout)):
            if not (is_number(value) and value > 0):
                refuse(what, value, "a finite number of seconds above 0")
        super().__init__()
        self._path = Path(path)
        self._clock = clock or SystemClock()
        self._busy_timeout = busy_timeout
        self._answer_timeout = answer_timeout
        self._closing: asyncio.Task[None] | None = None

    def _at(self, instant: str, saga_ids: Sequence[str]) -> None:
        """Do nothing; for subclasses that want to know, in the writing thread, how far each flush is.

        Args:
            instant: "before" the statements, "written" (but not committed), "committed" (but nobody was told).
            saga_ids: The sagas whose journals the flush was asked to extend; not those it claims.
        """

    async def open(self) -> None:
        """Open the file, creating it where it is missing, and check that it can keep what it is given."""
        self._session.enter()
        self._write_thread = ThreadPoolExecutor(1, f"{self._path.name}-writes")
        self._read_thread = ThreadPoolExecutor(1, f"{self._path.name}-reads")
        self._writer = Writer(self._path, self._clock, self._busy_timeout, self._at)
        self._reader = Database(self._path, self._busy_timeout, writes=False)
        self._commits = GroupCommit(self._flush, self._answer_timeout)
        self._closing = None
        self._loop = loop = asyncio.get_running_loop()
        with ExitStack() as undo:
            undo.callback(self._leave)
            await loop.run_in_executor(self._write_thread, self._writer.open)
            await loop.run_in_executor(self._read_thread, self._reader.open)
            undo.pop_all()

    def _flush(self, writes: Sequence[Write], flushed: Callable[[BaseException | None], object]) -> None:
        def done(future: Future[None]) -> None:
            self._loop.call_soon_threadsafe(flushed, future.exception())

        self._write_thread.submit(self._writer.flush, writes).add_done_callback(done)

    async def close(self) -> None:
        """Wait for the writes that were accepted and close the file."""
        if self._session.is_open:
            self._session.check()
            self._session.leave()
            self._closing = asyncio.create_task(self._close())
        if self._closing is not None:
            await asyncio.shield(self._closing)

    async def _close(self) -> None:
        try:
            async with asyncio.timeout(self._answer_timeout):
                try:
                    await self._commits.drain()
                finally:
                    # Also where the disk hangs: the threads then close the file when it answers, if ever.
                    closed = self._leave()
                await asyncio.gather(*map(asyncio.wrap_future, closed))
        except TimeoutError as error:
            raise self._silent() from error

    def _leave(self) -> list[Future[None]]:
        """Let each thread close its connection after all that it was given to do, and end."""
        self._session.leave()
        read = self._read_thread.submit(self._reader.close)
        written = self._write_thread.submit(self._close_last, read)
        self._read_thread.shutdown(wait=False)
        self._write_thread.shutdown(wait=False)
        return [read, written]

    def _close_last(self, other: Future[None]) -> None:
        """Close the connection that can write after the other one: the last of all tidies the log away."""
        wait([other])
        self._writer.close()

    async def _read(self, question: Callable[..., T], *args: object) -> T:
        call = partial(self._ask, question, *args)
        try:
            async with asyncio.timeout(self._answer_timeout):
                return await asyncio.get_running_loop().run_in_executor(self._read_thread, call)
        except TimeoutError as error:
            raise self._silent() from error

    def _ask(self, question: Callable[..., T], *args: object) -> T:
        try:
            with translated(self._path):
                return question(self._reader, *args)
        except UnicodeEncodeError as error:
            message = f"a text of this question is no Unicode: {error}"
            raise SagaValidationError(message) from error

    def _silent(self) -> SagaStorageUnavailableError:
        message = f"the database {self._path} has not answered for {self._answer_timeout} seconds; check its disk"
        return SagaStorageUnavailableError(message)

    async def _create_on(self, connection: Any, new: Create) -> Appended:
        return create_on(connection, self._path, self._clock, new)

    async def load(self, saga_ids: Collection[str]) -> list[StoredSaga]:
        """Return these sagas with their journals."""
        self._session.check()
        return await self._read(reader.load, list(dict.fromkeys(saga_ids)))

    async def query(self, selected: SagaFilter, cursor: str | None = None, limit: int = 100) -> Page[SagaRecord]:
        """Return rows, newest first, a page at a time."""
        self._session.check()
        check_query(limit)
        return await self._read(reader.query, selected, read_cursor(cursor, RowPlace), limit)

    async def history(self, saga_id: str, cursor: str | None = None, limit: int = 100) -> Page[Entry]:
        """Return a journal, oldest entry first, a page at a time."""
        self._session.check()
        check_query(limit)
        return await self._read(reader.history, saga_id, read_cursor(cursor, EntryPlace), limit)

    async def statistics(self) -> SagaStatistics:
        """Return counts by name and status."""
        self._session.check()
        return await self._read(reader.statistics)

    async def health_check(self) -> None:
        """Return if the file can be read, and its write lock be had."""
        self._session.check()
        await self._read(reader.check)
        value_of(await self._commits.put(release({})))
