"""What every storage refuses before it touches anything, and the errors that all of them raise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saga.checks import is_int, is_number, refuse
from saga.exceptions import SagaAlreadyExistsError, SagaNotFoundError
from saga.storage.base import QUERY_LIMIT_MAX
from saga.types import AT_REST

if TYPE_CHECKING:
    from collections.abc import Collection

    from saga.storage.base import Claim, Row
    from saga.types import SagaStatus

PRUNE_LIMIT_MAX = 10_000
SUSPECT_RECOVERIES = 2
"""From this many expired claims in a row on a saga is one that may bring its process down."""


def check_append(row: Row | None, expected_version: int | None, claim: Claim | None) -> None:
    """Check that the arguments are those of an owner, a visitor or a request.

    Raises:
        SagaValidationError: Otherwise.
    """
    if (row is None) is not (expected_version is None):
        refuse("row and expected_version", (row, expected_version), "given both or neither")
    if claim is not None and row is None:
        refuse("claim", claim, "given together with a row and an expected version")


def check_connection(connection: object) -> None:
    """Check that no connection of the caller's is given, where a storage cannot write on one.

    Raises:
        SagaValidationError: Otherwise.
    """
    if connection is not None:
        refuse("connection", connection, "left out: this storage writes on its own connection only")


def check_query(limit: object) -> None:
    """Check how many rows a page may have.

    Raises:
        SagaValidationError: If it is not from 1 to 500.
    """
    if not (is_int(limit) and 1 <= limit <= QUERY_LIMIT_MAX):
        refuse("limit", limit, f"an integer from 1 to {QUERY_LIMIT_MAX}")


def check_prune(older_than: object, statuses: Collection[SagaStatus], limit: object) -> None:
    """Check what is to be deleted.

    Raises:
        SagaValidationError: If a status is not at rest, or a number is out of range.
    """
    for status in statuses:
        if status not in AT_REST:
            refuse(
                "statuses", status, "statuses at rest (completed, rolled_back, failed): other sagas are still running"
            )
    if not (is_number(older_than) and older_than >= 0):
        refuse("older_than", older_than, "a finite number of seconds, 0 or more")
    if not (is_int(limit) and 1 <= limit <= PRUNE_LIMIT_MAX):
        refuse("limit", limit, f"an integer from 1 to {PRUNE_LIMIT_MAX}")


def not_found(saga_id: str) -> SagaNotFoundError:
    """Return the error for an id that is not stored."""
    message = f"there is no saga {saga_id}: check the id, or whether the saga was pruned"
    return SagaNotFoundError(message, saga_id=saga_id)


def already_exists(saga_id: str) -> SagaAlreadyExistsError:
    """Return the error for an id that is taken."""
    message = f"a saga {saga_id} exists already"
    return SagaAlreadyExistsError(message, saga_id=saga_id)
