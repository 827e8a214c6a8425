"""How writes go to PostgreSQL: many sagas' appends and creations as one statement, everything else by itself.

The statement writes what finds what it expects and says which that was; the others are looked at afterwards, so that
each gets its own answer and nobody pays for a neighbour.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg
import msgspec

from saga.codec import encode_events
from saga.events import Claimed
from saga.exceptions import SagaStorageError, SagaStorageUnavailableError
from saga.storage._checks import SUSPECT_RECOVERIES
from saga.storage._instants import micros, seconds
from saga.storage._postgresql_errors import REFUSED_VALUES
from saga.storage._postgresql_reader import load
from saga.storage._verdicts import Found, verdict
from saga.storage._writes import Append, ClaimDue, Create, JournalWrite, Prune, Release, Renew, Request, Write
from saga.storage.base import Appended
from saga.types import ENDED

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from saga.clock import Clock
    from saga.storage._postgresql_connections import Connection, Connections
    from saga.storage._postgresql_statements import Statements
    from saga.storage.base import StoredSaga

W = TypeVar("W", bound=Write)

REQUEST_TRIES = 20
"""How often a request looks for the version at which it may be stored; an owner that writes on and on may be faster."""

_STATUS = 4
"""Where an append's row has the status."""

_NO_APPENDS: tuple[list[Any], ...] = tuple([] for _ in range(12))
_NO_CREATIONS: tuple[list[Any], ...] = tuple([] for _ in range(14))

_by_saga = attrgetter("saga_id")
_found = msgspec.json.Decoder(list[Found])
_held = msgspec.json.Decoder(list[tuple[str, str, int]])


class _Due(msgspec.Struct, array_like=True):
    saga_id: str
    version: int
    fence: int
    recoveries: int
    expired: bool


_due = msgspec.json.Decoder(list[_Due])


class Writer:
    """Flushes writes."""

    def __init__(self, connections: Connections, statements: Statements, clock: Clock | None, *, hints: bool) -> None:
        """Keep the collaborators.

        Args:
            connections: To the server.
            statements: For its schema.
            clock: Stamps and judges leases; None for the server's own.
            hints: Whether to tell who listens that sagas have become due.
        """
        self._connections = connections
        self._statements = statements
        self._clock = clock
        self._hints = hints

    def _now(self) -> int | None:
        return None if self._clock is None else micros(self._clock.now())

    async def flush(self, writes: Sequence[Write]) -> None:
        """Do all these writes and set their answers.

        Raises:
            SagaStorageError: If it failed as a whole; then none of the answers counts.
        """
        journal: list[JournalWrite] = [write for write in writes if isinstance(write, Append | Create)]
        if journal:
            await self._write_all(journal)
        requests = _of(Request, writes)
        if requests:
            await self._request(requests)
        await self._claims(writes)
        await self._hint(writes)

    async def create_on(self, connection: Connection, write: Create) -> Appended | None:
        """Store a new saga in the transaction that is open on somebody else's connection; None if its id is taken."""
        values = (self._now(), *_NO_APPENDS, *[[value] for value in (*write.row, write.write_id, write.events)])
        at, _, created = await connection.fetchrow(self._statements["write_sagas"], *values)
        if created is None:
            return None
        if self._hints:
            await connection.execute(self._statements["notify"], self._statements.schema, [write.saga_id])
        return Appended(1, seconds(at))

    async def _hint(self, writes: Sequence[Write]) -> None:
        """Say what became due; once it is stored, and in no transaction with it, since NOTIFY lets commits wait."""
        due = [write.saga_id for write in _of(Request, writes)]
        due += [saga_id for write in _of(Release, writes) for saga_id, _ in write.claims]
        if due and self._hints:
            sql, schema = self._statements["notify"], self._statements.schema
            with suppress(SagaStorageError):
                await self._connections.run(lambda on: on.execute(sql, schema, due))

    async def _claims(self, writes: Sequence[Write]) -> None:
        for release in _of(Release, writes):
            await self._release(release)
        for renewal in _of(Renew, writes):
            await self._renew(renewal)
        for claim in _of(ClaimDue, writes):
            claim.answer = await self._connections.run(partial(self._claim_due, claim=claim), atomic=True)
        for prune in _of(Prune, writes):
            prune.answer = await self._prune(prune)

    async def _write_all(self, writes: Sequence[JournalWrite]) -> None:
        try:
            await self._write(writes)
        except asyncpg.UniqueViolationError:
            # A write that was stored before comes again and expects what stands there now.
            await self._examine(writes)
            await self._write_all([write for write in writes if write.answer is None])
        except REFUSED_VALUES as error:
            if len(writes) == 1:
                writes[0].answer = SagaStorageError(
                    f"PostgreSQL refused the values of saga {writes[0].saga_id}: {error}"
                )
                writes[0].answer.__cause__ = error
                return
            # Find out whose values the database refuses: do each write by itself.
            for write in writes:
                await self._write_all([write])

    async def _write(self, writes: Sequence[JournalWrite]) -> None:
        appends = sorted(_of(Append, writes), key=_by_saga)
        creates = sorted(_of(Create, writes), key=_by_saga)
        rows = [(*write.row, write.release, write.write_id, write.events) for write in appends]
        values = (self._now(), *(zip(*rows, strict=True) if rows else _NO_APPENDS))
        if creates or any(write.row[_STATUS] in ENDED for write in appends):
            new = [(*write.row, write.write_id, write.events) for write in creates]
            values += tuple(zip(*new, strict=True)) if new else _NO_CREATIONS
            sql = self._statements["write_sagas"]
        else:
            sql = self._statements["append_sagas"]
        at, appended, *created = await self._connections.run(lambda on: on.fetchrow(sql, *values))
        left = _answer(appends, appended, at)
        if creates:
            left += _answer(creates, created[0], at)
        if left:
            await self._examine(left)
            for write in left:
                if write.answer is None:
                    # What stood in its way is gone: the same write again finds what it expects.
                    message = f"saga {write.saga_id} was being changed while this was written; write it again"
                    write.answer = SagaStorageUnavailableError(message)

    async def _examine(self, writes: Sequence[JournalWrite]) -> dict[str, Found]:
        """Give the writes their answers that were stored before, or must not be."""
        sql = self._statements["examine_writes"]
        keys = ([write.saga_id for write in writes], [write.write_id for write in writes])
        answer = await self._connections.run(lambda on: on.fetchval(sql, *keys))
        found = {found.saga_id: found for found in (_found.decode(answer) if answer else ())}
        for write in writes:
            write.answer = verdict(write, found.get(write.saga_id))
        return found

    async def _request(self, requests: Sequence[Request]) -> None:
        left = sorted(requests, key=_by_saga)
        for _ in range(REQUEST_TRIES):
            found = await self._examine(left)
            left = [write for write in left if write.answer is None]
            if not left:
                return
            versions = [found[write.saga_id].version for write in left]
            sql = self._statements["request_sagas"]
            columns = zip(
                *[
                    (write.saga_id, version, write.write_id, write.events)
                    for write, version in zip(left, versions, strict=True)
                ],
                strict=True,
            )
            values = (self._now(), *columns)
            at, stored = await self._connections.run(lambda on: on.fetchrow(sql, *values))  # noqa: B023 - awaited here
            for place in stored or ():
                left[place - 1].answer = Appended(versions[place - 1] + 1, seconds(at))
            left = [write for write in left if write.answer is None]
        for write in left:
            write.answer = SagaStorageUnavailableError(
                f"saga {write.saga_id} is being written to all the time; try again"
            )

    async def _release(self, release: Release) -> None:
        if not release.claims:
            return
        columns = zip(*sorted(release.claims), strict=True)
        sql = self._statements["release_claims"]
        values = tuple(columns)
        await self._connections.run(lambda on: on.execute(sql, *values))

    async def _renew(self, renewal: Renew) -> None:
        columns = tuple(zip(*sorted(renewal.claims), strict=True))
        sql = self._statements["renew_claims"]
        now = self._now()
        answer = await self._connections.run(lambda on: on.fetchval(sql, now, *columns))
        held = _held.decode(answer) if answer else ()
        renewal.answer = {saga_id: version for saga_id, _, version in held}

    async def _claim_due(self, on: Connection, claim: ClaimDue) -> list[StoredSaga]:
        statements = self._statements
        await on.execute(statements["lock_claims"], statements.schema)
        ids = await on.fetchval(statements["select_held"], claim.token)
        if not ids:
            ids = await self._claim_new(on, claim)
            await on.execute(statements["add_up_counts"])
        stored = {saga.record.saga_id: saga for saga in await load(on, statements, ids)}
        return [stored[saga_id] for saga_id in ids]

    async def _claim_new(self, on: Connection, claim: ClaimDue) -> Collection[str]:
        definitions: list[tuple[str, str]] = msgspec.json.decode(claim.definitions)
        at, answer = await on.fetchrow(
            self._statements["select_due"],
            self._now(),
            [name for name, _ in definitions],
            [version for _, version in definitions],
            msgspec.json.decode(claim.exclude),
            claim.write_id,
            SUSPECT_RECOVERIES,
            claim.suspects,
            max(claim.limit, 0),
        )
        due = _due.decode(answer) if answer else []
        if not due:
            return []
        rows = [
            (row.saga_id, row.version, row.recoveries, _claimed_fact(claim.owner, row))
            for row in sorted(due, key=_by_saga)
        ]
        got = await on.fetchval(
            self._statements["claim_sagas"],
            at,
            claim.owner,
            claim.token,
            claim.ttl,
            claim.write_id,
            *zip(*rows, strict=True),
        )
        mine = set(got or ())
        return [row.saga_id for row in due if row.saga_id in mine]

    async def _prune(self, prune: Prune) -> int:
        sql = self._statements["prune_sagas"]
        values = (self._now(), prune.older_than, msgspec.json.decode(prune.statuses), prune.limit)
        deleted: int = await self._connections.run(lambda on: on.fetchval(sql, *values))
        return deleted


def _of(kind: type[W], writes: Sequence[Write]) -> list[W]:
    return [write for write in writes if isinstance(write, kind)]


def _answer(writes: Sequence[JournalWrite], stored: Sequence[int] | None, at: int) -> list[JournalWrite]:
    """Answer the writes at these places (from 1), and return the others."""
    stamp = seconds(at)
    for place in stored or ():
        write = writes[place - 1]
        write.answer = Appended(write.expected + 1 if isinstance(write, Append) else 1, stamp)
    if stored is not None and len(stored) == len(writes):
        return []
    return [write for write in writes if write.answer is None]


def _claimed_fact(owner: str, row: _Due) -> str:
    return encode_events([Claimed(owner, row.fence + 1, row.recoveries, row.expired)])
