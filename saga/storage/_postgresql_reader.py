"""What is read from PostgreSQL: each question is one statement and comes back as one piece of JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

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
from saga.types import SagaStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from saga.storage._postgresql_connections import Connection
    from saga.storage._postgresql_statements import Statements
    from saga.storage.base import Entry, StoredSaga
    from saga.storage.cursor import EntryPlace, RowPlace
    from saga.types import Page, SagaFilter, SagaRecord, SagaStatistics

LOAD_AT_ONCE = 64
"""Sagas whose journals are read by one statement."""

_rows = msgspec.json.Decoder(list[SagaRow])
_entries = msgspec.json.Decoder(list[EntryRow])
_counts = msgspec.json.Decoder(list[CountRow])

_IN_NEED = "(attention IS NOT NULL OR status = 'failed')"
_LAST = (2**63 - 1, "")
"""A place after every saga."""

_Read = TypeVar("_Read")


async def load(connection: Connection, statements: Statements, saga_ids: Sequence[str]) -> list[StoredSaga]:
    """Return these sagas with their journals; unknown ids are left out."""
    found: list[StoredSaga] = []
    for first in range(0, len(saga_ids), LOAD_AT_ONCE):
        answer = await connection.fetchval(statements["load_sagas"], saga_ids[first : first + LOAD_AT_ONCE])
        found.extend(stored_saga(row.record(), readable(row.journal)) for row in _decoded(_rows, answer))
    return found


async def query(
    connection: Connection, statements: Statements, selected: SagaFilter, after: RowPlace | None, limit: int
) -> Page[SagaRecord]:
    """Return a page of rows, newest first."""
    place = _LAST if after is None else (micros(after.created_at), after.saga_id)
    values: list[Any] = [*place, limit + 1]
    groups = "(SELECT 1) AS everything"
    conditions = ["TRUE"]
    if selected.attention:
        conditions.append(_IN_NEED)
    elif selected.attention is not None:
        conditions.append(f"NOT {_IN_NEED}")
    if selected.name is not None:
        values.append(selected.name)
        conditions.append(f"name = ${len(values)}::text")
    if selected.statuses is not None or (selected.name is not None and not selected.attention):
        values.append([str(status) for status in (SagaStatus if selected.statuses is None else selected.statuses)])
        if selected.attention:
            conditions.append(f"status = ANY (${len(values)}::text[])")
        else:
            groups = f"unnest(${len(values)}::text[]) AS wanted (status)"
            conditions.append("status = wanted.status")
    sql = statements["query_sagas"].replace("{groups}", groups).replace("{conditions}", " AND ".join(conditions))
    rows = _decoded(_rows, await connection.fetchval(sql, *values))
    return row_page(rows, limit)


async def history(
    connection: Connection, statements: Statements, saga_id: str, after: EntryPlace | None, limit: int
) -> Page[Entry]:
    """Return a page of a journal, oldest entry first."""
    first = 0 if after is None else after.version
    answer = await connection.fetchval(statements["history"], saga_id, first, limit + 1)
    if answer is None:
        raise not_found(saga_id)
    rows = _decoded(_entries, answer)
    return entry_page(saga_id, rows, limit)


async def statistics(connection: Connection, statements: Statements) -> SagaStatistics:
    """Return counts by name and status."""
    counts = _decoded(_counts, await connection.fetchval(statements["statistics"]))
    return statistics_of(counts)


def _decoded(decoder: msgspec.json.Decoder[_Read], answer: str | None) -> _Read:
    try:
        return decoder.decode("[]" if answer is None else answer)
    except msgspec.MsgspecError as error:
        raise not_understood(error) from error


async def check(connection: Connection) -> None:
    """Ask something."""
    if await connection.fetchval("SELECT 1") != 1:
        raise SagaCorruptStateError("the database cannot count")
