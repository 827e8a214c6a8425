"""One connection to an SQLite file: how it is opened, and how the statements of `sql/sqlite/` run on it.

SQLite gives up Python's global lock at each step, and getting it back from a busy loop costs milliseconds. So a batch
is one statement over all its rows, and what is read comes as one row of JSON.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from contextlib import contextmanager
from functools import cache
from importlib import resources
from itertools import chain
from typing import TYPE_CHECKING, Any

from saga.exceptions import SagaStorageError, SagaStorageUnavailableError
from saga.storage._sqlite_errors import BUSY, primary_code, translated

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

APPLICATION_ID = 0x53414741
"""Tells a database of sagas from anybody else's ("SAGA")."""

SCHEMA_VERSION = 1
SQLITE_OLDEST = (3, 33, 0)
ROWS_MAX = 512
"""Rows of one statement. Statements are prepared for 1, 2, 4 … rows and padded, so that few are ever prepared."""

_FOLDER = resources.files("saga.storage") / "sql" / "sqlite"
_OPEN_PAUSE = 0.02
_CACHE_KIB = 16_384
_WAL_BYTES_KEPT = 64 * 1024 * 1024

# POSIX drops all locks of a process on a file when it closes any descriptor of it. No other thread of this process may
# have the new file open while the descriptor that created it is closed.
_creating = threading.Lock()


@cache
def statement(name: str) -> str:
    """Return the SQL of this name, without its comments."""
    lines = (_FOLDER / f"{name}.sql").read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith("--"))


@cache
def statement_for(name: str, rows: int, width: int) -> str:
    """Return the SQL of this name for so many rows of so many values."""
    row = "(" + ", ".join("?" * width) + ")"
    return statement(name).replace("{rows}", ", ".join([row] * rows))


class Database:
    """A connection; to be used by one thread only.

    Attributes:
        path: The file.
        broken: Whether a transaction could not be undone, so that the connection must be opened anew.
    """

    def __init__(self, path: Path, busy_timeout: float, *, writes: bool) -> None:
        """Name the file.

        Args:
            path: The file.
            busy_timeout: For how many seconds to wait for other processes.
            writes: Whether to write; else the connection refuses to.
        """
        self.path = path
        self.broken = False
        self._busy_timeout = busy_timeout
        self._writes = writes
        self._open: sqlite3.Connection | None = None

    def open(self) -> None:
        """Open the file, create or migrate it where it is to be written, and check that it keeps promises.

        Raises:
            SagaStorageUnavailableError: If it cannot be opened or created, or another process does not let go of it.
            SagaCorruptStateError: If it is no SQLite database.
            SagaStorageError: If it belongs to something else, or to a newer version of the library.
        """
        if self._writes:
            _create_file(self.path)
        with translated(self.path):
            self._open = sqlite3.connect(
                self.path, timeout=self._busy_timeout, isolation_level=None, cached_statements=256
            )
            _set_up(self._open, self.path, self._busy_timeout, writes=self._writes)
        # JSON is decoded from bytes; text that is no UTF-8 is then found by whoever knows which saga it belongs to.
        self._open.text_factory = bytes
        self.broken = False

    def close(self) -> None:
        """Disconnect, if connected."""
        if self._open is not None:
            self._open.close()
            self._open = None

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._open is None:
            message = f"the database {self.path} is not open"
            raise SagaStorageError(message)
        return self._open

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Take the write lock; commit in the end, or undo everything."""
        # These two calls give Python's lock up once each, where `execute` would three times.
        self._connection.executescript("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.commit()
        finally:
            self._undo()

    def _undo(self) -> None:
        """Roll back what was not committed."""
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            self.broken = True

    def change(self, name: str, constants: tuple[Any, ...], rows: Sequence[tuple[Any, ...]]) -> int:
        """Run a statement over these rows and return how many it changed."""
        return sum(cursor.rowcount for cursor in self._run(name, constants, rows))

    def ask(self, name: str, constants: tuple[Any, ...], rows: Sequence[tuple[Any, ...]]) -> Iterator[bytes]:
        """Run a question over these rows and return its answers as JSON."""
        return (cursor.fetchone()[0] for cursor in self._run(name, constants, rows))

    def _run(self, name: str, constants: tuple[Any, ...], rows: Sequence[tuple[Any, ...]]) -> Iterator[sqlite3.Cursor]:
        width = len(rows[0])
        for first in range(0, len(rows), ROWS_MAX):
            part = rows[first : first + ROWS_MAX]
            size = 1 << (len(part) - 1).bit_length()
            padding = (None,) * (width * (size - len(part)))
            values = (*constants, *chain.from_iterable(part), *padding)
            yield self._connection.execute(statement_for(name, size, width), values)

    def ask_one(self, name: str, **values: Any) -> bytes | None:
        """Run a question with named values and return its one answer as JSON; None where there is no row."""
        return self.ask_sql(statement(name), values)

    def ask_sql(self, sql: str, values: dict[str, Any]) -> bytes | None:
        """Run a question that was put together and return its one answer as JSON; None where there is no row."""
        row = self._connection.execute(sql, values).fetchone()
        return None if row is None else row[0]

    def do(self, name: str, **values: Any) -> int:
        """Run a statement with named values and return how many rows it changed."""
        return self._connection.execute(statement(name), values).rowcount


def _create_file(path: Path) -> None:
    """Create the file for its owner only, if it is not there; SQLite gives its side files the same mode."""
    try:
        if path.is_dir():
            message = f"{path} is a folder; name a file in it"
            raise SagaStorageUnavailableError(message)
        if not path.parent.is_dir():
            message = f"the folder {path.parent} does not exist; create it first"
            raise SagaStorageUnavailableError(message)
        with _creating:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return
    except OSError as error:
        message = f"the file {path} cannot be created ({error.strerror}); check owner and mode of its folder"
        raise SagaStorageUnavailableError(message) from error


def _set_up(connection: sqlite3.Connection, path: Path, busy_timeout: float, *, writes: bool) -> None:
    if sqlite3.sqlite_version_info < SQLITE_OLDEST:
        oldest = ".".join(map(str, SQLITE_OLDEST))
        message = f"this Python has SQLite {sqlite3.sqlite_version}; {oldest} or newer is needed"
        raise SagaStorageError(message)
    _pragma(connection, "busy_timeout", round(busy_timeout * 1000))
    _pragma(connection, "cache_size", -_CACHE_KIB)
    if not writes:
        _pragma(connection, "query_only", 1)
        return
    _switch_to_wal(connection, path, busy_timeout)
    _pragma(connection, "synchronous", 2)
    # On macOS a plain fsync leaves the data in the drive's cache; elsewhere these two change nothing.
    _pragma(connection, "fullfsync", 1)
    _pragma(connection, "checkpoint_fullfsync", 1)
    _pragma(connection, "journal_size_limit", _WAL_BYTES_KEPT)
    # In one transaction: another process may be creating the schema between one of these reads and the next.
    connection.execute("BEGIN")
    try:
        version = _versions(connection, path)
    finally:
        connection.execute("COMMIT")
    if version < SCHEMA_VERSION:
        _migrate(connection, path)


def _pragma(connection: sqlite3.Connection, name: str, value: int) -> None:
    """Set a pragma and read it back: SQLite says nothing when it does not take one."""
    connection.execute(f"PRAGMA {name} = {value}")
    taken = connection.execute(f"PRAGMA {name}").fetchone()[0]
    if taken != value:
        message = f"SQLite {sqlite3.sqlite_version} set {name} to {taken} instead of {value}; sagas are not safe on it"
        raise SagaStorageError(message)


def _switch_to_wal(connection: sqlite3.Connection, path: Path, busy_timeout: float) -> None:
    """Switch to write-ahead logging; the switch ignores SQLite's own waiting for other processes."""
    for _ in range(round(busy_timeout / _OPEN_PAUSE)):
        try:
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            break
        except sqlite3.OperationalError as error:
            if primary_code(error) not in BUSY:
                raise
            time.sleep(_OPEN_PAUSE)
    else:
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        message = f"{path} cannot use write-ahead logging (it stays in mode {mode}); put it on a local disk"
        raise SagaStorageError(message)


def _versions(connection: sqlite3.Connection, path: Path) -> int:
    """Return the schema version of the file; 0 if it is empty."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if application != APPLICATION_ID:
        if application == version == connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
            return 0
        message = f"{path} is a database of something else; give sagas a file of their own"
        raise SagaStorageError(message)
    if version > SCHEMA_VERSION:
        message = f"{path} has schema version {version} and this library knows {SCHEMA_VERSION}; install a newer one"
        raise SagaStorageError(message)
    return version


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the schema up to date, in one transaction; whoever comes second finds it done."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for version in range(_versions(connection, path) + 1, SCHEMA_VERSION + 1):
            for sql in _split(statement(f"schema_{version:03}")):
                connection.execute(sql)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _split(script: str) -> Iterator[str]:
    sql = ""
    for line in script.splitlines():
        sql += line + "\n"
        if sqlite3.complete_statement(sql):
            yield sql
            sql = ""
