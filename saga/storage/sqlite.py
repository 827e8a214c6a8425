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
from saga.storage import _sqlite_writes as writes
from saga.storage._checks import check_append, check_connection, check_prune, check_query
from saga.storage._group_commit import GroupCommit, value_of
from saga.storage._session import Session
from saga.storage._sqlite_database import Database
from saga.storage._sqlite_errors import translated
from saga.storage._sqlite_writer import Writer
from saga.storage.base import Appended, Entry, NewSaga, SagaStorage, StoredSaga
from saga.storage.cursor import EntryPlace, RowPlace, read_cursor

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from concurrent.futures import Future

    from saga.clock import Clock
    from saga.events import Event
    from saga.storage.base import Claim, Row
    from saga.types import Page, SagaFilter, SagaRecord, SagaStatistics, SagaStatus

T = TypeVar("T")

PRUNE_AT_ONCE = 500
"""Sagas that one transaction deletes, so that appends wait for no more than that."""


class SQLiteSagaStorage(SagaStorage):
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
        self._path = Path(path)
        self._clock = clock or SystemClock()
        self._busy_timeout = busy_timeout
        self._answer_timeout = answer_timeout
        self._session = Session(type(self).__name__)
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
        self._commits = GroupCommit[writes.Write](self._writer.flush, self._write_thread, self._answer_timeout)
        self._closing = None
        loop = asyncio.get_running_loop()
        with ExitStack() as undo:
            undo.callback(self._leave)
            await loop.run_in_executor(self._write_thread, self._writer.open)
            await loop.run_in_executor(self._read_thread, self._reader.open)
            undo.pop_all()

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

    async def create(
        self, new: NewSaga, events: Sequence[Event], *, claim: Claim | None, write_id: str, connection: Any = None
    ) -> Appended:
        """Store a new saga with its first append."""
        self._session.check()
        check_connection(connection)
        answer: Appended = value_of(await self._commits.put(writes.create(new, events, claim, write_id)))
        return answer

    async def load(self, saga_ids: Collection[str]) -> list[StoredSaga]:
        """Return these sagas with their journals."""
        self._session.check()
        return await self._read(reader.load, list(dict.fromkeys(saga_ids)))

    async def append(
        self,
        saga_id: str,
        events: Sequence[Event],
        *,
        row: Row | None,
        expected_version: int | None,
        claim: Claim | None,
        write_id: str,
    ) -> Appended:
        """Add facts to a journal and update the row."""
        self._session.check()
        check_append(row, expected_version, claim)
        write: writes.Write
        if row is None or expected_version is None:
            write = writes.request(saga_id, events, write_id)
        else:
            write = writes.append(saga_id, events, row, expected_version, claim, write_id)
        answer: Appended = value_of(await self._commits.put(write))
        return answer

    async def claim_due(
        self,
        owner: str,
        token: str,
        ttl: float,
        limit: int,
        *,
        definitions: Collection[tuple[str, str]],
        exclude: Collection[str],
        suspects: int = 1,
    ) -> list[StoredSaga]:
        """Claim sagas that are due and that nobody drives, oldest due first."""
        self._session.check()
        write = writes.claim_due(owner, token, ttl, limit, definitions, exclude, suspects)
        claimed: list[StoredSaga] = value_of(await self._commits.put(write))
        return claimed

    async def renew(self, claims: Mapping[str, str], ttl: float) -> dict[str, int]:
        """Extend claims by ttl from now and return each saga's version."""
        self._session.check()
        if not claims:
            return {}
        versions: dict[str, int] = value_of(await self._commits.put(writes.renew(claims, ttl)))
        return versions

    async def release(self, claims: Mapping[str, str]) -> None:
        """Give claims up without counting as a crash."""
        self._session.check()
        if claims:
            value_of(await self._commits.put(writes.release(claims)))

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

    async def prune(self, older_than: float, statuses: Collection[SagaStatus], limit: int) -> int:
        """Delete sagas at rest whose journal last grew more than so many seconds ago, oldest first."""
        self._session.check()
        check_prune(older_than, statuses, limit)
        deleted = 0
        while deleted < limit:
            asked = min(PRUNE_AT_ONCE, limit - deleted)
            gone: int = value_of(await self._commits.put(writes.prune(older_than, statuses, asked)))
            deleted += gone
            if gone < asked:
                break
        return deleted

    async def health_check(self) -> None:
        """Return if the file can be read, and its write lock be had."""
        self._session.check()
        await self._read(reader.check)
        value_of(await self._commits.put(writes.release({})))
