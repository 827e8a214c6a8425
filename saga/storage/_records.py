"""Rows as databases hand them over, and what the rest of the library makes of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import msgspec

from saga.exceptions import SagaCorruptStateError
from saga.storage._instants import seconds
from saga.storage._journal import read_entries
from saga.storage.cursor import EntryPlace, RowPlace, write_cursor
from saga.types import Attention, AttentionCode, Page, SagaRecord, SagaStatistics, SagaStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from saga.storage.base import Entry

EntryRow = tuple[int, int, str | None]
"""Version, stamp and facts of an entry; None where they are no text."""


class SagaRow(msgspec.Struct, array_like=True):
    """One saga; instants in microseconds, attention as JSON."""

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
    journal: list[EntryRow] = []

    def record(self) -> SagaRecord:
        """Return the row as the library's callers see it."""
        return SagaRecord(
            saga_id=self.saga_id,
            saga_name=self.saga_name,
            saga_version=self.saga_version,
            status=self.status,
            attention=None if self.attention is None else _read_attention(self.attention, self.updated_at),
            version=self.version,
            created_at=seconds(self.created_at),
            updated_at=seconds(self.updated_at),
            due_at=None if self.due_at is None else seconds(self.due_at),
            owner=self.owner,
            fence=self.fence,
            recoveries=self.recoveries,
        )


class CountRow(msgspec.Struct, array_like=True):
    """How many sagas have this name and status, how many of them need a person, since when one is unfinished."""

    name: str
    status: SagaStatus
    sagas: int
    in_need: int
    oldest_unfinished: int | None


_attention = msgspec.json.Decoder(Attention)


def _read_attention(text: str, at: int) -> Attention:
    try:
        return _attention.decode(text)
    except msgspec.MsgspecError as error:
        # Hiding that a person should look would be worse than not to know why.
        return Attention(AttentionCode.STATE_LOST, f"why to look cannot be read: {error}", seconds(at), blocking=False)


def readable(rows: Iterable[EntryRow]) -> Iterator[tuple[int, float, str]]:
    """Return entries with their stamps in seconds; what is no text becomes text that is found unreadable."""
    return ((version, seconds(at), "" if text is None else text) for version, at, text in rows)


def row_page(rows: Sequence[SagaRow], limit: int) -> Page[SagaRecord]:
    """Return the page that these rows make; one more than the limit says that another page follows."""
    records = tuple(row.record() for row in rows[:limit])
    more = len(rows) > limit
    return Page(records, write_cursor(RowPlace(records[-1].created_at, records[-1].saga_id)) if more else None)


def entry_page(saga_id: str, rows: Sequence[EntryRow], limit: int) -> Page[Entry]:
    """Return the page that these entries make; one more than the limit says that another page follows.

    Raises:
        SagaCorruptStateError: If the facts of one are not understood by this version of the library.
    """
    entries = read_entries(saga_id, readable(rows[:limit]))
    return Page(entries, write_cursor(EntryPlace(entries[-1].version)) if len(rows) > limit else None)


def statistics_of(rows: Iterable[CountRow]) -> SagaStatistics:
    """Return what these counts say together."""
    by_status: dict[str, dict[SagaStatus, int]] = defaultdict(dict)
    in_need: Counter[str] = Counter()
    oldest: dict[str, float] = {}
    for row in rows:
        counts = by_status[row.name]
        counts[row.status] = counts.get(row.status, 0) + row.sagas
        if row.in_need:
            in_need[row.name] += row.in_need
        if row.oldest_unfinished is not None:
            since = seconds(row.oldest_unfinished)
            oldest[row.name] = min(since, oldest.get(row.name, since))
    return SagaStatistics(
        by_status=dict(by_status),
        needs_attention=in_need.total(),
        oldest_unfinished_at=min(oldest.values(), default=None),
        needs_attention_by_name=dict(in_need),
        oldest_unfinished_by_name=oldest,
    )


def not_understood(error: Exception) -> SagaCorruptStateError:
    """Return the error for an answer in another form than this version of the library writes."""
    message = f"the database holds what this version of the library does not understand: {error}"
    return SagaCorruptStateError(message)
