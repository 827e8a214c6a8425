"""What is read from an SQLite file: each question is one statement and comes back as one piece of JSON."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, TypeVar

import msgspec

from saga.exceptions import SagaCorruptStateError
from saga.storage._checks import not_found
from saga.storage._journal import read_entries, stored_saga
from saga.storage._sqlite_database import statement
from saga.storage._sqlite_time import micros, seconds
from saga.storage.base import Entry, StoredSaga
from saga.storage.cursor import EntryPlace, RowPlace, write_cursor
from saga.types import Attention, AttentionCode, Page, SagaFilter, SagaRecord, SagaStatistics, SagaStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from saga.storage._sqlite_database import Database

LOAD_AT_ONCE = 64
"""Sagas whose journals are read by one statement."""

_EntryRow = tuple[int, int, str | None]


class _SagaRow(msgspec.Struct, array_like=True):
    saga_id: str
    saga_name: str
    saga_version: str
    status: SagaStatus
    attention: str | None
    version: int
    created_at: int
    updated_at: int
    due_at: int | None
    owner: str | None
    fence: int
    recoveries: int
    journal: list[_EntryRow] = []


class _CountRow(msgspec.Struct, array_like=True):
    name: str
    status: SagaStatus
    sagas: int
    in_need: int
    oldest_unfinished: int | None


_rows = msgspec.json.Decoder(list[_SagaRow])
_entries = msgspec.json.Decoder(list[_EntryRow])
_counts = msgspec.json.Decoder(list[_CountRow])
_attention = msgspec.json.Decoder(Attention)

_Read = TypeVar("_Read")

_IN_NEED = "(attention IS NOT NULL OR status = 'failed')"


def load(database: Database, saga_ids: Sequence[str]) -> list[StoredSaga]:
    """Return these sagas with their journals; unknown ids are left out."""
    found: list[StoredSaga] = []
    for first in range(0, len(saga_ids), LOAD_AT_ONCE):
        found.extend(_load(database, saga_ids[first : first + LOAD_AT_ONCE]))
    return found


def _load(database: Database, saga_ids: Sequence[str]) -> list[StoredSaga]:
    answer = database.ask_one("load_sagas", ids=msgspec.json.encode(saga_ids).decode())
    try:
        return [stored_saga(_record(row), _readable(row.journal)) for row in _decoded(_rows, answer)]
    except SagaCorruptStateError as error:
        if len(saga_ids) > 1:
            # One saga's damaged text must not hide the others.
            return [saga for saga_id in saga_ids for saga in _load(database, [saga_id])]
        return [_without_journal(database, saga_ids[0], str(error))]


def _without_journal(database: Database, saga_id: str, reason: str) -> StoredSaga:
    answer = _page_of_rows(database, "id = :id", {"id": saga_id, "limit": 1})
    return StoredSaga(_record(answer[0]), (), unreadable=reason)


def query(database: Database, selected: SagaFilter, after: RowPlace | None, limit: int) -> Page[SagaRecord]:
    """Return a page of rows, newest first."""
    conditions = ["TRUE"]
    values: dict[str, object] = {"limit": limit + 1}
    if selected.name is not None:
        conditions.append("name = :name")
        values["name"] = selected.name
    if selected.statuses is not None:
        conditions.append("status IN (SELECT value FROM json_each(:statuses))")
        values["statuses"] = msgspec.json.encode(sorted(selected.statuses)).decode()
    if selected.attention is not None:
        conditions.append(_IN_NEED if selected.attention else f"NOT {_IN_NEED}")
    if after is not None:
        conditions.append("(created_at, id) < (:created_at, :id)")
        values["created_at"] = micros(after.created_at)
        values["id"] = after.saga_id
    rows = _page_of_rows(database, " AND ".join(conditions), values)
    records = tuple(_record(row) for row in rows[:limit])
    more = len(rows) > limit
    return Page(records, write_cursor(RowPlace(records[-1].created_at, records[-1].saga_id)) if more else None)


def _page_of_rows(database: Database, conditions: str, values: dict[str, object]) -> list[_SagaRow]:
    sql = statement("query_sagas").replace("{conditions}", conditions)
    return _decoded(_rows, database.ask_sql(sql, values))


def history(database: Database, saga_id: str, after: EntryPlace | None, limit: int) -> Page[Entry]:
    """Return a page of a journal, oldest entry first."""
    first = 0 if after is None else after.version
    answer = database.ask_one("history", id=saga_id, after=first, limit=limit + 1)
    if answer is None:
        raise not_found(saga_id)
    rows = _decoded(_entries, answer)
    entries = read_entries(saga_id, _readable(rows[:limit]))
    return Page(entries, write_cursor(EntryPlace(entries[-1].version)) if len(rows) > limit else None)


def statistics(database: Database) -> SagaStatistics:
    """Return counts by name and status."""
    by_status: dict[str, dict[SagaStatus, int]] = defaultdict(dict)
    rows = _decoded(_counts, database.ask_one("statistics"))
    for row in rows:
        by_status[row.name][row.status] = row.sagas
    unfinished = [row.oldest_unfinished for row in rows if row.oldest_unfinished is not None]
    return SagaStatistics(
        by_status=dict(by_status),
        needs_attention=sum(row.in_need for row in rows),
        oldest_unfinished_at=seconds(min(unfinished)) if unfinished else None,
    )


def _decoded(decoder: msgspec.json.Decoder[_Read], answer: bytes | None) -> _Read:
    try:
        return decoder.decode(answer or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        message = f"the database holds what this version of the library does not understand: {error}"
        raise SagaCorruptStateError(message) from error


def _record(row: _SagaRow) -> SagaRecord:
    return SagaRecord(
        saga_id=row.saga_id,
        saga_name=row.saga_name,
        saga_version=row.saga_version,
        status=row.status,
        attention=None if row.attention is None else _read_attention(row.attention, row.updated_at),
        version=row.version,
        created_at=seconds(row.created_at),
        updated_at=seconds(row.updated_at),
        due_at=None if row.due_at is None else seconds(row.due_at),
        owner=row.owner,
        fence=row.fence,
        recoveries=row.recoveries,
    )


def _read_attention(text: str, at: int) -> Attention:
    try:
        return _attention.decode(text)
    except msgspec.MsgspecError as error:
        # Hiding that a person should look would be worse than not to know why.
        return Attention(AttentionCode.STATE_LOST, f"why to look cannot be read: {error}", seconds(at), blocking=False)


def _readable(rows: Iterable[_EntryRow]) -> Iterator[tuple[int, float, str]]:
    return ((version, seconds(at), "" if text is None else text) for version, at, text in rows)


def check(database: Database) -> None:
    """Read a little."""
    database.ask_sql("SELECT json_array(count(*)) FROM (SELECT 1 FROM sagas LIMIT 1)", {})
