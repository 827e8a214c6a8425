"""The storage contract in the memory of one process: for tests, for `Saga.execute()` alone, and as the model of others.

Facts are kept encoded, by the same codec as everywhere, so that what a saga reads back does not depend on the storage.
No method awaits anything, so each is atomic within its loop. What is stored lives as long as the object.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from saga.clock import SystemClock
from saga.codec import encode_events
from saga.events import Claimed
from saga.exceptions import SagaClaimLostError, SagaVersionMovedError
from saga.storage._checks import (
    SUSPECT_RECOVERIES,
    already_exists,
    check_append,
    check_connection,
    check_prune,
    check_query,
    not_found,
)
from saga.storage._journal import read_entries, stored_saga
from saga.storage._session import Session
from saga.storage.base import Appended, Entry, NewSaga, SagaStorage, StoredSaga
from saga.storage.cursor import EntryPlace, RowPlace, read_cursor, write_cursor
from saga.types import Page, SagaFilter, SagaRecord, SagaStatistics, SagaStatus, rests

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from saga.clock import Clock
    from saga.events import Event
    from saga.storage.base import Claim, Row


class _Saga:
    """One row and its journal."""

    __slots__ = (
        "answers",
        "created_at",
        "due_at",
        "entries",
        "fence",
        "lease_until",
        "owner",
        "recoveries",
        "row",
        "saga_id",
        "saga_name",
        "saga_version",
        "token",
        "updated_at",
        "version",
    )

    def __init__(self, new: NewSaga, at: float) -> None:
        self.saga_id = new.saga_id
        self.saga_name = new.saga_name
        self.saga_version = new.saga_version
        self.row = new.row
        self.created_at = self.updated_at = at
        self.due_at: float | None = None
        self.owner: str | None = None
        self.token: str | None = None
        self.lease_until = 0.0
        self.fence = 0
        self.recoveries = 0
        self.version = 0
        self.entries: list[tuple[int, float, str]] = []
        self.answers: dict[str, Appended] = {}

    def record(self) -> SagaRecord:
        """Return the row as it is shown."""
        return SagaRecord(
            saga_id=self.saga_id,
            saga_name=self.saga_name,
            saga_version=self.saga_version,
            status=self.row.status,
            attention=self.row.attention,
            version=self.version,
            created_at=self.created_at,
            updated_at=self.updated_at,
            due_at=self.due_at,
            owner=self.owner,
            fence=self.fence,
            recoveries=self.recoveries,
        )

    def stored(self) -> StoredSaga:
        """Return the row and the journal."""
        return stored_saga(self.record(), self.entries)

    def needs_attention(self) -> bool:
        """Whether a person should look."""
        return self.row.attention is not None or self.row.status is SagaStatus.FAILED

    def let_go(self) -> None:
        """Forget the claim."""
        self.owner = self.token = None

    def grow(self, text: str, at: float, write_id: str) -> Appended:
        """Add one entry and remember the answer under the identity of the write."""
        self.version += 1
        self.updated_at = at
        self.entries.append((self.version, at, text))
        answer = self.answers[write_id] = Appended(self.version, at)
        return answer


class InMemorySagaStorage(SagaStorage):
    """Keeps sagas in this process; they are gone with the object.

    Several orchestrators of one event loop may share one object.
    """

    def __init__(self, *, clock: Clock | None = None) -> None:
        """Begin empty.

        Args:
            clock: Stamps what is stored and judges leases; the system's clock by default.
        """
        self._clock = clock or SystemClock()
        self._session = Session(type(self).__name__)
        self._sagas: dict[str, _Saga] = {}
        # Those that may be claimed once their time has come.
        self._waiting: dict[str, _Saga] = {}

    async def open(self) -> None:
        """Take note of the loop; what was stored before is still there."""
        self._session.enter()

    async def close(self) -> None:
        """Refuse everything from here on."""
        self._session.leave()

    async def create(
        self, new: NewSaga, events: Sequence[Event], *, claim: Claim | None, write_id: str, connection: Any = None
    ) -> Appended:
        """Store a new saga with its first append."""
        self._session.check()
        check_connection(connection)
        saga = self._sagas.get(new.saga_id)
        if saga is not None:
            answer = saga.answers.get(write_id)
            if answer is None or answer.version != 1:
                raise already_exists(new.saga_id)
            return answer
        text = encode_events(tuple(events))
        at = self._clock.now()
        saga = _Saga(new, at)
        if claim is not None:
            saga.owner, saga.token, saga.fence = claim.owner, claim.token, 1
        self._set_row(saga, new.row, claim, at)
        self._sagas[new.saga_id] = saga
        return saga.grow(text, at, write_id)

    async def load(self, saga_ids: Collection[str]) -> list[StoredSaga]:
        """Return these sagas with their journals."""
        self._session.check()
        return [self._sagas[saga_id].stored() for saga_id in dict.fromkeys(saga_ids) if saga_id in self._sagas]

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
        saga = self._sagas.get(saga_id)
        if saga is None:
            raise not_found(saga_id)
        answer = saga.answers.get(write_id)
        if answer is not None:
            return answer
        if claim is not None and claim.token != saga.token:
            raise SagaClaimLostError(saga_id)
        if expected_version is not None and expected_version != saga.version:
            raise SagaVersionMovedError(saga_id, expected=expected_version, actual=saga.version)
        text = encode_events(tuple(events))
        at = self._clock.now()
        if row is not None:
            self._set_row(saga, row, claim, at)
        elif not rests(saga.row.status, saga.row.attention):
            saga.due_at = at
            self._waiting[saga_id] = saga
        return saga.grow(text, at, write_id)

    def _set_row(self, saga: _Saga, row: Row, claim: Claim | None, at: float) -> None:
        saga.row = row
        saga.recoveries = row.recoveries
        if claim is not None:
            if row.release:
                saga.let_go()
            else:
                saga.lease_until = self._clock.boot_time() + claim.ttl
        if row.due_in is None or rests(row.status, row.attention):
            saga.due_at = None
            self._waiting.pop(saga.saga_id, None)
        else:
            saga.due_at = at + row.due_in
            self._waiting[saga.saga_id] = saga

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
        held = [saga for saga in self._sagas.values() if saga.token == token]
        if held:
            return [saga.stored() for saga in sorted(held, key=_by_due_time)]
        write_id = f"claim:{token}"
        claimed = self._claimable(limit, write_id, frozenset(definitions), frozenset(exclude), suspects)
        at = self._clock.now()
        until = self._clock.boot_time() + ttl
        for saga in claimed:
            expired = saga.token is not None
            saga.owner, saga.token, saga.lease_until = owner, token, until
            saga.fence += 1
            saga.recoveries += expired
            fact = Claimed(owner, saga.fence, saga.recoveries, expired)
            saga.grow(encode_events([fact]), at, write_id)
        return [saga.stored() for saga in claimed]

    def _claimable(
        self,
        limit: int,
        write_id: str,
        definitions: Collection[tuple[str, str]],
        exclude: Collection[str],
        suspects: int,
    ) -> list[_Saga]:
        at = self._clock.now()
        boot = self._clock.boot_time()
        due = [
            saga
            for saga in self._waiting.values()
            if _due(saga) <= at
            and (saga.token is None or saga.lease_until <= boot)
            and (saga.saga_name, saga.saga_version) in definitions
            and saga.saga_id not in exclude
            and write_id not in saga.answers
        ]
        chosen: list[_Saga] = []
        for saga in sorted(due, key=_by_due_time):
            if len(chosen) >= limit:
                break
            if saga.recoveries + (saga.token is not None) >= SUSPECT_RECOVERIES:
                if suspects <= 0:
                    continue
                suspects -= 1
            chosen.append(saga)
        return chosen

    async def renew(self, claims: Mapping[str, str], ttl: float) -> dict[str, int]:
        """Extend claims by ttl from now and return each saga's version."""
        self._session.check()
        until = self._clock.boot_time() + ttl
        held = self._held(claims)
        for saga in held:
            saga.lease_until = until
        return {saga.saga_id: saga.version for saga in held}

    async def release(self, claims: Mapping[str, str]) -> None:
        """Give claims up without counting as a crash."""
        self._session.check()
        for saga in self._held(claims):
            saga.let_go()

    def _held(self, claims: Mapping[str, str]) -> list[_Saga]:
        known = ((self._sagas.get(saga_id), token) for saga_id, token in claims.items())
        return [saga for saga, token in known if saga is not None and saga.token == token]

    async def query(self, selected: SagaFilter, cursor: str | None = None, limit: int = 100) -> Page[SagaRecord]:
        """Return rows, newest first, a page at a time."""
        self._session.check()
        check_query(limit)
        after = read_cursor(cursor, RowPlace)
        end = None if after is None else (after.created_at, after.saga_id)
        fitting = (
            saga for saga in self._sagas.values() if (end is None or _by_age(saga) < end) and _fits(saga, selected)
        )
        found = heapq.nlargest(limit + 1, fitting, key=_by_age)
        more = len(found) > limit
        del found[limit:]
        place = write_cursor(RowPlace(found[-1].created_at, found[-1].saga_id)) if more else None
        return Page(tuple(saga.record() for saga in found), place)

    async def history(self, saga_id: str, cursor: str | None = None, limit: int = 100) -> Page[Entry]:
        """Return a journal, oldest entry first, a page at a time."""
        self._session.check()
        check_query(limit)
        after = read_cursor(cursor, EntryPlace)
        saga = self._sagas.get(saga_id)
        if saga is None:
            raise not_found(saga_id)
        first = 0 if after is None else after.version
        entries = read_entries(saga_id, saga.entries[first : first + limit])
        more = len(saga.entries) > first + limit
        return Page(entries, write_cursor(EntryPlace(first + limit)) if more else None)

    async def statistics(self) -> SagaStatistics:
        """Return counts by name and status."""
        self._session.check()
        counts: dict[str, Counter[SagaStatus]] = defaultdict(Counter)
        in_need: Counter[str] = Counter()
        oldest: dict[str, float] = {}
        for saga in self._sagas.values():
            name = saga.saga_name
            counts[name][saga.row.status] += 1
            if saga.needs_attention():
                in_need[name] += 1
            if not rests(saga.row.status, saga.row.attention):
                oldest[name] = min(saga.created_at, oldest.get(name, saga.created_at))
        return SagaStatistics(
            by_status={name: dict(by_status) for name, by_status in counts.items()},
            needs_attention=in_need.total(),
            oldest_unfinished_at=min(oldest.values(), default=None),
            needs_attention_by_name=dict(in_need),
            oldest_unfinished_by_name=oldest,
        )

    async def prune(self, older_than: float, statuses: Collection[SagaStatus], limit: int) -> int:
        """Delete sagas at rest whose journal last grew more than so many seconds ago, oldest first."""
        self._session.check()
        check_prune(older_than, statuses, limit)
        before = self._clock.now() - older_than
        old = (saga for saga in self._sagas.values() if saga.row.status in statuses and saga.updated_at < before)
        doomed = heapq.nsmallest(limit, old, key=_by_age)
        for saga in doomed:
            del self._sagas[saga.saga_id]
        return len(doomed)

    async def health_check(self) -> None:
        """Return: memory answers."""
        self._session.check()


def _due(saga: _Saga) -> float:
    return float("inf") if saga.due_at is None else saga.due_at


def _by_due_time(saga: _Saga) -> tuple[float, str]:
    return (_due(saga), saga.saga_id)


def _by_age(saga: _Saga) -> tuple[float, str]:
    return (saga.created_at, saga.saga_id)


def _fits(saga: _Saga, selected: SagaFilter) -> bool:
    if selected.name is not None and saga.saga_name != selected.name:
        return False
    if selected.statuses is not None and saga.row.status not in selected.statuses:
        return False
    return selected.attention is None or saga.needs_attention() is selected.attention
