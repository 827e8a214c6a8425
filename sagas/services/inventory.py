"""Stock: received, reserved for an order, released again, or committed when it leaves the shelf.

Run it with ``python -m sagas.services.inventory --db FILE``.
"""

from __future__ import annotations

import uuid

import msgspec

from sagas.services.ledger import Entry, Facts, Ledger, RefusedError
from sagas.services.server import arguments, serve
from sagas.services.service import Service, Undo

_SCHEMA = """
CREATE TABLE IF NOT EXISTS stock (
    sku TEXT PRIMARY KEY, on_hand INTEGER NOT NULL CHECK (on_hand >= 0),
    reserved INTEGER NOT NULL CHECK (reserved BETWEEN 0 AND on_hand)
) STRICT;
CREATE TABLE IF NOT EXISTS reservations (
    id TEXT PRIMARY KEY, key TEXT NOT NULL UNIQUE, order_id TEXT NOT NULL, sku TEXT NOT NULL REFERENCES stock,
    quantity INTEGER NOT NULL CHECK (quantity > 0),
    status TEXT NOT NULL CHECK (status IN ('held', 'released', 'committed'))
) STRICT;
"""


class Receipt(msgspec.Struct, forbid_unknown_fields=True):
    """Goods that arrive in the warehouse."""

    sku: str
    quantity: int


class Reserve(msgspec.Struct, forbid_unknown_fields=True):
    """Hold a quantity of one article for an order."""

    order_id: str
    sku: str
    quantity: int


class Commit(msgspec.Struct, forbid_unknown_fields=True):
    """Let reserved goods leave the shelf: all of these reservations or none."""

    reservation_ids: list[str]


def receive(entry: Entry, asked: Receipt) -> Facts:
    """Add goods to the stock."""
    _check_quantity(asked.quantity)
    entry.db.execute(
        "INSERT INTO stock VALUES (?, ?, 0) ON CONFLICT (sku) DO UPDATE SET on_hand = on_hand + excluded.on_hand",
        (asked.sku, asked.quantity),
    )
    entry.record("received", sku=asked.sku, quantity=asked.quantity)
    return {"sku": asked.sku, "quantity": asked.quantity}


def reserve(entry: Entry, asked: Reserve) -> Facts:
    """Hold goods if enough of them are free."""
    _check_quantity(asked.quantity)
    stock = entry.one("SELECT on_hand - reserved AS free FROM stock WHERE sku = ?", asked.sku)
    if stock is None:
        raise RefusedError(404, "unknown_sku", f"no article is called {asked.sku!r}")
    if stock["free"] < asked.quantity:
        raise RefusedError(409, "out_of_stock", f"{asked.quantity} of {asked.sku!r} asked for, {stock['free']} free")
    reservation_id = f"res_{uuid.uuid4().hex}"
    entry.db.execute("UPDATE stock SET reserved = reserved + ? WHERE sku = ?", (asked.quantity, asked.sku))
    entry.db.execute(
        "INSERT INTO reservations VALUES (?, ?, ?, ?, ?, 'held')",
        (reservation_id, entry.key, asked.order_id, asked.sku, asked.quantity),
    )
    entry.record("reserved", order_id=asked.order_id, sku=asked.sku, quantity=asked.quantity)
    return {"reservation_id": reservation_id, "sku": asked.sku, "quantity": asked.quantity}


def release(entry: Entry, asked: Undo) -> Facts:
    """Give back what a reservation holds."""
    held = entry.one("SELECT * FROM reservations WHERE key = ?", asked.undoes)
    if held is None:
        raise RefusedError(409, "not_a_reservation", f"the key {asked.undoes!r} made no reservation")
    if held["status"] == "committed":
        raise RefusedError(409, "already_committed", f"reservation {held['id']} has left the shelf")
    if held["status"] == "held":
        entry.db.execute("UPDATE reservations SET status = 'released' WHERE id = ?", (held["id"],))
        entry.db.execute("UPDATE stock SET reserved = reserved - ? WHERE sku = ?", (held["quantity"], held["sku"]))
        entry.record("released", order_id=held["order_id"], sku=held["sku"], quantity=held["quantity"])
    return {"reservation_id": held["id"]}


def commit(entry: Entry, asked: Commit) -> Facts:
    """Take reserved goods off the shelf."""
    for reservation_id in asked.reservation_ids:
        held = entry.one("SELECT * FROM reservations WHERE id = ?", reservation_id)
        if held is None:
            raise RefusedError(404, "unknown_reservation", f"no reservation is called {reservation_id!r}")
        if held["status"] != "held":
            raise RefusedError(409, "not_held", f"reservation {reservation_id} is {held['status']}")
        entry.db.execute("UPDATE reservations SET status = 'committed' WHERE id = ?", (reservation_id,))
        entry.db.execute(
            "UPDATE stock SET on_hand = on_hand - ?1, reserved = reserved - ?1 WHERE sku = ?2",
            (held["quantity"], held["sku"]),
        )
        entry.record("committed", order_id=held["order_id"], sku=held["sku"], quantity=held["quantity"])
    return {"reservation_ids": asked.reservation_ids}


def problems(ledger: Ledger) -> list[str]:
    """Say where the stock differs from what the ledger adds up to."""
    booked = ledger.read("""
        SELECT sku, on_hand, reserved,
            (SELECT coalesce(sum(CASE operation WHEN 'received' THEN facts ->> 'quantity'
                                                WHEN 'committed' THEN -(facts ->> 'quantity') ELSE 0 END), 0)
             FROM ledger WHERE facts ->> 'sku' = sku) AS ledger_on_hand,
            (SELECT coalesce(sum(CASE operation WHEN 'reserved' THEN facts ->> 'quantity'
                                                WHEN 'received' THEN 0 ELSE -(facts ->> 'quantity') END), 0)
             FROM ledger WHERE facts ->> 'sku' = sku) AS ledger_reserved
        FROM stock""")
    return [
        f"{row['sku']}: {row['on_hand']} on hand and {row['reserved']} reserved, "
        f"the ledger says {row['ledger_on_hand']} and {row['ledger_reserved']}"
        for row in booked
        if (row["on_hand"], row["reserved"]) != (row["ledger_on_hand"], row["ledger_reserved"])
    ]


def service(ledger: Ledger) -> Service:
    """Return the service's routes."""
    routes = Service(ledger, problems)
    routes.action("/receipts", Receipt, receive)
    routes.action("/reservations", Reserve, reserve)
    routes.undo("/releases", Undo, release)
    routes.action("/commits", Commit, commit)
    routes.read("/stock", lambda: ledger.read("SELECT sku, on_hand, reserved FROM stock ORDER BY sku"))
    return routes


def _check_quantity(quantity: int) -> None:
    if quantity < 1:
        raise RefusedError(400, "bad_quantity", f"a quantity is at least 1, not {quantity}")


if __name__ == "__main__":
    options = arguments("inventory").parse_args()
    serve(service(Ledger(options.db, _SCHEMA)).app, options)
