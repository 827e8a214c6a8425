"""Money: authorised on a card, captured, voided before the capture, refunded after it.

Amounts are whole numbers of the currency's smallest unit. The card decides what the bank says; see ``CARDS``.
Run it with ``python -m sagas.services.payment --db FILE``.
"""

from __future__ import annotations

import uuid

import msgspec

from sagas.services.ledger import Entry, Facts, Ledger, RefusedError
from sagas.services.server import arguments, serve
from sagas.services.service import Service, Undo

_SCHEMA = """
CREATE TABLE IF NOT EXISTS authorisations (
    id TEXT PRIMARY KEY, key TEXT NOT NULL UNIQUE, order_id TEXT NOT NULL, card TEXT NOT NULL,
    amount INTEGER NOT NULL CHECK (amount > 0), currency TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('held', 'voided', 'captured'))
) STRICT;
CREATE TABLE IF NOT EXISTS captures (
    id TEXT PRIMARY KEY, key TEXT NOT NULL UNIQUE, authorisation_id TEXT NOT NULL UNIQUE REFERENCES authorisations,
    amount INTEGER NOT NULL, refunded INTEGER NOT NULL CHECK (refunded BETWEEN 0 AND amount)
) STRICT;
"""

CARDS = {
    "tok_good": "everything is accepted",
    "tok_declined": "the authorisation is declined",
    "tok_no_funds": "the authorisation is declined for lack of funds",
    "tok_capture_declined": "the authorisation is accepted and the capture declined",
}
"""The cards of this bank and what becomes of them."""


class Authorise(msgspec.Struct, forbid_unknown_fields=True):
    """Hold an amount on a card for an order."""

    order_id: str
    card: str
    amount: int
    currency: str


class Capture(msgspec.Struct, forbid_unknown_fields=True):
    """Take the money that an authorisation holds."""

    authorisation_id: str


class Refund(Undo, forbid_unknown_fields=True):
    """Give back what a capture took: ``amount`` of it, or all that is left."""

    amount: int | None = None


def authorise(entry: Entry, asked: Authorise) -> Facts:
    """Hold the amount if the card allows it."""
    if asked.amount < 1:
        raise RefusedError(400, "bad_amount", f"an amount is at least 1, not {asked.amount}")
    if asked.card not in CARDS:
        raise RefusedError(404, "unknown_card", f"no card is called {asked.card!r}")
    if asked.card == "tok_declined":
        raise RefusedError(402, "card_declined", "the bank declined the card")
    if asked.card == "tok_no_funds":
        raise RefusedError(402, "card_declined", "the account does not cover the amount")
    authorisation_id = f"auth_{uuid.uuid4().hex}"
    entry.db.execute(
        "INSERT INTO authorisations VALUES (?, ?, ?, ?, ?, ?, 'held')",
        (authorisation_id, entry.key, asked.order_id, asked.card, asked.amount, asked.currency),
    )
    entry.record("authorised", order_id=asked.order_id, amount=asked.amount, currency=asked.currency)
    return {"authorisation_id": authorisation_id, "amount": asked.amount, "currency": asked.currency}


def capture(entry: Entry, asked: Capture) -> Facts:
    """Take the whole amount that is held."""
    held = entry.one("SELECT * FROM authorisations WHERE id = ?", asked.authorisation_id)
    if held is None:
        raise RefusedError(404, "unknown_authorisation", f"no authorisation is called {asked.authorisation_id!r}")
    if held["status"] != "held":
        raise RefusedError(409, "not_held", f"authorisation {held['id']} is {held['status']}")
    if held["card"] == "tok_capture_declined":
        raise RefusedError(402, "card_declined", "the bank declined the capture")
    capture_id = f"cap_{uuid.uuid4().hex}"
    entry.db.execute("UPDATE authorisations SET status = 'captured' WHERE id = ?", (held["id"],))
    entry.db.execute("INSERT INTO captures VALUES (?, ?, ?, ?, 0)", (capture_id, entry.key, held["id"], held["amount"]))
    entry.record("captured", order_id=held["order_id"], amount=held["amount"], currency=held["currency"])
    return {"capture_id": capture_id, "amount": held["amount"], "currency": held["currency"]}


def void(entry: Entry, asked: Undo) -> Facts:
    """Give back the hold of an authorisation that was not captured."""
    held = entry.one("SELECT * FROM authorisations WHERE key = ?", asked.undoes)
    if held is None:
        raise RefusedError(409, "not_an_authorisation", f"the key {asked.undoes!r} made no authorisation")
    if held["status"] == "captured":
        raise RefusedError(409, "already_captured", f"authorisation {held['id']} was captured: refund it")
    if held["status"] == "held":
        entry.db.execute("UPDATE authorisations SET status = 'voided' WHERE id = ?", (held["id"],))
        entry.record("voided", order_id=held["order_id"], amount=held["amount"], currency=held["currency"])
    return {"authorisation_id": held["id"]}


def refund(entry: Entry, asked: Refund) -> Facts:
    """Give back captured money."""
    taken = entry.one(
        "SELECT captures.*, order_id, currency FROM captures "
        "JOIN authorisations ON authorisation_id = authorisations.id WHERE captures.key = ?",
        asked.undoes,
    )
    if taken is None:
        raise RefusedError(409, "not_a_capture", f"the key {asked.undoes!r} made no capture")
    left = taken["amount"] - taken["refunded"]
    amount = left if asked.amount is None else asked.amount
    if not 0 <= amount <= left:
        raise RefusedError(409, "bad_amount", f"{amount} asked back, {left} left of capture {taken['id']}")
    if amount:
        entry.db.execute("UPDATE captures SET refunded = refunded + ? WHERE id = ?", (amount, taken["id"]))
        entry.record("refunded", order_id=taken["order_id"], amount=amount, currency=taken["currency"])
    return {"capture_id": taken["id"], "amount": amount}


def problems(ledger: Ledger) -> list[str]:
    """Say for which orders holds and takings differ from what the ledger adds up to."""
    booked = ledger.read("""
        SELECT order_id,
            sum(CASE status WHEN 'held' THEN authorisations.amount ELSE 0 END) AS held,
            sum(coalesce(captures.amount - refunded, 0)) AS taken,
            (SELECT coalesce(sum(CASE operation WHEN 'authorised' THEN facts ->> 'amount' WHEN 'refunded' THEN 0
                                                ELSE -(facts ->> 'amount') END), 0)
             FROM ledger WHERE facts ->> 'order_id' = order_id) AS ledger_held,
            (SELECT coalesce(sum(CASE operation WHEN 'captured' THEN facts ->> 'amount'
                                                WHEN 'refunded' THEN -(facts ->> 'amount') ELSE 0 END), 0)
             FROM ledger WHERE facts ->> 'order_id' = order_id) AS ledger_taken
        FROM authorisations LEFT JOIN captures ON authorisation_id = authorisations.id GROUP BY order_id""")
    return [
        f"order {row['order_id']}: {row['held']} held and {row['taken']} taken, "
        f"the ledger says {row['ledger_held']} and {row['ledger_taken']}"
        for row in booked
        if (row["held"], row["taken"]) != (row["ledger_held"], row["ledger_taken"])
    ]


def service(ledger: Ledger) -> Service:
    """Return the service's routes."""
    routes = Service(ledger, problems)
    routes.action("/authorisations", Authorise, authorise)
    routes.action("/captures", Capture, capture)
    routes.undo("/voids", Undo, void)
    routes.undo("/refunds", Refund, refund)
    return routes


if __name__ == "__main__":
    options = arguments("payment").parse_args()
    serve(service(Ledger(options.db, _SCHEMA)).app, options)
