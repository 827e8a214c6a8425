"""What Redis's scripts answer, as the rest of the library reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from saga.storage._journal import stored_saga
from saga.storage._records import CountRow, EntryRow, SagaRow, not_understood, readable
from saga.types import SagaStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from saga.storage.base import StoredSaga


def saga_row(fields: Sequence[str]) -> SagaRow:
    """Return a row of names and values, one after the other.

    Raises:
        SagaCorruptStateError: If it is none that this version of the library writes.
    """
    values = dict(zip(fields[::2], fields[1::2], strict=True))
    try:
        return SagaRow(
            saga_id=values["id"],
            saga_name=values["name"],
            saga_version=values["saga_version"],
            status=SagaStatus(values["status"]),
            attention=values["attention"] or None,
            version=int(values["version"]),
            created_at=int(values["created_at"]),
            updated_at=int(values["updated_at"]),
            due_at=int(values["due_at"]) if values["due_at"] else None,
            owner=values["owner"] or None,
            fence=int(values["fence"]),
            recoveries=int(values["recoveries"]),
        )
    except (KeyError, ValueError) as error:
        raise not_understood(error) from error


def entry_row(entry: str) -> EntryRow:
    """Return an entry: version, stamp, write id and facts with NUL between them.

    Raises:
        SagaCorruptStateError: If it is none that this version of the library writes.
    """
    try:
        version, at, _, events = entry.split("\0", 3)
        return int(version), int(at), events
    except ValueError as error:
        raise not_understood(error) from error


def loaded(answer: Sequence[tuple[Sequence[str], Sequence[str]]]) -> list[StoredSaga]:
    """Return sagas with their journals."""
    return [stored_saga(saga_row(row).record(), readable(map(entry_row, entries))) for row, entries in answer]


def count_rows(answer: Sequence[Any]) -> list[CountRow]:
    """Return counts, one for each kind of saga.

    Raises:
        SagaCorruptStateError: If they are none that this version of the library writes.
    """
    try:
        return msgspec.convert(
            [(name, status, sagas, in_need, oldest or None) for name, status, sagas, in_need, oldest in answer],
            list[CountRow],
        )
    except (ValueError, msgspec.ValidationError) as error:
        raise not_understood(error) from error
