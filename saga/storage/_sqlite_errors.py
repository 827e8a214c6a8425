"""SQLite's errors in the words of the library, each with what to do about it."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING

from saga.exceptions import SagaCorruptStateError, SagaStorageError, SagaStorageUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})

_AWAY = {
    sqlite3.SQLITE_BUSY: "another process holds it; if it stays so, find out which one keeps a transaction open",
    sqlite3.SQLITE_LOCKED: "another connection of this process holds it; end its transaction",
    sqlite3.SQLITE_READONLY: "it cannot be written; check owner and mode of the file and of its folder",
    sqlite3.SQLITE_IOERR: "the disk reports an error; check the disk",
    sqlite3.SQLITE_FULL: "the disk is full; make room",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; check that its folder exists and may be written",
    sqlite3.SQLITE_PROTOCOL: "its locks do not work; check that it lies on a local disk",
    sqlite3.SQLITE_INTERRUPT: "the statement was interrupted; try again",
    sqlite3.SQLITE_NOMEM: "there is no memory left",
}
_CORRUPT = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def primary_code(error: sqlite3.Error) -> int | None:
    """Return SQLite's result code without its extension; None where the error is the driver's own."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def translate(error: sqlite3.Error, path: Path) -> SagaStorageError:
    """Return the library's error for one of SQLite's."""
    code = primary_code(error)
    if code in _AWAY:
        return SagaStorageUnavailableError(f"the database {path} does not answer ({error}): {_AWAY[code]}")
    if code in _CORRUPT:
        return SagaCorruptStateError(
            f"{path} is damaged, or no SQLite database ({error}): it is left as it is; restore a copy, or name another"
        )
    return SagaStorageError(f"the database {path} refused a statement: {error}")


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raise the library's errors in place of SQLite's.

    Raises:
        SagaStorageUnavailableError: If the database cannot be read or written now.
        SagaCorruptStateError: If it is damaged.
        SagaStorageError: If it refuses a statement for another reason.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise translate(error, path) from error
