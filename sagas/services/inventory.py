"""Stock: received, reserved for somebody, released again, or committed when it leaves the shelf.

Run it with ``python -m sagas.services.inventory --db FILE``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sagas.services.holdings import SCHEMA, Holdings, Words
from sagas.services.ledger import Ledger
from sagas.services.server import arguments, serve
from sagas.services.service import Number, Service, Undo

if TYPE_CHECKING:
    from sagas.services.ledger import Entry, Facts

WORDS = Words(
    added="received",
    held="reserved",
    released="released",
    used="committed",
    unknown="unknown_sku",
    none_left="out_of_stock",
)
_SHELVES = Holdings(WORDS)


class Receipt(msgspec.Struct, forbid_unknown_fields=True):
    """Goods that arrive in the warehouse."""

    sku: str
    quantity: Number


class Reserve(msgspec.Struct, forbid_unknown_fields=True):
    """Hold a quantity of one article; ``reference`` says for what, such as the number of an order."""

    reference: str
    sku: str
    quantity: Number


class Commit(msgspec.Struct, forbid_unknown_fields=True):
    """Let reserved goods leave the shelf: all of these reservations or none."""

    reservation_ids: list[str]


def receive(entry: Entry, asked: Receipt) -> Facts:
    """Add goods to the stock."""
    _SHELVES.add(entry, asked.sku, asked.quantity)
    return {"sku": asked.sku, "quantity": asked.quantity}


def reserve(entry: Entry, asked: Reserve) -> Facts:
    """Hold goods if enough of them are free."""
    reservation_id = _SHELVES.hold(entry, asked.reference, asked.sku, asked.quantity)
    return {"reservation_id": reservation_id, "sku": asked.sku, "quantity": asked.quantity}


def release(entry: Entry, asked: Undo) -> Facts:
    """Give back what a reservation holds."""
    return _SHELVES.release(entry, asked.undoes)


def commit(entry: Entry, asked: Commit) -> Facts:
    """Take reserved goods off the shelf."""
    for reservation_id in asked.reservation_ids:
        _SHELVES.use(entry, reservation_id)
    return {"reservation_ids": asked.reservation_ids}


def service(ledger: Ledger) -> Service:
    """Return the service's routes."""
    routes = Service(ledger, _SHELVES.problems)
    routes.action("/receipts", Receipt, receive)
    routes.action("/reservations", Reserve, reserve)
    routes.undo("/releases", Undo, release)
    routes.action("/commits", Commit, commit, keep_refusals=False)
    routes.read("/pools", _SHELVES.pools)
    return routes


if __name__ == "__main__":
    options = arguments("inventory").parse_args()
    serve(service(Ledger(options.db, SCHEMA)), options)
