"""A new saga in a transaction of somebody else's SQLite connection."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from saga.checks import refuse
from saga.exceptions import SagaStorageError
from saga.storage._checks import already_exists
from saga.storage._instants import seconds
from saga.storage._sqlite_database import statement_for
from saga.storage._sqlite_errors import BUSY, primary_code
from saga.storage._sqlite_time import instant_of
from saga.storage.base import Appended

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from saga.clock import Clock
    from saga.storage._writes import Create

_POINT = "saga_start"


def create_on(connection: Any, path: Path, clock: Clock, new: Create) -> Appended:
    """Store a new saga in the transaction that the caller has open on a connection of this thread.

    Raises:
        SagaAlreadyExistsError: If its id is taken, also by this transaction.
        SagaValidationError: If this is no connection to the file, or no transaction is open on it.
        SagaStorageError: If the transaction may not write, or the connection is another thread's.
    """
    if not isinstance(connection, sqlite3.Connection):
        refuse("connection", connection, f"a sqlite3.Connection to {path}")
    try:
        _check(connection, path)
        return _create(connection, clock, new)
    except sqlite3.Error as error:
        advice = "it must be open, of this thread, and to the file of the storage"
        if primary_code(error) in BUSY:
            advice = "begin the transaction with BEGIN IMMEDIATE, so that nobody else writes meanwhile"
        message = f"saga {new.saga_id} cannot be started on this connection ({error}): {advice}"
        raise SagaStorageError(message, saga_id=new.saga_id) from error


def _check(connection: sqlite3.Connection, path: Path) -> None:
    files = [row[2] for row in connection.execute("PRAGMA database_list") if row[1] == "main"]
    if not files[0] or not path.samefile(files[0]):
        refuse("connection", files[0] or ":memory:", f"a connection to {path}, where the storage keeps its sagas")
    if not connection.in_transaction:
        refuse("connection", connection, "inside a transaction: execute BEGIN IMMEDIATE before, and COMMIT after")


@contextmanager
def _savepoint(connection: sqlite3.Connection) -> Iterator[None]:
    """Undo what is done inside if it fails, and nothing else of the transaction."""
    connection.execute(f"SAVEPOINT {_POINT}")
    done = False
    try:
        yield
        done = True
    finally:
        if not done:
            connection.execute(f"ROLLBACK TO {_POINT}")
        connection.execute(f"RELEASE {_POINT}")


def _create(connection: sqlite3.Connection, clock: Clock, new: Create) -> Appended:
    instant = instant_of(clock)
    entry = (new.saga_id, 1, new.write_id, new.events)
    with _savepoint(connection):
        sql = statement_for("create_sagas", 1, len(new.row))
        if connection.execute(sql, (*msgspec.structs.astuple(instant), *new.row)).rowcount != 1:
            raise already_exists(new.saga_id)
        connection.execute(statement_for("insert_journal", 1, len(entry)), (instant.at, *entry))
    return Appended(1, seconds(instant.at))
