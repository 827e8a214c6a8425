"""What is read from an SQLite file: each question is one statement and comes back as one piece of JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from saga.exceptions import SagaCorruptStateError
from saga.storage._checks import not_found
from saga.storage._instants import micros
from saga.storage._journal import stored_saga
from saga.storage._records import (
    CountRow,
    EntryRow,
    SagaRow,
    entry_page,
    not_understood,
    readable,
    row_page,
    statistics_of,
)
from saga.storage._sqlite_database import statement
from saga.storage.base import StoredSaga

if TYPE_CHECKING:
    from collections.abc import Sequence

    from saga.storage._sqlite_database import Database
    from saga.storage.base import Entry
    from saga.storage.cursor import EntryPlace, RowPlace
    from saga.types import Page, SagaFilter, SagaRecord, SagaStatistics

LOAD_AT_ONCE = 64
"""Sagas whose journals are read by one statement."""

_rows = msgspec.json.Decoder(list[SagaRow])
_entries = msgspec.json.Decoder(list[EntryRow])
_counts = msgspec.json.Decoder(list[CountRow])

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
        return [stored_saga(row.record(), readable(row.journal)) for row in _decoded(_rows, answer)]
    except SagaCorruptStateError as error:
        if len(saga_ids) > 1:
            # One saga's damaged text must not hide the others.
            return [saga for saga_id in saga_ids for saga in _load(database, [saga_id])]
        return [_without_journal(database, saga_ids[0], str(error))]


def _without_journal(database: Database, saga_id: str, reason: str) -> StoredSaga:
    answer = _page_of_rows(database, "id = :id", {"id": saga_id, "limit": 1})
    return StoredSaga(answer[0].record(), (), unreadable=reason)


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
    return row_page(rows, limit)


def _page_of_rows(database: Database, conditions: str, values: dict[str, object]) -> list[SagaRow]:
    sql = statement("query_sagas").replace("{conditions}", conditions)
    return _decoded(_rows, database.ask_sql(sql, values))


def history(database: Database, saga_id: str, after: EntryPlace | None, limit: int) -> Page[Entry]:
    """Return a page of a journal, oldest entry first."""
    first = 0 if after is None else after.version
    answer = database.ask_one("history", id=saga_id, after=first, limit=limit + 1)
    if answer is None:
        raise not_found(saga_id)
    rows = _decoded(_entries, answer)
    return entry_page(saga_id, rows, limit)


def statistics(database: Database) -> SagaStatistics:
    """Return counts by name and status."""
    counts = _decoded(_counts, database.ask_one("statistics"))
    return statistics_of(counts)


def _decoded(decoder: msgspec.json.Decoder[_Read], answer: bytes | None) -> _Read:
    try:
        return decoder.decode(answer or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise not_understood(error) from error


def check(database: Database) -> None:
    """Read a little."""
    database.ask_sql("SELECT json_array(count(*)) FROM (SELECT 1 FROM sagas LIMIT 1)", {})
