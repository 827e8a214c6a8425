"""Things of which there are only so many, held for somebody and then given back or used up.

Goods on a shelf, seats, rooms, shares on offer, cash in an account, room in a van: each service calls them by its own
words and keeps them in this way. What is held is marked as pending: it is neither free nor gone, and everybody can see
that. A constraint of the database keeps a pool from ever being promised twice.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sagas.services.ledger import RefusedError

if TYPE_CHECKING:
    import sqlite3

    from sagas.services.ledger import Entry, Facts, Ledger

SCHEMA = """
CREATE TABLE IF NOT EXISTS pools (
    item TEXT PRIMARY KEY, total INTEGER NOT NULL CHECK (total >= 0),
    held INTEGER NOT NULL CHECK (held BETWEEN 0 AND total)
) STRICT;
CREATE TABLE IF NOT EXISTS holdings (
    id TEXT PRIMARY KEY, key TEXT NOT NULL UNIQUE, reference TEXT NOT NULL, item TEXT NOT NULL REFERENCES pools,
    quantity INTEGER NOT NULL CHECK (quantity > 0),
    status TEXT NOT NULL CHECK (status IN ('held', 'released', 'used'))
) STRICT;
"""


@dataclass(frozen=True, slots=True)
class Words:
    """What a service says for what happens to its things.

    Attributes:
        added: The ledger's word for new things.
        held: For things that are kept for somebody.
        released: For things that are given back.
        used: For things that are gone.
        unknown: The code of the refusal if there is no such pool.
        none_left: The code of the refusal if too few are free, for good.
        contended: The code of the refusal if too few are free only since some are pending; that one is not final, as
            what is pending may come back. None says ``none_left`` to that, too.
    """

    added: str
    held: str
    released: str
    used: str
    unknown: str
    none_left: str
    contended: str | None = None


class Holdings:
    """The pools of one service, and what is held of them. The effects belong into the ledger's transaction."""

    def __init__(self, words: Words) -> None:
        self._words = words

    def add(self, entry: Entry, item: str, quantity: int) -> None:
        """Add to a pool; make it if it is new."""
        _check_quantity(quantity)
        sql = "INSERT INTO pools VALUES (?, ?, 0) ON CONFLICT (item) DO UPDATE SET total = total + excluded.total"
        entry.db.execute(sql, (item, quantity))
        entry.record(self._words.added, item=item, quantity=quantity)

    def hold(self, entry: Entry, reference: str, item: str, quantity: int) -> str:
        """Hold so much of a pool, if it is free, and return the id of what is held.

        Args:
            entry: The transaction.
            reference: On whose behalf, such as the number of an order.
            item: The pool.
            quantity: At least 1.
        """
        _check_quantity(quantity)
        pool = entry.one("SELECT total, total - held AS free FROM pools WHERE item = ?", item)
        if pool is None:
            raise RefusedError(404, self._words.unknown, f"there is no {item!r} here")
        if pool["free"] < quantity:
            raise self._too_few(pool, item, quantity)
        holding = f"{self._words.held[:3]}_{uuid.uuid4().hex}"
        entry.db.execute("UPDATE pools SET held = held + ? WHERE item = ?", (quantity, item))
        row = (holding, entry.key, reference, item, quantity)
        entry.db.execute("INSERT INTO holdings VALUES (?, ?, ?, ?, ?, 'held')", row)
        entry.record(self._words.held, reference=reference, item=item, quantity=quantity)
        return holding

    def release(self, entry: Entry, key: str) -> Facts:
        """Give back what the call with this key holds; twice does nothing."""
        held = entry.one("SELECT * FROM holdings WHERE key = ?", key)
        if held is None:
            raise RefusedError(409, "nothing_held", f"the call with the key {key!r} holds nothing here")
        if held["status"] == "used":
            raise RefusedError(409, f"already_{self._words.used}", f"{held['id']} is {self._words.used}")
        if held["status"] == "held":
            entry.db.execute("UPDATE holdings SET status = 'released' WHERE id = ?", (held["id"],))
            self._book(entry, held, self._words.released, held["quantity"])
        return {"id": held["id"]}

    def use(self, entry: Entry, holding: str, quantity: int | None = None, **facts: object) -> sqlite3.Row:
        """Use up what is held, and return its row.

        Args:
            entry: The transaction.
            holding: What ``hold`` returned.
            quantity: How much of it; the rest is given back. None takes all.
            facts: What else the ledger is to say.
        """
        held = entry.one("SELECT * FROM holdings WHERE id = ?", holding)
        if held is None:
            raise RefusedError(404, "unknown_holding", f"nothing held is called {holding!r}")
        if held["status"] != "held":
            word = self._words.released if held["status"] == "released" else self._words.used
            raise RefusedError(409, "not_held", f"{holding} is {word}")
        used = held["quantity"] if quantity is None else quantity
        if not 0 < used <= held["quantity"]:
            raise RefusedError(409, "bad_quantity", f"{used} asked for, {held['quantity']} held as {holding}")
        entry.db.execute("UPDATE holdings SET status = 'used' WHERE id = ?", (holding,))
        self._book(entry, held, self._words.used, used, gone=used, **facts)
        if used < held["quantity"]:
            self._book(entry, held, self._words.released, held["quantity"] - used)
        return held

    def pools(self, ledger: Ledger) -> list[Facts]:
        """Return every pool: how much there is, and how much of that is held."""
        return ledger.read("SELECT item, total, held FROM pools ORDER BY item")

    def problems(self, ledger: Ledger) -> list[str]:
        """Say where the pools differ from what the ledger adds up to."""
        words = self._words
        sql = """
            WITH booked AS (
                SELECT facts ->> 'item' AS item, operation, facts ->> 'quantity' AS quantity FROM ledger
            ), added_up AS (
                SELECT item,
                    sum(CASE operation WHEN ?1 THEN quantity WHEN ?4 THEN -quantity ELSE 0 END) AS total,
                    sum(CASE operation WHEN ?2 THEN quantity
                                       WHEN ?3 THEN -quantity WHEN ?4 THEN -quantity ELSE 0 END) AS held
                FROM booked GROUP BY item
            ), standing AS (
                SELECT item, sum(quantity) AS held FROM holdings WHERE status = 'held' GROUP BY item
            )
            SELECT item, pools.total, pools.held, coalesce(standing.held, 0) AS standing,
                coalesce(added_up.total, 0) AS ledger_total, coalesce(added_up.held, 0) AS ledger_held
            FROM pools LEFT JOIN added_up USING (item) LEFT JOIN standing USING (item)"""
        compared = ledger.read(sql, words.added, words.held, words.released, words.used)
        return [
            f"{row['item']}: {row['total']} there and {row['held']} {words.held} ({row['standing']} by name), "
            f"the ledger says {row['ledger_total']} and {row['ledger_held']}"
            for row in compared
            if (row["total"], row["held"]) != (row["ledger_total"], row["ledger_held"])
            or row["standing"] != row["held"]
        ]

    def _book(
        self, entry: Entry, held: sqlite3.Row, word: str, quantity: int, *, gone: int = 0, **facts: object
    ) -> None:
        """Book that so much is not held any more, and how much of that is gone from the pool."""
        sql = "UPDATE pools SET total = total - ?, held = held - ? WHERE item = ?"
        entry.db.execute(sql, (gone, quantity, held["item"]))
        entry.record(word, reference=held["reference"], item=held["item"], quantity=quantity, **facts)

    def _too_few(self, pool: sqlite3.Row, item: str, quantity: int) -> RefusedError:
        words = self._words
        text = f"{quantity} of {item!r} asked for, {pool['free']} free"
        if words.contended is None or pool["total"] < quantity:
            return RefusedError(409, words.none_left, text)
        pending = pool["total"] - pool["free"]
        return RefusedError(409, words.contended, f"{text}, {pending} {words.held} for others", final=False)


def _check_quantity(quantity: int) -> None:
    if quantity < 1:
        raise RefusedError(400, "bad_quantity", f"a quantity is at least 1, not {quantity}")
