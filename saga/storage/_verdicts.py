"""Which answer a write gets that did not find what it expected."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from saga.exceptions import SagaClaimLostError, SagaVersionMovedError
from saga.storage._checks import already_exists, not_found
from saga.storage._instants import seconds
from saga.storage._writes import Append, Create
from saga.storage.base import Appended

if TYPE_CHECKING:
    from saga.exceptions import SagaError
    from saga.storage._writes import JournalWrite


class Found(msgspec.Struct, array_like=True):
    """What stands where a write wants to write, and its first answer where it was stored before."""

    saga_id: str
    version: int
    token: str | None
    first_version: int | None
    first_at: int | None


def verdict(write: JournalWrite, found: Found | None) -> Appended | SagaError | None:
    """Return the write's answer, given what stands there (None: no such saga); None if it may be stored."""
    if found is None:
        return None if isinstance(write, Create) else not_found(write.saga_id)
    if isinstance(write, Create) and found.first_version != 1:
        return already_exists(write.saga_id)
    if found.first_version is not None and found.first_at is not None:
        return Appended(found.first_version, seconds(found.first_at))
    if isinstance(write, Append):
        return _refusal(write, found)
    return None


def _refusal(write: Append, found: Found) -> SagaError | None:
    if write.token is not None and write.token != found.token:
        return SagaClaimLostError(write.saga_id)
    if write.expected != found.version:
        return SagaVersionMovedError(write.saga_id, expected=write.expected, actual=found.version)
    return None
