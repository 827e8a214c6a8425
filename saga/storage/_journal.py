"""Stored journals as the rest of the library reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saga.codec import decode_events
from saga.exceptions import SagaCorruptStateError
from saga.storage.base import Entry, StoredSaga

if TYPE_CHECKING:
    from collections.abc import Iterable

    from saga.types import SagaRecord


def read_entries(saga_id: str, rows: Iterable[tuple[int, float, str]]) -> tuple[Entry, ...]:
    """Return stored appends (version, stamp, facts as JSON) as entries.

    Raises:
        SagaCorruptStateError: If the facts of one are not understood by this version of the library.
    """
    return tuple(Entry(version, at, decode_events(text, saga_id)) for version, at, text in rows)


def stored_saga(record: SagaRecord, rows: Iterable[tuple[int, float, str]]) -> StoredSaga:
    """Return a saga with its journal, or with the reason why the journal cannot be read."""
    try:
        return StoredSaga(record, read_entries(record.saga_id, rows))
    except SagaCorruptStateError as error:
        return StoredSaga(record, (), unreadable=str(error))
