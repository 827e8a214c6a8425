"""The one thread's worth of writing: many sagas' writes go to SQLite as one durable transaction.

The fast path takes it that every write finds what it expects and looks at row counts only. Where one does not, the
transaction is undone and runs again after a look at what stands there, so that each write gets its own answer and
nobody pays for a neighbour.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from saga.codec import encode_events
from saga.events import Claimed
from saga.exceptions import (
    SagaCorruptStateError,
    SagaStorageError,
    SagaStorageUnavailableError,
)
from saga.storage._checks import SUSPECT_RECOVERIES
from saga.storage._instants import seconds
from saga.storage._sqlite_database import Database
from saga.storage._sqlite_errors import translated
from saga.storage._sqlite_reader import load
from saga.storage._sqlite_time import instant_of
from saga.storage._verdicts import Found, verdict
from saga.storage._writes import Append, ClaimDue, Create, JournalWrite, Prune, Release, Renew, Request, Write
from saga.storage.base import Appended

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from saga.clock import Clock
    from saga.storage.base import StoredSaga

W = TypeVar("W", bound=Write)
J = TypeVar("J", bound=JournalWrite)

# What SQLite or its driver raises because of one write's own values, not because of the database.
_BAD_VALUES = (
    OverflowError,
    UnicodeEncodeError,
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
)


class _UnexpectedError(Exception):
    """A row count says that at least one write did not find what it expected."""


class _DueRow(msgspec.Struct, array_like=True):
    saga_id: str
    version: int
    fence: int
    recoveries: int
    expired: int


_found = msgspec.json.Decoder(list[Found])
_due = msgspec.json.Decoder(list[_DueRow])
_held = msgspec.json.Decoder(list[tuple[str, str, int]])
_ids = msgspec.json.Decoder(list[str])
_numbers = msgspec.json.Decoder(list[int])


class Writer:
    """Flushes writes; every method runs in the one thread that writes."""

    def __init__(
        self, path: Path, clock: Clock, busy_timeout: float, at_instant: Callable[[str, Sequence[str]], None]
    ) -> None:
        """Name the database.

        Args:
            path: The file.
            clock: Stamps what is written and judges leases.
            busy_timeout: For how many seconds to wait for other processes.
            at_instant: Is called with "before", "written" (not committed) and "committed" (not told to anybody), and
                the sagas whose journals the flush was asked to extend.
        """
        self._path = path
        self._clock = clock
        self._at_instant = at_instant
        self._database = Database(path, busy_timeout, writes=True)

    def open(self) -> None:
        """Open the database for writing; see ``Database.open`` for what it raises."""
        self._database.open()

    def close(self) -> None:
        """Disconnect."""
        with translated(self._path):
            self._database.close()

    def flush(self, writes: Sequence[Write]) -> None:
        """Do all these writes in one transaction and set their answers.

        Raises:
            SagaStorageError: If it failed as a whole; then none of the answers counts.
        """
        if self._database.broken:
            self.close()
            self.open()
        ids = [write.saga_id for write in writes if write.saga_id is not None]
        self._at_instant("before", ids)
        try:
            with translated(self._path):
                self._commit(writes, ids)
        except _BAD_VALUES as error:
            self._flush_apart(writes, error)
        except SagaStorageError as error:
            if self._database.broken:
                message = f"the connection to {self._path} broke ({error}); the next write opens it anew"
                raise SagaStorageUnavailableError(message) from error
            if not isinstance(error.__cause__, _BAD_VALUES):
                raise
            self._flush_apart(writes, error)
        self._at_instant("committed", ids)

    def _commit(self, writes: Sequence[Write], ids: Sequence[str]) -> None:
        try:
            with self._database.transaction():
                _Transaction(self._database, self._clock, writes).run()
                self._at_instant("written", ids)
        except (_UnexpectedError, sqlite3.IntegrityError):
            with self._database.transaction():
                _Transaction(self._database, self._clock, writes).run_examined()
                self._at_instant("written", ids)

    def _flush_apart(self, writes: Sequence[Write], error: Exception) -> None:
        """Find out whose values the database refuses: do each write by itself."""
        if len(writes) == 1:
            writes[0].answer = SagaStorageError(f"the database {self._path} refused the values: {error}")
            writes[0].answer.__cause__ = error
            return
        for write in writes:
            try:
                self.flush([write])
            except SagaStorageError as failed:
                write.answer = failed


class _Transaction:
    """The statements of one flush; its instant is taken once the write lock is held."""

    def __init__(self, database: Database, clock: Clock, writes: Sequence[Write]) -> None:
        self._database = database
        self._instant = instant_of(clock)
        self._writes: dict[type[Write], list[Any]] = {}
        for write in writes:
            self._writes.setdefault(type(write), []).append(write)
        self._entries: list[tuple[str, int, str, str]] = []

    def _of(self, kind: type[W]) -> list[W]:
        return self._writes.get(kind, [])

    def run(self) -> None:
        """Do the writes, taking it that each finds what it expects.

        Raises:
            _UnexpectedError: If one does not; the transaction must be undone.
        """
        requests = self._of(Request)
        self._journal(self._of(Create), self._of(Append), self._examine_requests(requests) if requests else [])
        self._claims()

    def run_examined(self) -> None:
        """Do the writes that find what they expect, and answer the others."""
        creates, appends = self._of(Create), self._of(Append)
        found = self._look([*creates, *appends])
        requests = self._examine_requests(self._of(Request))
        self._journal(self._may_be_stored(creates, found), self._may_be_stored(appends, found), requests)
        self._claims()

    def _journal(
        self, creates: Sequence[Create], appends: Sequence[Append], requests: Sequence[tuple[Request, int]]
    ) -> None:
        constants = msgspec.structs.astuple(self._instant)
        if creates:
            self._expect(creates, self._database.change("create_sagas", constants, [write.row for write in creates]))
        if appends:
            self._expect(appends, self._database.change("append_sagas", constants, [write.row for write in appends]))
            self._let_go([(write.saga_id, write.token) for write in appends if write.release])
        if requests:
            ids = [(write.saga_id,) for write, _ in requests]
            self._expect(requests, self._database.change("request_sagas", (self._instant.at,), ids))
        for create in creates:
            self._grow(create, 1)
        for append in appends:
            self._grow(append, append.expected + 1)
        for request, version in requests:
            self._grow(request, version + 1)
        self._write_entries()

    @staticmethod
    def _expect(writes: Sequence[object], changed: int) -> None:
        if changed != len(writes):
            raise _UnexpectedError

    def _grow(self, write: JournalWrite, version: int) -> None:
        self._entries.append((write.saga_id, version, write.write_id, write.events))
        write.answer = Appended(version, seconds(self._instant.at))

    def _write_entries(self) -> None:
        if self._entries:
            self._database.change("insert_journal", (self._instant.at,), self._entries)
            self._entries = []

    def _look(self, writes: Sequence[JournalWrite]) -> dict[str, Found]:
        keys = [(write.saga_id, write.write_id) for write in writes]
        answers = self._database.ask("examine_writes", (), keys) if keys else ()
        return {found.saga_id: found for answer in answers for found in _found.decode(answer)}

    @staticmethod
    def _may_be_stored(writes: Sequence[J], found: Mapping[str, Found]) -> list[J]:
        for write in writes:
            write.answer = verdict(write, found.get(write.saga_id))
        return [write for write in writes if write.answer is None]

    def _examine_requests(self, requests: Sequence[Request]) -> list[tuple[Request, int]]:
        """Return the requests that are to be stored, each with the version it finds, and answer the others."""
        found = self._look(requests)
        return [(write, found[write.saga_id].version) for write in self._may_be_stored(requests, found)]

    def _claims(self) -> None:
        self._let_go([claim for write in self._of(Release) for claim in write.claims])
        renewals = self._of(Renew)
        if renewals:
            self._renew(renewals)
        for claim in self._of(ClaimDue):
            try:
                claim.answer = self._claim_due(claim)
            except SagaCorruptStateError as error:
                claim.answer = error
        for prune in self._of(Prune):
            prune.answer = self._prune(prune)

    def _let_go(self, claims: Sequence[tuple[str, str | None]]) -> None:
        if claims:
            self._database.change("release_claims", (), claims)

    def _renew(self, renewals: Sequence[Renew]) -> None:
        claims = [claim for write in renewals for claim in write.claims]
        held: dict[tuple[str, str], int] = {}
        if claims:
            self._database.change("renew_claims", (self._instant.up, self._instant.boot), claims)
            for answer in self._database.ask("held_versions", (), [claim[:2] for claim in claims]):
                held.update(((saga_id, token), version) for saga_id, token, version in _held.decode(answer))
        for write in renewals:
            write.answer = {
                saga_id: held[saga_id, token] for saga_id, token, _ in write.claims if (saga_id, token) in held
            }

    def _claim_due(self, claim: ClaimDue) -> list[StoredSaga]:
        ids = _ids.decode(self._database.ask_one("select_held", token=claim.token) or b"[]")
        if not ids:
            ids = self._claim_new(claim)
        stored = {saga.record.saga_id: saga for saga in load(self._database, ids)}
        return [stored[saga_id] for saga_id in ids]

    def _claim_new(self, claim: ClaimDue) -> list[str]:
        answer = self._database.ask_one(
            "select_due",
            at=self._instant.at,
            up=self._instant.up,
            boot=self._instant.boot,
            definitions=claim.definitions,
            exclude=claim.exclude,
            suspect=SUSPECT_RECOVERIES,
            suspects=claim.suspects,
            limit=max(claim.limit, 0),
            write_id=claim.write_id,
        )
        due = _due.decode(answer or b"[]")
        if not due:
            return []
        until = self._instant.up + claim.ttl
        constants = (claim.owner, claim.token, until, self._instant.boot, self._instant.at)
        self._database.change("claim_sagas", constants, [(row.saga_id, row.recoveries) for row in due])
        for row in due:
            fact = Claimed(claim.owner, row.fence + 1, row.recoveries, bool(row.expired))
            self._entries.append((row.saga_id, row.version + 1, claim.write_id, encode_events([fact])))
        self._write_entries()
        return [row.saga_id for row in due]

    def _prune(self, prune: Prune) -> int:
        before = self._instant.at - prune.older_than
        old = self._database.ask_one("select_old", before=before, statuses=prune.statuses, limit=prune.limit)
        numbers = (old or b"[]").decode()
        self._database.do("delete_journals", numbers=numbers)
        return self._database.do("delete_sagas", numbers=numbers)
