"""Cursors of pages: opaque text for the caller, a place in a list for the storage."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import TYPE_CHECKING, Annotated, TypeVar

import msgspec

from saga.checks import refuse

if TYPE_CHECKING:
    from typing import NoReturn


class RowPlace(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="rows.1"):
    """A page of rows ended at this saga."""

    created_at: Annotated[float, msgspec.Meta(ge=-1e11, le=1e11)]
    saga_id: str


class EntryPlace(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="entries.1"):
    """A page of a journal ended at this version."""

    version: Annotated[int, msgspec.Meta(ge=1, le=2**53)]


Place = TypeVar("Place", RowPlace, EntryPlace)


def write_cursor(place: RowPlace | EntryPlace) -> str:
    """Return the cursor that leads to what comes after this place."""
    return urlsafe_b64encode(msgspec.json.encode(place)).decode()


def read_cursor(cursor: str | None, kind: type[Place]) -> Place | None:
    """Return the place that a cursor was written for; None where there is no cursor.

    Raises:
        SagaValidationError: If the cursor is not one that ``write_cursor`` gave out for this kind of list.
    """
    if cursor is None:
        return None
    if not isinstance(cursor, str):
        _refuse(cursor)
    try:
        place = msgspec.json.decode(urlsafe_b64decode(cursor.encode("ascii")), type=kind)
    except (ValueError, msgspec.MsgspecError):
        _refuse(cursor)
    if write_cursor(place) != cursor:
        _refuse(cursor)
    return place


def _refuse(cursor: object) -> NoReturn:
    refuse(
        "cursor", cursor[:80] if isinstance(cursor, str) else cursor, "the cursor of a page of the same list, or None"
    )
