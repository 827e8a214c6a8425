"""A travel supplier: seats, rooms or cars, booked as *pending*, and then cancelled or confirmed.

One program serves for an airline, a hotel and a car rental: each runs it on a file of its own. What is pending is
neither free nor sold: whoever finds only pending places in the way is told so, and may ask again.
Run it with ``python -m sagas.services.travel --db FILE``.
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
    added="offered",
    held="pending",
    released="cancelled",
    used="confirmed",
    unknown="unknown_offer",
    none_left="sold_out",
    contended="pending_elsewhere",
)
_PLACES = Holdings(WORDS)


class Offer(msgspec.Struct, forbid_unknown_fields=True):
    """Places that can be booked: the seats of a flight, the rooms of a night, the cars of a class."""

    offer: str
    places: Number


class Book(msgspec.Struct, forbid_unknown_fields=True):
    """Mark so many places of one offer as pending."""

    reference: str
    offer: str
    places: Number


class Confirm(msgspec.Struct, forbid_unknown_fields=True):
    """Make a pending booking final."""

    booking_id: str


def offer(entry: Entry, asked: Offer) -> Facts:
    """Offer places."""
    _PLACES.add(entry, asked.offer, asked.places)
    return {"offer": asked.offer, "places": asked.places}


def book(entry: Entry, asked: Book) -> Facts:
    """Mark places as pending if they are free."""
    booking_id = _PLACES.hold(entry, asked.reference, asked.offer, asked.places)
    return {"booking_id": booking_id, "offer": asked.offer, "places": asked.places}


def cancel(entry: Entry, asked: Undo) -> Facts:
    """Give the places of a pending booking back."""
    return _PLACES.release(entry, asked.undoes)


def confirm(entry: Entry, asked: Confirm) -> Facts:
    """Sell what was pending."""
    _PLACES.use(entry, asked.booking_id)
    return {"booking_id": asked.booking_id}


def service(ledger: Ledger) -> Service:
    """Return the service's routes."""
    routes = Service(ledger, _PLACES.problems)
    routes.action("/offers", Offer, offer)
    routes.action("/bookings", Book, book)
    routes.undo("/cancellations", Undo, cancel)
    routes.action("/confirmations", Confirm, confirm, keep_refusals=False)
    routes.read("/pools", _PLACES.pools)
    return routes


if __name__ == "__main__":
    options = arguments("travel").parse_args()
    serve(service(Ledger(options.db, SCHEMA)), options)
