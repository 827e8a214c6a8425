"""A trading venue: an order holds shares that are on offer, and is then cancelled or filled at the price it found.

An accepted order is firm: the venue fills it whenever it is told to, and nobody else gets those shares. Who has bought
at another venue already asks for a further fill: it does the same, but a refusal is not kept, as the buyer cannot turn
back any more and asks again.
Run it with ``python -m sagas.services.venue --db FILE``.
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
CREATE TABLE IF NOT EXISTS prices (symbol TEXT PRIMARY KEY, price INTEGER NOT NULL CHECK (price > 0)) STRICT;
CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY REFERENCES holdings, price INTEGER NOT NULL) STRICT;
"""

WORDS = Words(
    added="listed",
    held="placed",
    released="cancelled",
    used="filled",
    unknown="unknown_symbol",
    none_left="no_liquidity",
)
_BOOK = Holdings(WORDS)


class Listing(msgspec.Struct, forbid_unknown_fields=True):
    """Shares on offer at a price, in the currency's smallest unit."""

    symbol: str
    price: Number
    quantity: Number


class Place(msgspec.Struct, forbid_unknown_fields=True):
    """Buy so many shares at the price on offer, if that is at most the limit."""

    reference: str
    symbol: str
    quantity: Number
    limit_price: Number


class Fill(msgspec.Struct, forbid_unknown_fields=True):
    """Execute an order that was placed."""

    order_id: str


def list_shares(entry: Entry, asked: Listing) -> Facts:
    """Offer shares; the price counts for all of this symbol that are not held yet."""
    if asked.price < 1:
        raise RefusedError(400, "bad_price", f"a price is at least 1, not {asked.price}")
    _BOOK.add(entry, asked.symbol, asked.quantity)
    entry.db.execute("INSERT OR REPLACE INTO prices VALUES (?, ?)", (asked.symbol, asked.price))
    return {"symbol": asked.symbol, "price": asked.price, "quantity": asked.quantity}


def place(entry: Entry, asked: Place) -> Facts:
    """Hold the shares if there are enough at an acceptable price."""
    order_id = _BOOK.hold(entry, asked.reference, asked.symbol, asked.quantity)
    price = _number(entry, "SELECT price FROM prices WHERE symbol = ?", asked.symbol)
    if price > asked.limit_price:
        raise RefusedError(409, "price_above_limit", f"{asked.symbol} costs {price}, the limit is {asked.limit_price}")
    entry.db.execute("INSERT INTO orders VALUES (?, ?)", (order_id, price))
    return {"order_id": order_id, "quantity": asked.quantity, "price": price}


def cancel(entry: Entry, asked: Undo) -> Facts:
    """Withdraw an order that was not filled."""
    return _BOOK.release(entry, asked.undoes)


def fill(entry: Entry, asked: Fill) -> Facts:
    """Execute an order at the price that it found when it was placed."""
    held = _BOOK.use(entry, asked.order_id)
    price = _number(entry, "SELECT price FROM orders WHERE id = ?", asked.order_id)
    return {"order_id": asked.order_id, "quantity": held["quantity"], "price": price}


def _number(entry: Entry, sql: str, value: str) -> int:
    row = entry.one(sql, value)
    assert row is not None  # noqa: S101  (a symbol that is held has a price, an order that is held has a row)
    return int(row["price"])


def service(ledger: Ledger) -> Service:
    """Return the service's routes."""
    routes = Service(ledger, _BOOK.problems)
    routes.action("/listings", Listing, list_shares)
    routes.action("/orders", Place, place)
    routes.undo("/cancellations", Undo, cancel)
    routes.action("/fills", Fill, fill)
    routes.action("/further-fills", Fill, fill, keep_refusals=False)
    routes.read("/pools", _BOOK.pools)
    return routes


if __name__ == "__main__":
    options = arguments("venue").parse_args()
    serve(service(Ledger(options.db, HOLDINGS_SCHEMA + _SCHEMA)), options)
