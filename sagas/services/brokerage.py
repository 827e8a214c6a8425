"""A broker's back office: pre-trade checks, cash of accounts, clearing, and the reports that regulators get.

Amounts are whole numbers of the currency's smallest unit. Cash is reserved before an order leaves the house, and
released again or, when the trade is cleared, paid; what was reserved beyond the price is free again.
Run it with ``python -m sagas.services.brokerage --db FILE``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sagas.services.holdings import SCHEMA as HOLDINGS_SCHEMA
from sagas.services.holdings import Holdings, Words
from sagas.services.ledger import Ledger, RefusedError
from sagas.services.server import arguments, serve
from sagas.services.service import Number, Service, Undo

if TYPE_CHECKING:
    from sagas.services.ledger import Entry, Facts

_SCHEMA = """
CREATE TABLE IF NOT EXISTS limits (account TEXT PRIMARY KEY, order_limit INTEGER NOT NULL) STRICT;
"""

WORDS = Words(
    added="deposited",
    held="reserved",
    released="released",
    used="cleared",
    unknown="unknown_account",
    none_left="no_cash",
)
_CASH = Holdings(WORDS)

RESTRICTED = {"HALT": "its trading is halted", "OWN": "it is on the house's own restricted list"}
"""Symbols that must not be traded, and why."""


class Deposit(msgspec.Struct, forbid_unknown_fields=True):
    """Cash for an account; no single order of it may cost more than ``order_limit``."""

    account: str
    amount: Number
    order_limit: Number


class CheckInstrument(msgspec.Struct, forbid_unknown_fields=True):
    """May this symbol be traded?"""

    symbol: str


class CheckLimit(msgspec.Struct, forbid_unknown_fields=True):
    """May this account place an order of this size?"""

    account: str
    amount: Number


class Reserve(msgspec.Struct, forbid_unknown_fields=True):
    """Hold cash of an account for a trade."""

    reference: str
    account: str
    amount: Number


class Clear(msgspec.Struct, forbid_unknown_fields=True):
    """Pay for the shares that a trade has bought, out of what was reserved for it."""

    reservation_id: str
    symbol: str
    quantity: Number
    amount: Number


class Report(msgspec.Struct, forbid_unknown_fields=True):
    """Tell the regulator of a trade."""

    reference: str
    symbol: str
    quantity: Number
    amount: Number


def deposit(entry: Entry, asked: Deposit) -> Facts:
    """Put cash into an account, and set its limit."""
    _check_number("order_limit", asked.order_limit, least=0)
    _CASH.add(entry, asked.account, asked.amount)
    entry.db.execute("INSERT OR REPLACE INTO limits VALUES (?, ?)", (asked.account, asked.order_limit))
    return {"account": asked.account, "amount": asked.amount}


def check_instrument(_entry: Entry, asked: CheckInstrument) -> Facts:
    """Refuse symbols that must not be traded."""
    if asked.symbol in RESTRICTED:
        raise RefusedError(403, "restricted", f"{asked.symbol} must not be traded: {RESTRICTED[asked.symbol]}")
    return {"symbol": asked.symbol}


def check_limit(entry: Entry, asked: CheckLimit) -> Facts:
    """Refuse orders that are too large for their account."""
    _check_number("amount", asked.amount)
    row = entry.one("SELECT order_limit FROM limits WHERE account = ?", asked.account)
    if row is None:
        raise RefusedError(404, "unknown_account", f"no account is called {asked.account!r}")
    if asked.amount > row["order_limit"]:
        raise RefusedError(403, "over_limit", f"an order of {asked.amount} is over the limit of {row['order_limit']}")
    return {"account": asked.account, "amount": asked.amount}


def reserve(entry: Entry, asked: Reserve) -> Facts:
    """Hold cash if the account has it."""
    reservation_id = _CASH.hold(entry, asked.reference, asked.account, asked.amount)
    return {"reservation_id": reservation_id, "amount": asked.amount}


def release(entry: Entry, asked: Undo) -> Facts:
    """Free the cash of a reservation."""
    return _CASH.release(entry, asked.undoes)


def clear(entry: Entry, asked: Clear) -> Facts:
    """Pay for the trade and free the rest."""
    _check_number("quantity", asked.quantity)
    _CASH.use(entry, asked.reservation_id, asked.amount, symbol=asked.symbol, shares=asked.quantity)
    return {"reservation_id": asked.reservation_id, "amount": asked.amount}


def report(entry: Entry, asked: Report) -> Facts:
    """Keep the report."""
    _check_number("quantity", asked.quantity)
    _check_number("amount", asked.amount)
    entry.record("reported", reference=asked.reference, item=asked.symbol, quantity=asked.quantity, amount=asked.amount)
    return {"reference": asked.reference}


def _check_number(what: str, number: int, least: int = 1) -> None:
    if number < least:
        raise RefusedError(400, "bad_number", f"{what} must be at least {least}, not {number}")


def service(ledger: Ledger) -> Service:
    """Return the service's routes."""
    routes = Service(ledger, _CASH.problems)
    routes.action("/deposits", Deposit, deposit)
    routes.action("/instrument-checks", CheckInstrument, check_instrument)
    routes.action("/limit-checks", CheckLimit, check_limit)
    routes.action("/reservations", Reserve, reserve)
    routes.undo("/releases", Undo, release)
    routes.action("/clearings", Clear, clear, keep_refusals=False)
    routes.action("/reports", Report, report, keep_refusals=False)
    routes.read("/pools", _CASH.pools)
    return routes


if __name__ == "__main__":
    options = arguments("brokerage").parse_args()
    serve(service(Ledger(options.db, HOLDINGS_SCHEMA + _SCHEMA)), options)
