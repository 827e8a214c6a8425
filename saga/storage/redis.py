"""The storage contract in Redis or Valkey: as durable as the server's AOF, and shared by the processes of many hosts.

All keys share one hash tag, so that one script may touch all of them. Not safe across a failover: replication is
asynchronous, and what was acknowledged may be gone after it.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import msgspec

from saga.checks import check_seconds, is_int, is_number, refuse
from saga.exceptions import SagaStorageError, SagaStorageUnavailableError
from saga.storage import _redis_reader as reader
from saga.storage._checks import check_query, not_found
from saga.storage._group_commit import GroupCommit
from saga.storage._grouped import GroupedStorage
from saga.storage._instants import micros
from saga.storage._records import entry_page, row_page, statistics_of
from saga.storage._redis_scripts import check_prefix
from saga.storage._redis_server import Durability, Server
from saga.storage._redis_writes import answer_journal, claim_order, journal_order
from saga.storage._urls import masked
from saga.storage._writes import ClaimDue, JournalWrite, Prune, Release, Renew
from saga.storage.cursor import EntryPlace, RowPlace, read_cursor
from saga.types import SagaStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from saga.clock import Clock
    from saga.storage._writes import Write
    from saga.storage.base import Entry, StoredSaga
    from saga.types import Page, SagaFilter, SagaRecord, SagaStatistics

LANES = 2
"""Flushes that may be on their way at once: while the server makes one durable, the next is being gathered and sent."""

LOAD_AT_ONCE = 64
"""Sagas whose journals are read by one call."""


class RedisSagaStorage(GroupedStorage):
    """Keeps sagas under a prefix of a Redis (6.2 or newer) or Valkey server."""

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "saga",
        require_durability: bool = False,
        ended_ttl: float | None = None,
        connections: int = 4,
        answer_timeout: float = 10.0,
        clock: Clock | None = None,
    ) -> None:
        """Name the server; nothing is connected before the storage is entered.

        Args:
            url: ``redis://user:password@host:port/number``, or ``rediss://`` for TLS.
            prefix: What all keys begin with: two prefixes never see each other's sagas.
            require_durability: Whether to refuse a server that does not write to its disk before it acknowledges.
            ended_ttl: After how many seconds ended sagas that need nobody go by themselves; None: when they are pruned.
            connections: How many connections at the most, 1 or more.
            answer_timeout: After how many seconds a call is told that the server does not answer.
            clock: For tests: stamps what is stored and judges leases instead of the server's clock, which is the same
                for all processes.

        Raises:
            SagaValidationError: If a value is none of these.
        """
        super().__init__()
        if not isinstance(url, str) or not url.startswith(("redis://", "rediss://")):
            refuse("url", masked(url), "redis://user:password@host:port/number")
        if not (is_int(connections) and connections >= 1):
            refuse("connections", connections, "an integer, at least 1")
        if not (is_number(answer_timeout) and answer_timeout > 0):
            refuse("answer_timeout", answer_timeout, "a finite number of seconds above 0")
        self._place = masked(url)
        self._prefix = check_prefix(prefix)
        self._require_durability = require_durability
        ttl = check_seconds("ended_ttl", ended_ttl)
        self._ended_ttl = None if ttl is None else micros(ttl)
        self._lanes = min(LANES, connections)
        self._answer_timeout = answer_timeout
        self._clock = clock
        self._server = Server(url, self._place, prefix, connections, answer_timeout)
        self._durability = Durability.UNKNOWN
        self._flushes: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        """Return the class, the URL without its password, and the prefix."""
        return f"{type(self).__name__}({self._place!r}, prefix={self._prefix!r})"

    @property
    def durability(self) -> Durability:
        """What the server keeps of what it has acknowledged, as its settings say when the storage is entered."""
        return self._durability

    async def open(self) -> None:
        """Connect, and check that the server can keep sagas.

        Raises:
            SagaStorageError: If it cannot be reached, or can not; says why.
        """
        self._session.enter()
        async with AsyncExitStack() as undo:
            undo.callback(self._session.leave)
            undo.push_async_callback(self._server.close)
            self._server.open()
            self._durability = await self._server.check(require_durability=self._require_durability)
            undo.pop_all()
        # More than a call of its own may take: a flush answers for itself.
        self._commits = GroupCommit(self._flush, 4 * self._answer_timeout, lanes=self._lanes)

    async def close(self) -> None:
        """Wait for the writes that were accepted and disconnect."""
        if self._session.is_open:
            self._session.check()
            self._session.leave()
            await asyncio.shield(asyncio.create_task(self._close()))

    async def _close(self) -> None:
        await self._commits.drain()
        await self._server.close()

    def _now(self) -> int | None:
        return None if self._clock is None else micros(self._clock.now())

    async def _run(self, script: str, /, **order: Any) -> Any:
        return await self._server.run(script, order, self._now())

    # writing

    def _flush(self, writes: Sequence[Write], flushed: Callable[[BaseException | None], object]) -> None:
        def done(task: asyncio.Task[None]) -> None:
            self._flushes.discard(task)
            flushed(asyncio.CancelledError() if task.cancelled() else task.exception())

        task = asyncio.create_task(self._write(writes))
        self._flushes.add(task)
        task.add_done_callback(done)

    async def _write(self, writes: Sequence[Write]) -> None:
        journal = [write for write in writes if isinstance(write, JournalWrite)]
        if journal:
            await self._write_journal(journal)
        for write in writes:
            if isinstance(write, Release):
                await self._run("release_claims", claims=write.claims)
            elif isinstance(write, Renew):
                versions = await self._run("renew_claims", claims=write.claims)
                held = zip(write.claims, versions, strict=True)
                write.answer = {saga_id: version for (saga_id, _, _), version in held if version}
            elif isinstance(write, ClaimDue):
                write.answer = await self._load(await self._run("claim_due", **claim_order(write)))
            elif isinstance(write, Prune):
                statuses = msgspec.json.decode(write.statuses)
                write.answer = await self._run(
                    "prune_sagas", older_than=write.older_than, statuses=statuses, limit=write.limit
                )

    async def _write_journal(self, writes: Sequence[JournalWrite]) -> None:
        try:
            at, answers = await self._run("write_sagas", **journal_order(writes, self._ended_ttl))
        except SagaStorageUnavailableError:
            raise
        except SagaStorageError as error:
            if len(writes) == 1:
                writes[0].answer = error
                return
            # One of them made the script stop, so that those after it were not written: do each by itself.
            for write in writes:
                await self._write_journal([write])
        else:
            answer_journal(writes, at, answers)

    # reading

    async def _load(self, saga_ids: Sequence[str]) -> list[StoredSaga]:
        found: list[StoredSaga] = []
        for first in range(0, len(saga_ids), LOAD_AT_ONCE):
            found += reader.loaded(await self._run("load_sagas", ids=saga_ids[first : first + LOAD_AT_ONCE]))
        return found

    async def load(self, saga_ids: Collection[str]) -> list[StoredSaga]:
        """Return these sagas with their journals."""
        self._session.check()
        return await self._load(list(dict.fromkeys(saga_ids)))

    async def query(self, selected: SagaFilter, cursor: str | None = None, limit: int = 100) -> Page[SagaRecord]:
        """Return rows, newest first, a page at a time."""
        self._session.check()
        check_query(limit)
        after = read_cursor(cursor, RowPlace)
        rows = await self._run(
            "query_sagas",
            name=selected.name or "",
            statuses=list(SagaStatus if selected.statuses is None else selected.statuses),
            in_need="" if selected.attention is None else selected.attention,
            below="" if after is None else f"{micros(after.created_at):017}{after.saga_id}",
            limit=limit + 1,
        )
        return row_page([reader.saga_row(row) for row in rows], limit)

    async def history(self, saga_id: str, cursor: str | None = None, limit: int = 100) -> Page[Entry]:
        """Return a journal, oldest entry first, a page at a time."""
        self._session.check()
        check_query(limit)
        after = read_cursor(cursor, EntryPlace)
        entries = await self._run("history", id=saga_id, after=0 if after is None else after.version, limit=limit + 1)
        if entries is False:
            raise not_found(saga_id)
        return entry_page(saga_id, [reader.entry_row(entry) for entry in entries], limit)

    async def statistics(self) -> SagaStatistics:
        """Return counts by name and status."""
        self._session.check()
        return statistics_of(reader.count_rows(await self._run("statistics")))

    async def health_check(self) -> None:
        """Return if the server answers."""
        self._session.check()
        await self._server.call("PING")
