"""A carrier: room in a van is booked, cancelled again, or used when the parcel is dispatched.

Each country that it serves has so much room; what goes elsewhere is refused.
Run it with ``python -m sagas.services.shipping --db FILE``.
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
    added="room_added",
    held="booked",
    released="cancelled",
    used="dispatched",
    unknown="not_served",
    none_left="no_room",
)
_VANS = Holdings(WORDS)


class Room(msgspec.Struct, forbid_unknown_fields=True):
    """Room for so many parcels to a country, by its ISO 3166 code; the first makes it a country that is served."""

    country: str
    parcels: Number


class Address(msgspec.Struct, forbid_unknown_fields=True):
    """Where a parcel goes."""

    street: str
    city: str
    country: str


class Book(msgspec.Struct, forbid_unknown_fields=True):
    """Keep room for one parcel."""

    reference: str
    address: Address


class Dispatch(msgspec.Struct, forbid_unknown_fields=True):
    """Take the parcel that was booked."""

    booking_id: str


def add_room(entry: Entry, asked: Room) -> Facts:
    """Serve a country, or more parcels to it."""
    _VANS.add(entry, asked.country, asked.parcels)
    return {"country": asked.country, "parcels": asked.parcels}


def book(entry: Entry, asked: Book) -> Facts:
    """Keep room for a parcel if the country is served and there is room."""
    return {"booking_id": _VANS.hold(entry, asked.reference, asked.address.country, 1)}


def cancel(entry: Entry, asked: Undo) -> Facts:
    """Give up the room of a booking."""
    return _VANS.release(entry, asked.undoes)


def dispatch(entry: Entry, asked: Dispatch) -> Facts:
    """Send the parcel on its way."""
    _VANS.use(entry, asked.booking_id)
    return {"booking_id": asked.booking_id}


def service(ledger: Ledger) -> Service:
    """Return the service's routes."""
    routes = Service(ledger, _VANS.problems)
    routes.action("/room", Room, add_room)
    routes.action("/bookings", Book, book)
    routes.undo("/cancellations", Undo, cancel)
    routes.action("/dispatches", Dispatch, dispatch, keep_refusals=False)
    routes.read("/pools", _VANS.pools)
    return routes


if __name__ == "__main__":
    options = arguments("shipping").parse_args()
    serve(service(Ledger(options.db, SCHEMA)), options)
