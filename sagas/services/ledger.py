"""What every service keeps beside its own tables: answers under keys, tombstones, and an append-only ledger.

The effect, its ledger rows and the stored answer are one SQLite transaction, so a repeated call finds either all of
them or none. An undo names the key of the action that it undoes; an undo that arrives first lays a tombstone, which
refuses the action when it arrives late.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

Facts = dict[str, Any]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS ledger (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL, key TEXT NOT NULL, operation TEXT NOT NULL,
    facts TEXT NOT NULL
) STRICT;
CREATE TRIGGER IF NOT EXISTS ledger_is_never_changed BEFORE UPDATE ON ledger
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER IF NOT EXISTS ledger_is_never_cut BEFORE DELETE ON ledger
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, request TEXT NOT NULL, status INTEGER NOT NULL, body TEXT NOT NULL,
    repeats INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE IF NOT EXISTS tombstones (
    key TEXT PRIMARY KEY, laid_by TEXT NOT NULL, refused INTEGER NOT NULL DEFAULT 0
) STRICT;
"""


@dataclass(frozen=True, slots=True)
class Call:
    """One mutating request: its idempotency key, and its path and body in one canonical text."""

    key: str
    request: str


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP status with a JSON body; ``repeated`` says that it was stored by an earlier call with the same key."""

    status: int
    body: Mapping[str, Any]
    repeated: bool = False

    @property
    def took_effect(self) -> bool:
        """Whether the call did what it asked for."""
        return self.status < 300  # noqa: PLR2004  (HTTP's own number)


class RefusedError(Exception):
    """Raised by an effect that must not happen: everything it wrote is taken back and the refusal is the answer.

    Attributes:
        answer: The refusal.
        final: Whether a repeat gets it again. A refusal that holds only for now is not kept.
    """

    def __init__(self, status: int, code: str, message: str, *, final: bool = True) -> None:
        super().__init__(message)
        self.answer = Answer(status, error_body(code, message))
        self.final = final


def error_body(code: str, message: str) -> Facts:
    """Return the body of every answer that refuses."""
    return {"error": {"code": code, "message": message}}


class Entry:
    """What an effect works with: the service's database inside the open transaction, and the ledger."""

    def __init__(self, db: sqlite3.Connection, key: str) -> None:
        self.db = db
        self.key = key

    def one(self, sql: str, *values: object) -> sqlite3.Row | None:
        """Return the first row that the statement finds."""
        row: sqlite3.Row | None = self.db.execute(sql, values).fetchone()
        return row

    def record(self, operation: str, **facts: object) -> None:
        """Append a row to the ledger."""
        row = (datetime.now(UTC).isoformat(), self.key, operation, msgspec.json.encode(facts).decode())
        self.db.execute("INSERT INTO ledger (at, key, operation, facts) VALUES (?, ?, ?, ?)", row)

    def answer_to(self, key: str) -> Answer | None:
        """Return the answer stored under another key."""
        row = self.one("SELECT status, body FROM answers WHERE key = ?", key)
        return None if row is None else Answer(row["status"], msgspec.json.decode(row["body"]))

    def lay_tombstone(self, key: str) -> None:
        """Refuse any later call with this key that has not been answered yet."""
        self.db.execute("INSERT OR IGNORE INTO tombstones (key, laid_by) VALUES (?, ?)", (key, self.key))


class Ledger:
    """One service's SQLite file. It is used from one thread: calls are serial, which is also their isolation."""

    def __init__(self, path: Path, schema: str) -> None:
        """Open or create the file.

        Args:
            path: The SQLite file.
            schema: The service's own tables, as statements that may run again.
        """
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.executescript(_SCHEMA + schema)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def known(self, call: Call) -> Answer | None:
        """Return the answer that stands already: the stored one, a key's misuse, or a tombstone's refusal."""
        with self._transaction() as db:
            return _known(Entry(db, call.key), call)

    def perform(
        self, call: Call, effect: Callable[[Entry], Facts], status: int = 200, *, keep_refusals: bool = True
    ) -> Answer:
        """Do the effect once and store its answer; answer a repeat with the first answer.

        Args:
            call: What is asked for.
            effect: Writes through the entry and returns the answer's body, or raises ``RefusedError``.
            status: The HTTP status of success.
            keep_refusals: Whether a repeat gets a final refusal again. If not, each repeat is looked at anew.
        """
        with self._transaction() as db:
            entry = Entry(db, call.key)
            answer = _known(entry, call)
            if answer is None:
                answer, final = _attempt(entry, effect, status)
                if answer.took_effect or (final and keep_refusals):
                    _store(entry, call, answer)
            return answer

    def undo(self, call: Call, undoes: str, effect: Callable[[Entry], Facts]) -> Answer:
        """Undo what the action with the key ``undoes`` did; if it did nothing yet, see to it that it never will.

        A refusal is not kept: what stands in the way of an undo may be undone itself, and then a repeat succeeds.
        """

        def undo_if_done(entry: Entry) -> Facts:
            answer = entry.answer_to(undoes)
            if answer is None:
                entry.lay_tombstone(undoes)
                entry.record("tombstone", undoes=undoes)
            if answer is None or not answer.took_effect:
                return {"undone": False}
            return {"undone": True, **effect(entry)}

        return self.perform(call, undo_if_done, keep_refusals=False)

    def note(self, key: str, write: Callable[[Entry], None]) -> None:
        """Write something that is no answer yet, in a transaction of its own."""
        with self._transaction() as db:
            write(Entry(db, key))

    def rows(self, after: int, limit: int) -> list[Facts]:
        """Return ledger rows in the order they were written.

        Args:
            after: Only rows with a greater ``seq``.
            limit: At most this many.
        """
        sql = "SELECT seq, at, key, operation, facts FROM ledger WHERE seq > ? ORDER BY seq LIMIT ?"
        return [{**row, "facts": msgspec.json.decode(row["facts"])} for row in self.read(sql, after, limit)]

    def read(self, sql: str, *values: object) -> list[Facts]:
        """Return the rows that a statement finds, as plain mappings."""
        return [dict(row) for row in self._db.execute(sql, values)]

    def counts(self) -> Facts:
        """Return how many calls were answered and repeated, how many tombstones lie, and how many calls met one."""
        answered = "SELECT count(*) AS calls, coalesce(sum(repeats), 0) AS repeats FROM answers"
        undone = "SELECT count(*) AS tombstones, coalesce(sum(refused), 0) AS refused FROM tombstones"
        return {**self.read(answered)[0], **self.read(undone)[0]}

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        # The connection as a context manager commits, or takes everything back if an error passes through.
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            yield self._db


def _known(entry: Entry, call: Call) -> Answer | None:
    row = entry.one("SELECT request, status, body FROM answers WHERE key = ?", call.key)
    if row is not None and row["request"] != call.request:
        message = f"the key {call.key!r} was used for another request; a key belongs to one effect"
        return Answer(422, error_body("key_reused", message))
    if row is not None:
        entry.db.execute("UPDATE answers SET repeats = repeats + 1 WHERE key = ?", (call.key,))
        return Answer(row["status"], msgspec.json.decode(row["body"]), repeated=True)
    late = entry.db.execute("UPDATE tombstones SET refused = refused + 1 WHERE key = ?", (call.key,))
    if late.rowcount:
        return Answer(
            409, error_body("already_undone", f"the effect of key {call.key!r} was undone before it was asked for")
        )
    return None


def _attempt(entry: Entry, effect: Callable[[Entry], Facts], status: int) -> tuple[Answer, bool]:
    """Return the answer, and whether a repeat gets it again."""
    final = True
    entry.db.execute("SAVEPOINT effect")
    try:
        answer = Answer(status, effect(entry))
    except RefusedError as refusal:
        entry.db.execute("ROLLBACK TO effect")
        answer, final = refusal.answer, refusal.final
    entry.db.execute("RELEASE effect")
    return answer, final


def _store(entry: Entry, call: Call, answer: Answer) -> None:
    row = (call.key, call.request, answer.status, msgspec.json.encode(answer.body).decode())
    entry.db.execute("INSERT INTO answers (key, request, status, body) VALUES (?, ?, ?, ?)", row)
