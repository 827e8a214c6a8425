"""Money: authorised on a card, confirmed by its holder, captured and settled; before that voided or refunded.

Amounts are whole numbers of the currency's smallest unit. The card decides what the bank and its holder say; see
``CARDS``. Where 3-D Secure asks the holder, the answer takes a while: until then a confirmation is refused for now.
Run it with ``python -m sagas.services.payment --db FILE``.
"""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING

import msgspec

from sagas.money import EXPONENTS
from sagas.services.ledger import Entry, Facts, Ledger, RefusedError
from sagas.services.server import arguments, serve
from sagas.services.service import Number, Service, Undo

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

_SCHEMA = """
CREATE TABLE IF NOT EXISTS authorisations (
    id TEXT PRIMARY KEY, key TEXT NOT NULL UNIQUE, reference TEXT NOT NULL, card TEXT NOT NULL,
    amount INTEGER NOT NULL CHECK (amount > 0), currency TEXT NOT NULL, at REAL NOT NULL,
    confirmed INTEGER NOT NULL CHECK (confirmed IN (0, 1)),
    status TEXT NOT NULL CHECK (status IN ('held', 'voided', 'captured', 'refunded'))
) STRICT;
CREATE TABLE IF NOT EXISTS captures (
    id TEXT PRIMARY KEY, key TEXT NOT NULL UNIQUE, authorisation_id TEXT NOT NULL UNIQUE REFERENCES authorisations,
    amount INTEGER NOT NULL, refunded INTEGER NOT NULL CHECK (refunded BETWEEN 0 AND amount),
    settled INTEGER NOT NULL CHECK (settled = 0 OR settled = amount AND refunded = 0)
) STRICT;
"""

_CAPTURES = (
    "SELECT captures.*, reference, currency, card, status "
    "FROM captures JOIN authorisations ON authorisation_id = authorisations.id"
)

CARDS = {
    "tok_good": "everything is accepted",
    "tok_declined": "the authorisation is declined",
    "tok_no_funds": "the authorisation is declined for lack of funds",
    "tok_capture_declined": "the authorisation is accepted and the capture declined",
    "tok_challenged": "3-D Secure asks its holder, who confirms after a moment",
    "tok_challenge_failed": "3-D Secure asks its holder, who does not confirm",
    "tok_settlement_refused": "all is accepted but the settlement",
}
"""The cards of this bank and what becomes of them."""

CHALLENGED = ("tok_challenged", "tok_challenge_failed")
"""The cards whose holder is asked; the other authorisations count as confirmed."""

HOLDER_ANSWERS_AFTER_SECONDS = 1.0
"""How long the holder of a card takes to confirm."""


class Authorise(msgspec.Struct, forbid_unknown_fields=True):
    """Hold an amount on a card; ``reference`` says for what, such as the number of an order."""

    reference: str
    card: str
    amount: Number
    currency: str


class Confirm(msgspec.Struct, forbid_unknown_fields=True):
    """Ask whether the card's holder has confirmed an authorisation."""

    authorisation_id: str


class Capture(msgspec.Struct, forbid_unknown_fields=True):
    """Take the money that an authorisation holds."""

    authorisation_id: str


class Settle(msgspec.Struct, forbid_unknown_fields=True):
    """Pay out what a capture took; after that the payment is final."""

    capture_id: str


class Refund(Undo, forbid_unknown_fields=True):
    """Give back what a capture took, all but ``keep`` of it.

    What is kept is not paid out here: a capture that was refunded, if only in part, is never settled.
    """

    keep: Number = 0


def authorise(entry: Entry, asked: Authorise) -> Facts:
    """Hold the amount if the card allows it."""
    if asked.amount < 1:
        raise RefusedError(400, "bad_amount", f"an amount is at least 1, not {asked.amount}")
    if asked.currency not in EXPONENTS:
        accepted = ", ".join(EXPONENTS)
        raise RefusedError(400, "unknown_currency", f"{asked.currency!r} is not settled here, but {accepted} are")
    if asked.card not in CARDS:
        raise RefusedError(404, "unknown_card", f"no card is called {asked.card!r}")
    if asked.card == "tok_declined":
        raise RefusedError(402, "card_declined", "the bank declined the card")
    if asked.card == "tok_no_funds":
        raise RefusedError(402, "card_declined", "the account does not cover the amount")
    authorisation_id = f"auth_{uuid.uuid4().hex}"
    entry.db.execute(
        "INSERT INTO authorisations VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'held')",
        (
            authorisation_id,
            entry.key,
            asked.reference,
            asked.card,
            asked.amount,
            asked.currency,
            time.time(),
            asked.card not in CHALLENGED,
        ),
    )
    entry.record("authorised", reference=asked.reference, amount=asked.amount, currency=asked.currency)
    return {"authorisation_id": authorisation_id, "amount": asked.amount, "currency": asked.currency}


def confirm(entry: Entry, asked: Confirm) -> Facts:
    """Say that the holder has confirmed, once that is so."""
    held = _held(entry, asked.authorisation_id)
    if held["card"] == "tok_challenge_failed":
        raise RefusedError(402, "challenge_failed", "the holder of the card did not confirm")
    if not held["confirmed"] and time.time() < held["at"] + HOLDER_ANSWERS_AFTER_SECONDS:
        raise RefusedError(409, "challenge_pending", "the holder of the card has not answered yet", final=False)
    entry.db.execute("UPDATE authorisations SET confirmed = 1 WHERE id = ?", (held["id"],))
    entry.record("confirmed", reference=held["reference"])
    return {"authorisation_id": held["id"], "challenged": held["card"] in CHALLENGED}


def capture(entry: Entry, asked: Capture) -> Facts:
    """Take the whole amount that is held."""
    held = _held(entry, asked.authorisation_id)
    if not held["confirmed"]:
        raise RefusedError(409, "not_confirmed", f"authorisation {held['id']} is not confirmed by the card's holder")
    if held["card"] == "tok_capture_declined":
        raise RefusedError(402, "card_declined", "the bank declined the capture")
    capture_id = f"cap_{uuid.uuid4().hex}"
    entry.db.execute("UPDATE authorisations SET status = 'captured' WHERE id = ?", (held["id"],))
    row = (capture_id, entry.key, held["id"], held["amount"])
    entry.db.execute("INSERT INTO captures VALUES (?, ?, ?, ?, 0, 0)", row)
    entry.record("captured", reference=held["reference"], amount=held["amount"], currency=held["currency"])
    return {"capture_id": capture_id, "amount": held["amount"], "currency": held["currency"]}


def settle(entry: Entry, asked: Settle) -> Facts:
    """Pay out the whole amount that was captured."""
    taken = entry.one(f"{_CAPTURES} WHERE captures.id = ?", asked.capture_id)
    if taken is None:
        raise RefusedError(404, "unknown_capture", f"no capture is called {asked.capture_id!r}")
    if taken["status"] != "captured" or taken["settled"]:
        word = "settled" if taken["settled"] else taken["status"]
        raise RefusedError(409, "not_captured", f"capture {taken['id']} is {word}")
    if taken["card"] == "tok_settlement_refused":
        raise RefusedError(402, "settlement_refused", "the bank refused the settlement")
    entry.db.execute("UPDATE captures SET settled = amount WHERE id = ?", (taken["id"],))
    entry.record("settled", reference=taken["reference"], amount=taken["amount"], currency=taken["currency"])
    return {"capture_id": taken["id"], "amount": taken["amount"]}


def void(entry: Entry, asked: Undo) -> Facts:
    """Give back the hold of an authorisation; one whose capture was refunded holds nothing any more."""
    held = entry.one("SELECT * FROM authorisations WHERE key = ?", asked.undoes)
    if held is None:
        raise RefusedError(409, "not_an_authorisation", f"the key {asked.undoes!r} made no authorisation")
    if held["status"] == "captured":
        raise RefusedError(409, "already_captured", f"authorisation {held['id']} was captured: refund it")
    if held["status"] == "held":
        entry.db.execute("UPDATE authorisations SET status = 'voided' WHERE id = ?", (held["id"],))
        entry.record("voided", reference=held["reference"], amount=held["amount"], currency=held["currency"])
    return {"authorisation_id": held["id"]}


def refund(entry: Entry, asked: Refund) -> Facts:
    """Give captured money back; where all of it is kept, nothing moves and the ledger has no row of it."""
    taken = entry.one(f"{_CAPTURES} WHERE captures.key = ?", asked.undoes)
    if taken is None:
        raise RefusedError(409, "not_a_capture", f"the key {asked.undoes!r} made no capture")
    if taken["settled"]:
        raise RefusedError(409, "already_settled", f"capture {taken['id']} was settled")
    amount = taken["amount"] - taken["refunded"] - asked.keep
    if asked.keep < 0 or amount < 0:
        left = taken["amount"] - taken["refunded"]
        raise RefusedError(409, "bad_amount", f"{asked.keep} cannot be kept of the {left} left of {taken['id']}")
    entry.db.execute("UPDATE captures SET refunded = refunded + ? WHERE id = ?", (amount, taken["id"]))
    entry.db.execute("UPDATE authorisations SET status = 'refunded' WHERE id = ?", (taken["authorisation_id"],))
    if amount:
        entry.record("refunded", reference=taken["reference"], amount=amount, currency=taken["currency"])
    return {"capture_id": taken["id"], "amount": amount}


def _held(entry: Entry, authorisation_id: str) -> sqlite3.Row:
    held = entry.one("SELECT * FROM authorisations WHERE id = ?", authorisation_id)
    if held is None:
        raise RefusedError(404, "unknown_authorisation", f"no authorisation is called {authorisation_id!r}")
    if held["status"] != "held":
        raise RefusedError(409, "not_held", f"authorisation {held['id']} is {held['status']}")
    return held


def problems(ledger: Ledger) -> list[str]:
    """Say for which references and currencies holds and takings differ from what the ledger adds up to."""
    compared = ledger.read("""
        WITH booked AS (
            SELECT facts ->> 'reference' AS reference, facts ->> 'currency' AS currency, operation,
                facts ->> 'amount' AS amount
            FROM ledger
        ), added_up AS (
            SELECT reference, currency,
                sum(CASE operation WHEN 'authorised' THEN amount
                                   WHEN 'voided' THEN -amount WHEN 'captured' THEN -amount ELSE 0 END) AS held,
                sum(CASE operation WHEN 'captured' THEN amount WHEN 'refunded' THEN -amount ELSE 0 END) AS taken,
                sum(CASE operation WHEN 'settled' THEN amount ELSE 0 END) AS settled
            FROM booked WHERE reference IS NOT NULL AND amount IS NOT NULL GROUP BY reference, currency
        ), standing AS (
            SELECT reference, currency,
                sum(CASE status WHEN 'held' THEN authorisations.amount ELSE 0 END) AS held,
                sum(coalesce(captures.amount - refunded, 0)) AS taken, sum(coalesce(settled, 0)) AS settled
            FROM authorisations LEFT JOIN captures ON authorisation_id = authorisations.id
            GROUP BY reference, currency
        )
        SELECT reference, currency, coalesce(standing.held, 0) AS held, coalesce(standing.taken, 0) AS taken,
            coalesce(standing.settled, 0) AS settled, coalesce(added_up.held, 0) AS ledger_held,
            coalesce(added_up.taken, 0) AS ledger_taken, coalesce(added_up.settled, 0) AS ledger_settled
        FROM standing FULL JOIN added_up USING (reference, currency)""")
    kinds = ("held", "taken", "settled")
    return [
        f"{row['reference']} in {row['currency']}: {_told(row, kinds)}, "
        f"the ledger says {_told(row, [f'ledger_{kind}' for kind in kinds])}"
        for row in compared
        if any(row[kind] != row[f"ledger_{kind}"] for kind in kinds)
    ]


def _told(row: Facts, kinds: Iterable[str]) -> str:
    return ", ".join(f"{row[kind]} {kind.removeprefix('ledger_')}" for kind in kinds)


def service(ledger: Ledger) -> Service:
    """Return the service's routes."""
    routes = Service(ledger, problems)
    routes.action("/authorisations", Authorise, authorise)
    routes.action("/confirmations", Confirm, confirm)
    routes.action("/captures", Capture, capture)
    routes.action("/settlements", Settle, settle)
    routes.undo("/voids", Undo, void)
    routes.undo("/refunds", Refund, refund)
    return routes


if __name__ == "__main__":
    options = arguments("payment").parse_args()
    serve(service(Ledger(options.db, _SCHEMA)), options)
